"""Sources become tokens once, held-out rows stay out, and a stage shows an epoch exactly once."""

from __future__ import annotations

import gzip
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.config import PretrainRecipe, TextSource
from dialoop.errors import DataError, TrainError
from dialoop.train.batch import Batch
from dialoop.train.corpus import StagePlan, StagesPlan, Tokens, is_held_out, plain_text, rows, tokenise
from tests.tiny import tiny_model


@pytest.fixture(scope="module")
def tokenizer() -> ChatTokenizer:
    return ChatTokenizer.load(tiny_model())


def source(path: Path, **changes: Any) -> TextSource:
    return TextSource.model_validate({"path": str(path), **changes})


def write(path: Path, lines: Sequence[Mapping[str, Any]]) -> Path:
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def texts(count: int) -> list[dict[str, str]]:
    return [{"text": f"document {i}, 文档"} for i in range(count)]


def decoded(tokens: Tokens, tokenizer: ChatTokenizer) -> list[str]:
    pieces = np.split(tokens.tokens.astype(np.int64), tokens.offsets[1:-1])
    return [tokenizer.decode(piece.tolist()) for piece in pieces]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_rows_are_read_from_plain_and_gzipped_files(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, texts(3))
    assert [row["text"] for row in rows(source(path))] == [row["text"] for row in texts(3)]


def test_rows_of_other_licences_are_left_out(tmp_path: Path) -> None:
    held = [{"text": "a", "licence": "MIT"}, {"text": "b", "licence": "CC-BY-NC"}, {"text": "c"}]
    found = rows(source(write(tmp_path / "a.jsonl", held), licences=["MIT", "CC0-1.0"]))
    assert [row["text"] for row in found] == ["a"]


