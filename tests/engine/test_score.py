"""Likelihoods of answers are those of transformers' own logits."""

from __future__ import annotations

import pytest
import torch

from dialoop.chat.render import render
from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.engine import score
from dialoop.engine.score import log_likelihoods
from dialoop.models.load import load_model
from dialoop.types import Conversation, Message, ModelRef
from tests.tiny import tiny_model

TALK = [
    ("user", "Where is my order?"),
    ("assistant", "It ships today."),
    ("user", "谢谢，什么时候到？"),
    ("assistant", "预计明天送达。"),
]
ROWS = [
    Conversation(tuple(Message(role, content) for role, content in TALK[start:stop]))  # type: ignore[arg-type]
    for start, stop in ((0, 2), (0, 4), (2, 4), (0, 2))
]


@pytest.fixture(scope="module")
def tokenizer() -> ChatTokenizer:
    return ChatTokenizer.load(tiny_model())


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return load_model(ModelRef("tiny", tiny_model()), dtype=torch.float32, device="cpu")


@torch.no_grad()
def reference(model: torch.nn.Module, tokenizer: ChatTokenizer, row: Conversation) -> tuple[float, int]:
    """One conversation alone, the last turn's tokens summed one by one."""
    rendered = render(row, tokenizer, mask="last")
    ids = torch.tensor([rendered.token_ids])
    logs = model(ids).logits[0].double().log_softmax(-1)
    learnt = [t for t, weight in enumerate(rendered.loss_mask) if weight]
    return sum(float(logs[t - 1, ids[0, t]]) for t in learnt), len(learnt)


@pytest.mark.parametrize("capacity", [1, 60, 4096])
def test_sums_and_counts_are_those_of_each_conversation_alone(
    capacity: int, model: torch.nn.Module, tokenizer: ChatTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score, "BATCH_TOKENS", capacity)
    for (total, count), row in zip(log_likelihoods(model, tokenizer, ROWS), ROWS, strict=True):
        wanted, tokens = reference(model, tokenizer, row)
        assert total == pytest.approx(wanted, rel=1e-4)
        assert count == tokens


def test_the_end_of_turn_is_scored_and_earlier_answers_are_not(
    model: torch.nn.Module, tokenizer: ChatTokenizer
) -> None:
    ((_, count),) = log_likelihoods(model, tokenizer, ROWS[1:2])
    assert count == len(tokenizer.encode("预计明天送达。")) + 1


def test_progress_counts_up_to_all(
    model: torch.nn.Module, tokenizer: ChatTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score, "BATCH_TOKENS", 60)
    told: list[tuple[int, int]] = []
    log_likelihoods(model, tokenizer, ROWS, on_progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (4, 4)
    assert told == sorted(told)


def test_the_model_keeps_its_own_attention(model: torch.nn.Module, tokenizer: ChatTokenizer) -> None:
    before = model.config._attn_implementation  # type: ignore[union-attr]
    log_likelihoods(model, tokenizer, ROWS[:1])
    assert model.config._attn_implementation == before  # type: ignore[union-attr]
