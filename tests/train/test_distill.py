"""Distillation: the divergence is torch's, in pieces as at once, and the student comes near its teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.config import DistillObjective, RegularisationSettings
from dialoop.errors import TrainError
from dialoop.models.load import load_model
from dialoop.train.batch import Batch, pack
from dialoop.train.distill import DistillLoss, divergence, load_teacher
from dialoop.train.fit import fit_rows
from dialoop.train.loop import read_journal
from dialoop.train.loss import in_pieces, token_logprobs
from dialoop.train.objective import Objective
from dialoop.train.tune import tune
from dialoop.types import ModelRef
from tests.tiny import make_tiny_model, tiny_model
from tests.train.drill import DIALOGUES, recipe


def loaded(directory: Path) -> Any:
    return load_model(ModelRef("tiny", directory), dtype=torch.float32, device="cpu")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("teacher"), seed=1, layers=3, hidden=96)


def batch() -> Batch:
    tokenizer = ChatTokenizer.load(tiny_model())
    return pack(fit_rows(DIALOGUES, tokenizer, max_length=128, mask="assistant").rows)


def test_the_loss_and_its_gradients_are_those_of_transformers_and_torch(teacher: Path) -> None:
    settings = DistillObjective(teacher="t", temperature=1.5, alpha=0.3)
    mine, theirs = loaded(tiny_model()), loaded(tiny_model())
    taught = loaded(teacher).requires_grad_(False)
    objective = DistillLoss(mine, loaded(teacher).requires_grad_(False), settings)
    found = objective(batch()) / batch().worth
    losses = []
    for row in fit_rows(DIALOGUES, ChatTokenizer.load(tiny_model()), max_length=128, mask="assistant").rows:
        ids = torch.tensor([row.token_ids])
        learnt = torch.tensor(row.loss_mask[1:]) > 0
        student, wanted = (model(ids).logits[0, :-1][learnt] for model in (theirs, taught))
        kl = functional.kl_div((student / 1.5).log_softmax(-1), (wanted / 1.5).softmax(-1), reduction="sum")
        plain = functional.cross_entropy(student, ids[0, 1:][learnt], reduction="sum")
        losses.append(0.3 * plain + 0.7 * 1.5**2 * kl)
    expected = torch.stack(losses).sum() / batch().worth
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for loss in (found, expected):
        loss.backward()
    for (name, a), b in zip(mine.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-4, rtol=1e-3, msg=name)


def test_with_the_whole_share_for_the_answers_it_is_imitation(teacher: Path) -> None:
    settings = DistillObjective(teacher="t", alpha=1.0)
    distilled = DistillLoss(loaded(tiny_model()), loaded(teacher), settings)
    imitating = Objective(loaded(tiny_model()), RegularisationSettings())
    with torch.no_grad():
        torch.testing.assert_close(distilled(batch()), imitating(batch()), atol=1e-3, rtol=1e-5)
    assert distilled.tally.taken()["mean_token_accuracy"] == imitating.tally.taken()["mean_token_accuracy"]


def test_a_model_does_not_diverge_from_itself_and_padding_of_a_wider_head_does_not_count() -> None:
    logits = torch.randn(5, 30, generator=torch.Generator().manual_seed(0))
    wider = torch.cat([logits, torch.full((5, 2), 9.0)], dim=1)
    torch.testing.assert_close(divergence(wider, logits, 2.0), torch.zeros(5), atol=1e-6, rtol=0)
    assert bool((divergence(logits, logits.flip(0), 2.0)[:2] > 0.01).all())


@pytest.mark.parametrize("rows", [1, 6, 7, 20])
def test_pieces_give_what_the_whole_gives_with_its_gradients(rows: int) -> None:
    draw = torch.Generator().manual_seed(rows)
    hidden = torch.randn(rows, 8, generator=draw, requires_grad=True)
    head = torch.randn(30, 8, generator=draw, requires_grad=True)
    targets = torch.randint(0, 30, (rows,), generator=draw)

    def logits(states: Tensor) -> Tensor:
        return states @ head.t()

    def piece(states: Tensor, aims: Tensor) -> Tensor:
        return -functional.cross_entropy(logits(states), aims, reduction="none")

    wanted = functional.cross_entropy(hidden @ head.t(), targets, reduction="none").neg()
    for found in (in_pieces(piece, hidden, targets, size=6), token_logprobs(logits, hidden, targets)):
        torch.testing.assert_close(found, wanted)
        mine = torch.autograd.grad(found.square().sum(), (hidden, head))
        theirs = torch.autograd.grad(wanted.square().sum(), (hidden, head), retain_graph=True)
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def test_a_student_comes_near_its_teacher(teacher: Path, tmp_path: Path) -> None:
    chosen = recipe(
        objective={"kind": "distill", "teacher": "t", "alpha": 0.0}, method={"kind": "full"},
        train__epochs=40.0, train__batch_tokens=1024,
    )  # fmt: skip
    given = ModelRef("teacher", teacher)
    tune(chosen, ModelRef("tiny", tiny_model()), DIALOGUES, DIALOGUES[:2], tmp_path, teacher=given)
    journal = read_journal(tmp_path / "metrics.jsonl")
    assert journal[-1]["measures"]["divergence"] < 0.4 * journal[0]["measures"]["divergence"]
    assert journal[-1]["measures"]["valid_divergence"] < 0.4 * journal[0]["measures"]["divergence"]


def test_a_teacher_of_another_vocabulary_is_refused_by_the_first_token_that_differs(tmp_path: Path) -> None:
    other = make_tiny_model(tmp_path / "other", vocab_size=420)
    with pytest.raises(TrainError, match=r"teacher big has another vocabulary .*420 and 400 tokens"):
        load_teacher(ModelRef("big", other), ChatTokenizer.load(tiny_model()))


def test_without_a_teacher_there_is_nothing_to_distil(tmp_path: Path) -> None:
    chosen = recipe(objective={"kind": "distill", "teacher": "t"})
    with pytest.raises(TrainError, match="without a teacher's model"):
        tune(chosen, ModelRef("tiny", tiny_model()), DIALOGUES, (), tmp_path)