@pytest.mark.parametrize(
    ("line", "told"), [("{", "not JSON"), ('{"words": "x"}', "lacks text"), ("[1]", "lacks text")]
)
def test_a_bad_row_is_an_error_with_its_file_and_line(line: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n\n' + line + "\n")
    with pytest.raises(DataError, match=rf"a\.jsonl:3: {told}"):
        list(rows(source(path)))


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: no such file"):
        list(rows(source(tmp_path / "none.jsonl")))


def test_every_document_is_either_trained_on_or_held_out(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", texts(60))
    tokens = tokenise("news", source(path), tokenizer, tmp_path / "tokens", 0.3)
    held = [
        json.loads(x)["text"] for x in (tmp_path / "tokens" / "news.held_out.jsonl").read_text().splitlines()
    ]
    trained = decoded(tokens, tokenizer)
    assert sorted(held + trained) == sorted(row["text"] for row in texts(60))
    assert held == [f"document {i}, 文档" for i in range(60) if is_held_out("news", i, 0.3)]
    assert 5 < len(held) < 31


def test_rows_added_later_move_none_between_the_two() -> None:
    assert [is_held_out("a", i, 0.1) for i in range(50)] == [is_held_out("a", i, 0.1) for i in range(80)][:50]


def test_documents_end_with_the_end_of_text(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    tokens = tokenise("a", source(write(tmp_path / "a.jsonl", texts(9))), tokenizer, tmp_path, 1e-9)
    assert set(tokens.tokens[tokens.offsets[1:] - 1].tolist()) == {tokenizer.pad_id}
    assert tokens.tokens.dtype == np.uint16


def test_tokens_are_made_once_and_read_again(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", texts(9))
    first = tokenise("a", source(path), tokenizer, tmp_path / "tokens", 1e-9)
    path.unlink()
    again = tokenise("a", source(path), tokenizer, tmp_path / "tokens", 1e-9)
    assert np.array_equal(first.tokens, again.tokens)
    assert np.array_equal(first.offsets, again.offsets)


def test_answers_of_conversations_are_marked_and_unusable_ones_told(
    tokenizer: ChatTokenizer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    talk = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here."}]
    path = write(tmp_path / "a.jsonl", [{"messages": talk}, {"messages": talk[:1]}])
    with caplog.at_level(logging.WARNING):
        tokens = tokenise("talk", source(path, **{"as": "chat"}), tokenizer, tmp_path, 1e-9)
    assert tokenizer.decode(tokens.tokens[tokens.answers].tolist(), skip_special=False) == "Here.<|im_end|>"
    assert "talk: 1 conversations cannot be rendered" in caplog.text


def numbered(lengths: Sequence[int], first: int = 0) -> Tokens:
    """Documents whose tokens are all different, so that each can be found again."""
    offsets = np.cumsum([0, *lengths])
    return Tokens(np.arange(first, first + offsets[-1]), np.ones(offsets[-1], bool), offsets)


def recipe(stages: Sequence[Mapping[str, Any]], *, micro_batch: int = 32, **repeats: float) -> PretrainRecipe:
    sources = {name: {"path": "x", "repeat": repeat} for name, repeat in repeats.items()}
    filled = [{"name": "s", "sources": list(repeats), "length": 32, "batch_tokens": 64, **s} for s in stages]
    return PretrainRecipe.model_validate(
        {"name": "x", "sources": sources, "stages": filled, "micro_batch": micro_batch, "seed": 3}
    )


def seen(plan: StagePlan | StagesPlan, steps: range) -> list[int]:
    return [
        int(t) for step in steps for batch in plan.batches(step) for t in batch.targets[batch.weights > 0]
    ]


def test_windows_of_an_epoch_aim_at_every_token_but_the_first_once() -> None:
    lengths = [7, 90, 33, 1, 62, 64]
    made = recipe([{"tokens": 10_000}], a=1.0)
    plan = StagePlan(made.stages[0], made, {"a": numbered([*lengths])})
    assert plan.tokens == 257
    for epoch in range(3):
        targets = seen(plan, range(4 * epoch, 4 * epoch + 4))
        assert len(targets) == 256
        assert len(set(targets)) == 256


def test_each_epoch_of_windows_has_its_own_order() -> None:
    made = recipe([{"tokens": 10_000}], a=1.0)
    plan = StagePlan(made.stages[0], made, {"a": numbered([7, 90, 33, 1, 62, 64])})
    assert seen(plan, range(4)) != seen(plan, range(4, 8))


def test_a_batch_of_windows_is_cut_into_rows_that_fit_the_forward_pass() -> None:
    made = recipe([{"tokens": 512, "batch_tokens": 128}], micro_batch=64, a=1.0)
    batches = StagePlan(made.stages[0], made, {"a": numbered([300])}).batches(0)
    assert [batch.lengths for batch in batches] == [(32, 32), (32, 32)]


def test_a_source_smaller_than_an_update_is_repeated() -> None:
    made = recipe([{"tokens": 640}], a=1.0)
    plan = StagePlan(made.stages[0], made, {"a": numbered([20, 21])})
    assert all(seen(plan, range(step, step + 1)) for step in range(plan.steps))


def test_a_source_smaller_than_one_row_is_refused() -> None:
    made = recipe([{"tokens": 640}], a=1.0)
    with pytest.raises(
        TrainError, match=r"stage 's': its sources hold 32 tokens, a row takes 33: add sources"
    ):
        StagePlan(made.stages[0], made, {"a": numbered([32])})


@pytest.mark.parametrize("micro_batch", [32, 4096])
def test_conversations_of_an_epoch_are_seen_whole_once_and_cut_at_the_length(micro_batch: int) -> None:
    lengths = [9, 20, 50, 31, 4, 16, 32, 8]
    stage = {"tokens": 10_000, "mask": "assistant", "batch_tokens": 32}
    made = recipe([stage], micro_batch=micro_batch, a=1.0)
    plan = StagePlan(made.stages[0], made, {"a": numbered(lengths)})
    found: list[Batch] = []
    while sum(len(batch.lengths) for batch in found) < len(lengths):
        found += plan.batches(len(found))
    assert sorted(n for batch in found for n in batch.lengths) == sorted(min(n, 32) for n in lengths)
    assert all(sum(batch.lengths) <= 32 for batch in found)
    ids = [int(i) for batch in found for i in batch.token_ids]
    assert len(ids) == len(set(ids))


def test_sources_are_repeated_as_often_as_the_recipe_says() -> None:
    made = recipe([{"tokens": 10_000, "mask": "assistant"}], a=2.0, b=0.5)
    plan = StagePlan(made.stages[0], made, {"a": numbered([5] * 4), "b": numbered([5] * 10)})
    assert Counter(number for number, _ in plan.documents) == {0: 8, 1: 5}
    assert len({document for number, document in plan.documents if number == 1}) == 5


def test_any_update_can_be_asked_for_first() -> None:
    """Resuming counts: a fresh plan gives the same batches from the middle on, stages and epochs included."""
    stages = [{"tokens": 640}, {"tokens": 640, "mask": "assistant"}, {"tokens": 320, "length": 48}]
    sources = {"a": numbered([30, 40, 50, 60]), "b": numbered([11, 12, 13], first=500)}
    made = recipe(stages, a=1.0, b=2.0)
    whole = StagesPlan(made, sources)
    wanted = [seen(whole, range(step, step + 1)) for step in range(whole.steps)]
    assert whole.steps == 25
    for start in (0, 7, 13, 22):
        fresh = StagesPlan(made, sources)
        assert [seen(fresh, range(s, s + 1)) for s in range(start, whole.steps)] == wanted[start:]


def test_rates_warm_up_and_fall_within_each_stage() -> None:
    stages = [
        {"tokens": 6400, "learning_rate": 1.0, "warmup": 40, "final": 0.5},
        {"tokens": 6400, "learning_rate": 0.4, "final": 0.1},
    ]
    plan = StagesPlan(recipe(stages, a=1.0), {"a": numbered([300])})
    rates = [plan.rate(step) for step in range(plan.steps)]
    assert rates[0] == pytest.approx(1 / 40)
    assert max(rates) == rates[39]
    assert rates[39] > 0.79
    assert rates[99] == pytest.approx(0.5, abs=0.01)
    assert rates[100] == pytest.approx(0.4)
    assert rates[-1] == pytest.approx(0.04, abs=0.01)


def test_words_are_read_as_running_text(tmp_path: Path) -> None:
    held = [{"tokens": ["EU", "rejects", "it", "."]}, {"tokens": ["王", "先生", "in", "Bonn"]}]
    words = source(write(tmp_path / "a.jsonl", held), **{"as": "words"})
    assert [plain_text(row, words) for row in rows(words)] == ["EU rejects it .", "王先生in Bonn"]
