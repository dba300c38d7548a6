"""Heads end to end on tiny models: what is learnt, what is written, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

from dialoop.chat.pairs import PairTexts
from dialoop.chat.plain import TextTokenizer
from dialoop.config import validate
from dialoop.config.heads import ClassifyRecipe
from dialoop.errors import ConfigError, ModelError, TrainError
from dialoop.models.head_config import labels_of
from dialoop.models.headed_method import HEAD, attach_head
from dialoop.models.heads import ADAPTER, Headed, load_headed, scores_of
from dialoop.train.batch import halved
from dialoop.train.head_answers import Answering
from dialoop.train.head_loss import BinaryObjective, HeadObjective, RankedObjective
from dialoop.train.head_plan import PairPlan
from dialoop.train.head_rows import HeadRow, pack_heads
from dialoop.train.heads import Taught, teach
from dialoop.train.loop import read_journal
from dialoop.types import Labelled, ModelRef
from tests.encoders import make_encoder
from tests.tiny import tiny_model
from tests.train.head_drill import LABELLED, PAIRS, ROWS, TAGGED, head_recipe

METHODS: dict[str, dict[str, Any]] = {
    "full": {"kind": "full"},
    "freeze": {"kind": "freeze", "layers": 1},
    "lora": {"kind": "lora", "rank": 4},
    "lora over int8": {"kind": "lora", "rank": 4, "base_precision": "int8"},
    "dora": {"kind": "lora", "rank": 4, "dora": True},
    "ia3": {"kind": "ia3"},
    "bottleneck": {"kind": "bottleneck", "size": 8},
    "bitfit": {"kind": "bitfit"},
}
SOFT: dict[str, dict[str, Any]] = {
    "prompt": {"kind": "prompt", "tokens": 3},
    "prefix": {"kind": "prefix", "tokens": 3, "hidden": 16},
    "p-tuning-v2": {"kind": "p-tuning-v2", "tokens": 3},
}
RATES = {"encoder": 2e-3, "decoder": 5e-3}
WIDE = {"train__batch_tokens": 1024, "train__checkpoint_every": 500, "train__eval_every": 20}
KEPT_BESIDE = {"bottleneck", *SOFT}
CASES = [("encoder", name) for name in METHODS] + [("decoder", name) for name in (*METHODS, *SOFT)]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {"encoder": make_encoder(tmp_path_factory.mktemp("encoder")), "decoder": tiny_model()}


def taught(base: Path, folder: Path, kind: str, **changes: Any) -> Taught:
    rows = ROWS[kind]
    return teach(head_recipe(kind, **changes), ModelRef("tiny", base), rows, rows[:3], folder)


def where(made: Taught) -> Path:
    assert made.artefact is not None
    return made.artefact.base


def by_transformers(folder: Path, text: str, kind: Any = AutoModelForSequenceClassification) -> torch.Tensor:
    model = kind.from_pretrained(folder, dtype=torch.float32).eval()
    ids = AutoTokenizer.from_pretrained(folder)(text, truncation=False, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=ids).logits[0]
    return logits


@pytest.mark.parametrize(("on", "name"), CASES)
def test_every_method_trains_a_head_and_transformers_loads_it(
    on: str, name: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    method = {**METHODS, **SOFT}[name]
    made = taught(bases[on], tmp_path, "classify", method=method, train__epochs=2.0)
    folder = where(made)
    assert 0 < made.trained <= made.weights
    assert labels_of(folder) == ("returning", "shipping", "thanks")
    answering = Answering.load(folder, 40)
    (mine,) = scores_of(answering.headed, [answering.tokenizer.encode("Where is it?")])
    theirs = by_transformers(folder, "Where is it?")
    assert theirs.shape == (3,)
    assert (folder / ADAPTER).is_dir() == (name in KEPT_BESIDE)
    if name not in KEPT_BESIDE:
        torch.testing.assert_close(mine, theirs, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize(("on", "name"), CASES)
def test_what_is_written_answers_as_what_was_trained(
    on: str, name: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    settings = head_recipe("classify", method={**METHODS, **SOFT}[name]).method
    base = ModelRef("tiny", bases[on])
    model = attach_head(base, "sequence", ("a", "b", "c"), settings, seed=3, dtype=torch.float32)
    torch.manual_seed(9)
    with torch.no_grad():
        for weight in model.weights.values():
            weight += 0.05 * torch.randn_like(weight)
    texts = [[5, 9, 17, 44], [8, 30], [7, 7, 61]]
    model.model.eval()
    wanted = scores_of(Headed(model.model, base.base), texts)
    folder = model.save(tmp_path / "saved").base
    again = scores_of(Headed(load_headed(folder, dtype=torch.float32), folder), texts)
    coarse = "int8" in name  # what is written lies on the base as it is, not on the base in 8 bits
    torch.testing.assert_close(again, wanted, atol=0.3 if coarse else 2e-3, rtol=0.3 if coarse else 2e-3)


@pytest.mark.parametrize("on", ["encoder", "decoder"])
def test_the_head_is_trained_by_every_method_and_the_body_as_the_method_says(
    on: str, bases: dict[str, Path]
) -> None:
    settings = head_recipe("classify", method={"kind": "lora", "rank": 2}).method
    base = ModelRef("tiny", bases[on])
    model = attach_head(base, "sequence", ("a", "b"), settings, seed=0, dtype=torch.float32)
    heads = [name for name in model.weights if name.startswith(HEAD)]
    assert heads
    assert not any("lora" in name for name in heads)
    Headed(model.model, base.base).logits(torch.tensor([5, 9, 17]), (3,)).square().sum().backward()
    moved = {id(p) for p in model.model.parameters() if p.grad is not None}
    assert moved == {id(weight) for weight in model.weights.values()}


@pytest.mark.parametrize("on", ["encoder", "decoder"])
def test_classes_are_learnt_by_heart(on: str, bases: dict[str, Path], tmp_path: Path) -> None:
    learning = {"train__epochs": 100.0, "optim__learning_rate": RATES[on]}
    made = taught(bases[on], tmp_path, "classify", **learning, **WIDE)
    answering = Answering.load(where(made), 40)
    assert answering.labels_for([row.text for row in LABELLED]) == [row.label for row in LABELLED]
    rows = read_journal(tmp_path / "metrics.jsonl")
    assert rows[-1]["loss"] < 0.3 < rows[0]["loss"]


@pytest.mark.parametrize(("on", "crf"), [("encoder", True), ("decoder", False)])
def test_tags_are_learnt_by_heart(on: str, crf: bool, bases: dict[str, Path], tmp_path: Path) -> None:
    made = taught(
        bases[on], tmp_path, "tag", crf=crf, train__epochs=250.0, train__batch_rows=4,
        optim__learning_rate=RATES[on], **WIDE,
    )  # fmt: skip
    answering = Answering.load(where(made), 40)
    found, cut = answering.tags_for([row.tokens for row in TAGGED])
    assert (found, cut) == ([row.tags for row in TAGGED], 0)
    assert made.labels == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    rows = read_journal(tmp_path / "metrics.jsonl")
    assert 1.0 in [row["measures"].get("valid_accuracy") for row in rows], "whole sequences' tags with a CRF"
    logits = by_transformers(where(made), "Paris", AutoModelForTokenClassification)
    (mine,) = scores_of(answering.headed, [answering.tokenizer.encode("Paris")])
    torch.testing.assert_close(mine, logits, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize(("on", "loss"), [("encoder", "in-batch"), ("decoder", "binary")])
def test_answers_that_fit_are_learnt_by_heart(
    on: str, loss: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    made = taught(
        bases[on],
        tmp_path,
        "pair",
        loss=loss,
        train__epochs=160.0,
        train__batch_rows=6,
        optim__learning_rate=RATES[on],
        **WIDE,
    )
    answering = Answering.load(where(made), 40)
    answers = [pair.answer for pair in PAIRS]
    for pair in PAIRS:
        asked = pair.history.messages[-1].content
        scores = answering.fits([(asked, answer) for answer in answers])
        assert answers[scores.index(max(scores))] == pair.answer
        assert all(0 <= score <= 1 for score in scores)


def test_a_pair_has_the_types_of_its_two_texts_as_transformers_reads_it(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    folder = where(taught(bases["encoder"], tmp_path, "pair", train__epochs=1.0))
    ids = AutoTokenizer.from_pretrained(folder)(
        "Where is it?", "Here.", return_tensors="pt", truncation=False
    )
    types = (ids["input_ids"] == 3).long().cumsum(1).sub((ids["input_ids"] == 3).long())
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        logit = model(input_ids=ids["input_ids"], token_type_ids=types).logits[0, 0]
    (fits,) = Answering.load(folder, 40).fits([("Where is it?", "Here.")])
    assert fits == pytest.approx(float(torch.sigmoid(logit)), abs=1e-3)


def test_long_rows_are_cut_and_counted(bases: dict[str, Path], tmp_path: Path) -> None:
    long = Labelled("Where is my order? " * 40, "shipping")
    rows = (*LABELLED, long)
    made = teach(
        head_recipe("classify", train__epochs=1.0), ModelRef("tiny", bases["encoder"]), rows, (), tmp_path
    )
    assert (made.rows, made.cut) == (len(rows), 1)


def test_words_beyond_the_length_are_no_part_of_any_span(bases: dict[str, Path], tmp_path: Path) -> None:
    made = taught(bases["encoder"], tmp_path, "tag", train__epochs=1.0)
    (tags,), cut = Answering.load(where(made), 10).tags_for([["Paris"] * 30])
    assert (len(tags), cut, set(tags[20:])) == (30, 1, {"O"})


def test_a_class_that_no_training_row_has_is_named(bases: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="class 'weather' is in no training row"):
        teach(head_recipe("classify"), ModelRef("tiny", bases["encoder"]), LABELLED,
              [Labelled("Rain?", "weather")], tmp_path)  # fmt: skip


def test_one_class_alone_cannot_be_told_from_others(bases: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="give rows of two classes"):
        teach(head_recipe("classify"), ModelRef("tiny", bases["encoder"]), LABELLED[:2], (), tmp_path)


def test_a_directory_of_another_run_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    taught(bases["encoder"], tmp_path, "classify", train__epochs=1.0)
    with pytest.raises(TrainError, match="holds a run of another recipe"):
        teach(head_recipe("classify", train__epochs=1.0), ModelRef("tiny", bases["encoder"]), LABELLED[1:],
              LABELLED[:3], tmp_path)  # fmt: skip


def test_a_chain_is_not_held_back_word_by_word() -> None:
    table = {"name": "x", "data": {"sources": ["file:x"]}, "crf": True, "regularisation": {"r_drop": 1.0}}
    with pytest.raises(ConfigError, match="not with crf"):
        validate(type(head_recipe("tag")), table, "recipe")


def test_an_unknown_key_of_a_head_is_told_its_nearest() -> None:
    table = {"name": "x", "data": {"sources": ["file:x"]}, "train": {"batch_row": 3}}
    with pytest.raises(ConfigError, match="did you mean 'batch_rows'"):
        validate(ClassifyRecipe, table, "recipe")


def test_a_killed_run_ends_with_the_same_bytes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.train.head_drill", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert ran.returncode == 0, ran.stderr[-2000:]
    for name, (statuses, whole, killed) in json.loads(ran.stdout.splitlines()[-1]).items():
        assert statuses == [0, -9, 0], name
        assert whole == killed, name


def test_rare_classes_count_for_more_as_torch_weighs_them(bases: dict[str, Path]) -> None:
    base = ModelRef("tiny", bases["encoder"])
    settings = head_recipe("classify", regularisation={"label_smoothing": 0.1})
    model = attach_head(
        base, "sequence", ("a", "b"), settings.method, seed=0, dtype=torch.float32
    ).model.eval()
    headed = Headed(model, base.base)
    rows = [HeadRow((2, 9 + i, 3), (2,), (int(i > 3),)) for i in range(5)]
    weights = torch.tensor([5 / (2 * 4), 5 / (2 * 1)])
    batch = pack_heads(rows, weights.tolist())
    logits = torch.stack(scores_of(headed, [row.token_ids for row in rows]))
    labels = torch.tensor([row.classes[0] for row in rows])
    wanted = torch.nn.functional.cross_entropy(logits, labels, weight=weights)
    mine = HeadObjective(headed, settings.regularisation)(batch) / float(batch.weights.sum())
    torch.testing.assert_close(mine, wanted, atol=1e-4, rtol=1e-4)


def test_the_binary_loss_is_torchs_and_the_ranked_one_is_a_softmax_over_the_group(
    bases: dict[str, Path],
) -> None:
    settings = head_recipe("pair")
    base = ModelRef("tiny", bases["encoder"])
    headed = Headed(
        attach_head(base, "sequence", ("fits",), settings.method, seed=1, dtype=torch.float32).model.eval(),
        base.base,
    )
    rows = [HeadRow((2, 9 + i, 3), (2,), (c,)) for i, c in enumerate((1, 0, 0, 3, 2))]
    logits = torch.stack(scores_of(headed, [row.token_ids for row in rows])).squeeze(1)
    fits = torch.tensor([1.0, 0, 0, 1, 0])
    binary = BinaryObjective(headed, settings.regularisation)(pack_heads(rows))
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(logits, fits, reduction="sum")
    torch.testing.assert_close(binary, wanted, atol=1e-4, rtol=1e-4)
    ranked = RankedObjective(headed, settings.regularisation)(pack_heads(rows, [0.0, 1.0] * 2))
    groups = -torch.log_softmax(logits[:3], 0)[0] - torch.log_softmax(logits[3:], 0)[0]
    torch.testing.assert_close(ranked, groups, atol=1e-4, rtol=1e-4)


def test_where_memory_ends_answers_stay_among_those_that_they_are_ranked_against(
    bases: dict[str, Path],
) -> None:
    recipe = head_recipe("pair", negatives=2, loss="in-batch", train__batch_rows=6, train__batch_tokens=1024)
    base = ModelRef("tiny", bases["encoder"])
    model = attach_head(base, "sequence", ("fits",), recipe.method, seed=1, dtype=torch.float32).model.eval()
    objective = RankedObjective(Headed(model, base.base), recipe.regularisation)
    pairs = PairTexts(TextTokenizer(base.base), 40)
    (batch,) = PairPlan(PAIRS, pairs, 2, recipe.train, recipe.optim, ranked=True).batches(0)
    for times, count in ((1, 2), (2, 4), (9, 6)):
        pieces = halved(batch, times)
        assert len(pieces) == count
        assert sum(piece.worth for piece in pieces) == batch.worth
        parts = torch.stack([objective(piece) for piece in pieces]).sum()
        torch.testing.assert_close(parts, objective(batch), atol=1e-4, rtol=1e-4)


def test_wrong_answers_come_from_the_same_update_and_are_never_the_right_one() -> None:
    tokenizer = TextTokenizer(tiny_model())
    recipe = head_recipe("pair", negatives=2, train__batch_rows=6)
    rows = (*PAIRS, PAIRS[0])
    plan = PairPlan(rows, PairTexts(tokenizer, 64), 2, recipe.train, recipe.optim, ranked=False)
    for step in range(plan.steps):
        groups = plan.groups(plan.updates[step], (0, step))
        for group, row in zip(groups, plan.updates[step], strict=True):
            assert [each.classes[0] % 2 for each in group] == [1] + [0] * (len(group) - 1)
            assert len({each.token_ids for each in group}) == len(group)
            assert group[0].token_ids == tuple(plan.pairs.ids(plan.texts[row], rows[row].answer)[0])
    assert [b.token_ids.tolist() for b in plan.batches(0)] == [b.token_ids.tolist() for b in plan.batches(0)]


def test_dropout_is_of_the_base_while_it_learns_and_of_nothing_that_is_written(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    base = ModelRef("tiny", bases["encoder"])
    method = head_recipe("tag", method={"kind": "lora", "dropout": 0.25}).method
    model = attach_head(base, "token", ("O", "B-LOC"), method, seed=1, dropout=0.5, dtype=torch.float32)
    shares = {layer.p for layer in model.model.modules() if isinstance(layer, torch.nn.Dropout)}
    assert shares == {0.5, 0.25}
    headed, ids = Headed(model.model.train(), base.base), torch.tensor([2, 9, 10, 3])
    assert (headed.logits(ids, [4]) != headed.logits(ids, [4])).any()
    plain = attach_head(base, "token", ("O", "B-LOC"), method, seed=1, dtype=torch.float32)
    written = [each.save(tmp_path / name).base for each, name in ((model, "a"), (plain, "b"))]
    assert (written[0] / "config.json").read_bytes() == (written[1] / "config.json").read_bytes()


def test_a_base_without_dropout_refuses_one(bases: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no layer with a dropout: leave regularisation\.dropout out"):
        taught(bases["decoder"], tmp_path, "classify", regularisation={"dropout": 0.1})
