"""Likelihoods of answers are those of transformers' own logits."""

from __future__ import annotations

import asyncio

import pytest
import torch

from dialoop.chat.render import render
from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.engine import score
from dialoop.engine.loaded import open_model
from dialoop.engine.local import LocalEngine
from dialoop.engine.score import log_likelihoods
from dialoop.errors import ContextLengthError, UnknownModelError
from dialoop.models.load import load_model
from dialoop.types import ChatRequest, Conversation, Message, ModelRef, Sampling, fold
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


ANSWERS = ["It ships today.", "It ships tomorrow, sorry.", "预计明天送达。", "It"]


@pytest.mark.parametrize("step_tokens", [7, 512])
async def test_answers_to_one_history_are_scored_as_each_alone(
    step_tokens: int, model: torch.nn.Module, tokenizer: ChatTokenizer
) -> None:
    engine = LocalEngine({"tiny": open_model(ModelRef("tiny", tiny_model()))}, step_tokens=step_tokens)
    history = ROWS[1].history
    scored = await engine.score("tiny", history, ANSWERS)
    await engine.aclose()
    for answer, found in zip(ANSWERS, scored, strict=True):
        whole = Conversation((*history.messages, Message("assistant", answer)))
        total, tokens = reference(model, tokenizer, whole)
        assert found.total == pytest.approx(total, rel=1e-4)
        assert len(found.logprobs) == tokens


async def test_scoring_and_chatting_go_on_side_by_side() -> None:
    engine = LocalEngine({"tiny": open_model(ModelRef("tiny", tiny_model()))}, step_tokens=16)
    chat = ChatRequest("tiny", ROWS[0].history, Sampling(temperature=0, max_tokens=12))
    alone = await fold(engine.chat(chat))
    among, *scored = await asyncio.gather(
        fold(engine.chat(chat)), *(engine.score("tiny", ROWS[1].history, ANSWERS) for _ in range(3))
    )
    await engine.aclose()
    assert among[0].text == alone[0].text
    for found in scored[1:]:
        assert [each.total for each in found] == pytest.approx([each.total for each in scored[0]])


async def test_a_score_for_an_unknown_model_or_no_answers() -> None:
    engine = LocalEngine({"tiny": open_model(ModelRef("tiny", tiny_model()))})
    assert await engine.score("tiny", ROWS[0].history, []) == ()
    with pytest.raises(UnknownModelError):
        await engine.score("other", ROWS[0].history, ["Hi"])
    with pytest.raises(ContextLengthError):
        await engine.score("tiny", ROWS[0].history, ["Hi " * 3000])
    await engine.aclose()
