"""What an epoch takes of each source: exact shares, nothing left out, the same at every asking."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.config import DataSettings, MixSettings, validate
from dialoop.data.dataset import load_dataset, load_preferences
from dialoop.data.mix import Mix, epoch_order, stretch
from dialoop.data.writer import write_openai
from dialoop.errors import ConfigError
from dialoop.train.pairs import fit_pairs
from tests.data.test_split import row
from tests.tiny import tiny_model


def mix(counts: dict[str, int], seed: int = 0, **settings: object) -> tuple[Mix, list[str]]:
    sources = [name for name, count in counts.items() for _ in range(count)]
    lengths = [7 * place % 31 for place in range(len(sources))]
    return Mix(sources, lengths, MixSettings.model_validate(settings), seed), sources


@given(st.integers(1, 12), st.integers(0, 40), st.integers(0, 40), st.integers(0, 3))
def test_a_stretch_is_a_part_of_one_endless_row_of_shuffles(
    size: int, start: int, length: int, seed: int
) -> None:
    endless = stretch(size, 0, 120, (seed,)).tolist()
    assert stretch(size, start, length, (seed,)).tolist() == endless[start : start + length]
    whole = len(endless) // size * size
    assert all(sorted(endless[i : i + size]) == list(range(size)) for i in range(0, whole, size))


def test_without_settings_every_row_comes_once_in_the_usual_order() -> None:
    plain, sources = mix({"a": 20, "b": 5}, seed=3)
    assert plain.epoch(2).tolist() == epoch_order(len(sources), 3, 2).tolist()


def test_weights_say_how_often_the_rows_of_a_source_come() -> None:
    weighted, sources = mix({"a": 20, "b": 8, "c": 5}, weights={"a": 0.25, "b": 2})
    epochs = [weighted.epoch(number).tolist() for number in range(4)]
    assert [Counter(sources[i] for i in rows) for rows in epochs] == [{"a": 5, "b": 16, "c": 5}] * 4
    seen = Counter(i for rows in epochs for i in rows if sources[i] == "a")
    assert seen == dict.fromkeys(range(20), 1)


def test_replayed_rows_are_the_wanted_share_and_take_turns() -> None:
    mixed, sources = mix({"own": 90, "g1": 20, "g2": 20}, replay=["g1", "g2"], replay_share=0.1)
    epochs = [mixed.epoch(number).tolist() for number in range(4)]
    assert [sum(sources[i] != "own" for i in rows) / len(rows) for rows in epochs] == [0.1] * 4
    assert len({i for rows in epochs for i in rows if sources[i] != "own"}) == 40


@given(st.integers(0, 5), st.integers(0, 5))
def test_an_epoch_is_a_pure_function_of_seed_and_number(seed: int, number: int) -> None:
    settings = {"weights": {"a": 1.5}, "replay": ["b"], "replay_share": 0.3}
    again = mix({"a": 9, "b": 4}, seed, **settings)[0].epoch(number).tolist()
    assert mix({"a": 9, "b": 4}, seed, **settings)[0].epoch(number).tolist() == again


def test_a_curriculum_shows_short_rows_first_and_then_any() -> None:
    sorted_, sources = mix({"a": 40}, curriculum="length", curriculum_epochs=2)
    lengths = [[int(sorted_.lengths[i]) for i in sorted_.epoch(number)] for number in range(3)]
    assert lengths[0] == sorted(lengths[0]) == lengths[1] == sorted(lengths[1])
    assert lengths[2] != sorted(lengths[2])
    assert sorted(sorted_.epoch(0)) == list(range(len(sources)))


def test_general_data_is_trained_on_and_nothing_else(tmp_path: Path) -> None:
    own, general = tmp_path / "own.jsonl", tmp_path / "general.jsonl"
    for path, first in ((own, 0), (general, 1000)):
        write_openai(path, [row(first + i) for i in range(60)])
    settings = {"sources": [str(own)], "mix": {"replay": [str(general)]}}
    made = load_dataset(DataSettings.model_validate(settings), scratch=tmp_path)
    names = {part: {r.metadata["source"] for r in getattr(made, part)} for part in ("train", "valid", "test")}
    assert names == {"train": {str(own), str(general)}, "valid": {str(own)}, "test": {str(own)}}
    assert made.replayed == 60


def test_preferences_are_mixed_as_dialogues_are(tmp_path: Path) -> None:
    own, general = tmp_path / "own.jsonl", tmp_path / "general.jsonl"
    for path, name in ((own, "mine"), (general, "other")):
        pairs = [
            {"prompt": f"{name} {i}?", "chosen": f"Yes, {i}.", "rejected": f"No, {i}!"} for i in range(40)
        ]
        path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    settings = {"sources": [str(own)], "mix": {"replay": [str(general)]}, "clean": {"steps": []}}
    made = load_preferences(DataSettings.model_validate(settings), scratch=tmp_path)
    assert {row.metadata["source"] for row in made.test} == {str(own)}
    fitted = fit_pairs(made.train, ChatTokenizer.load(tiny_model()), max_length=64)
    assert fitted.sources == tuple(row.metadata["source"] for row in made.train)
    assert set(fitted.sources) == {str(own), str(general)}
    assert made.replayed == 40


@pytest.mark.parametrize(
    ("mixing", "message"),
    [
        ({"weights": {"sampel:en": 2}}, r"'sampel:en', no source; did you mean 'sample:en'\?"),
        ({"weights": {"sample:en": 0}}, r"give a number above 0, or leave the source out"),
        ({"replay": ["x"], "replay_share": 1}, r"replay_share = 1"),
    ],
)
def test_a_mix_that_cannot_be_is_refused(mixing: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(DataSettings, {"sources": ["sample:en"], "mix": mixing}, "recipe")
