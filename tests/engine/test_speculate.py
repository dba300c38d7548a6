"""Drafts change how many steps an answer takes, and nothing that it says."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, BloomConfig

from dialoop.engine.loaded import LoadedModel, open_model
from dialoop.engine.local import LocalEngine
from dialoop.engine.row import Row
from dialoop.engine.running import Running, StepError
from dialoop.types import Answer, Delta, Grammar, ModelRef, Sampling, TokenLogprob, fold
from tests.conformance.engine import asking
from tests.engine.test_running import CONFIGS, CONTEXT, VOCABULARY, Numbers, model_of
from tests.tiny import tiny_model

LIMIT = 40
FEW = tuple((token, 60.0) for token in range(40, 46))
"""A bias towards six tokens: text that often begins like something before, and often goes on otherwise."""


def prompts(count: int) -> list[list[int]]:
    """Every other one says a few phrases again and again, the others none."""
    dice = random.Random(5)
    phrases = [[dice.randrange(3, VOCABULARY) for _ in range(dice.randint(3, 7))] for _ in range(4)]
    fresh = [[dice.randrange(3, VOCABULARY) for _ in range(dice.randint(1, 50))] for _ in range(count)]
    said = [[token for phrase in dice.choices(phrases, k=8) for token in phrase] for _ in range(count)]
    return [(said[i] if i % 2 else fresh[i])[:50] for i in range(count)]


def rows_of(asked: Sequence[Sequence[int]], **sampling: Any) -> list[Row]:
    """Greedy rows and drawn ones, with and without the bias to a few tokens."""
    kinds = [{"temperature": heat, "logit_bias": bias} for heat in (0, 0.8) for bias in ((), FEW)]
    samplings = [
        Sampling(**{"seed": i, "logprobs": 2, **kinds[i % 4], **sampling}) for i in range(len(asked))
    ]
    return [
        Row(prompt, sampling, i, vocabulary=Numbers(), limit=LIMIT)
        for i, (prompt, sampling) in enumerate(zip(asked, samplings, strict=True))
    ]


def running_of(
    model: torch.nn.Module, *, speculate: bool, max_rows: int = 3, cache_tokens: int = 900
) -> Running:
    return Running(
        model,
        max_rows=max_rows,
        step_tokens=64,
        context=CONTEXT,
        cache_tokens=cache_tokens,
        speculate=speculate,
    )


def steps(running: Running, rows: Sequence[Row]) -> tuple[int, dict[Row, str]]:
    """How many it takes to answer all, and the texts."""
    for row in rows:
        running.add(row)
    texts = dict.fromkeys(rows, "")
    count = 0
    while running.rows:
        for row, text in running.advance():
            texts[row] += text
        count += 1
    return count, texts


def assert_alike(some: Sequence[TokenLogprob], others: Sequence[TokenLogprob]) -> None:
    """The same tokens; log-probabilities may differ by rounding, and so may the order of equal ones."""
    assert [each.token_id for each in some] == [each.token_id for each in others]
    for one, other in zip(some, others, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
        assert [t.logprob for t in one.top] == pytest.approx([t.logprob for t in other.top], abs=1e-4)


def assert_same_answers(model: torch.nn.Module, asked: list[list[int]], **options: Any) -> tuple[int, int]:
    """With drafts and without; how many steps each took."""
    rows, plain = rows_of(asked), rows_of(asked)
    count, texts = steps(running_of(model, speculate=True, **options), rows)
    plain_count, plain_texts = steps(running_of(model, speculate=False, **options), plain)
    for row, other in zip(rows, plain, strict=True):
        assert row.tokens == other.tokens
        assert (texts[row], row.finish_reason) == (plain_texts[other], other.finish_reason)
        assert_alike(row.take_logprobs(), other.take_logprobs())
    return count, plain_count


@pytest.mark.parametrize("name", CONFIGS)
def test_rows_side_by_side_say_what_they_say_without_drafts(name: str) -> None:
    count, plain_count = assert_same_answers(model_of(CONFIGS[name]), prompts(8))
    assert count < plain_count


def test_rows_that_gave_their_blocks_up_say_the_same() -> None:
    model = model_of(CONFIGS["qwen3"])
    running = running_of(model, speculate=True, max_rows=5, cache_tokens=1)
    rows, plain = rows_of(prompts(6)), rows_of(prompts(6))
    steps(running, rows)
    assert running.preemptions > 0
    steps(running_of(model, speculate=False), plain)
    assert [row.tokens for row in rows] == [row.tokens for row in plain]


def looping() -> torch.nn.Module:
    """A model that soon repeats itself."""
    return model_of(CONFIGS["gemma2 with soft caps and windows"])


def test_an_answer_that_repeats_itself_takes_less_than_half_of_the_steps() -> None:
    for count in (1, 2, 4):
        rows, plain = (rows_of(prompts(count), temperature=0, logit_bias=()) for _ in range(2))
        drafted, _ = steps(running_of(looping(), speculate=True, max_rows=4), rows)
        undrafted, _ = steps(running_of(looping(), speculate=False, max_rows=4), plain)
        assert undrafted >= LIMIT
        assert drafted < LIMIT / 2


def test_an_answer_that_never_repeats_takes_a_step_a_token_and_no_more_work() -> None:
    model = model_of(CONFIGS["llama"])
    read: list[int] = []
    model.get_input_embeddings().register_forward_pre_hook(
        lambda module, inputs: read.append(inputs[0].numel())
    )
    penalised = {"temperature": 0.0, "logit_bias": (), "presence_penalty": 100.0, "repetition_penalty": 50.0}
    (row,) = rows_of([[*range(3, 40)]], **penalised)
    running = running_of(model, speculate=True)
    read.clear()
    assert steps(running, [row])[0] == LIMIT
    assert read == [37] + [1] * (LIMIT - 1)


def test_what_was_drafted_is_found_by_others_only_where_it_was_right() -> None:
    model = model_of(CONFIGS["qwen3"])
    running = running_of(model, speculate=True)
    first = rows_of(prompts(8))
    steps(running, first)
    longer = [[*row.prompt, *row.tokens][:80] for row in first]
    again, fresh = rows_of(longer), rows_of(longer)
    steps(running, again)
    steps(running_of(model, speculate=False), fresh)
    assert [row.tokens for row in again] == [row.tokens for row in fresh]
    assert all(row.cached >= 16 * ((len(row.prompt) - 2) // 16) for row in again)


def test_answers_given_up_and_failed_in_the_middle_of_a_draft_leave_all_their_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model: Any = looping()
    running = running_of(model, speculate=True, max_rows=2, cache_tokens=1)
    asked = [[5] * 20, [6] * 20, [7] * 20]
    gone, failed, kept = rows_of(asked, temperature=0, logit_bias=())
    for row in (gone, failed):
        running.add(row)
        for _ in range(3):
            running.advance()
        assert 3 < len(row.tokens) < LIMIT
        if row is gone:
            running.drop(lambda row: row is gone)
    with monkeypatch.context() as patch:
        patch.setattr(
            model.get_input_embeddings(), "forward", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("x"))
        )
        with pytest.raises(StepError):
            running.advance()
    whole = Row([8] * (CONTEXT - 1), Sampling(temperature=0), 0, vocabulary=Numbers(), limit=1)
    steps(running, [kept, whole])
    assert len(whole.tokens) == 1
    plain = rows_of(asked, temperature=0, logit_bias=())
    steps(running_of(model, speculate=False), plain)
    assert kept.tokens == plain[2].tokens


def test_an_architecture_without_blocks_is_read_token_by_token() -> None:
    config = BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    (row,) = rows_of([[5, 6] * 10], temperature=0, logit_bias=FEW)
    assert steps(running_of(model, speculate=True), [row])[0] == LIMIT


@functools.cache
def tiny() -> LoadedModel:
    return open_model(ModelRef("tiny", tiny_model()))


SOME = tuple((token, 60.0) for token in range(300, 305))
ASKED: dict[str, dict[str, Any]] = {
    "greedy": {},
    "drawn": {"temperature": 1.3, "seed": 4},
    "drawn from a nucleus": {"temperature": 1.0, "seed": 4, "top_p": 0.9, "top_k": 20, "min_p": 0.01},
    "several": {"temperature": 0.8, "seed": 1, "n": 3},
    "repetition penalty": {"repetition_penalty": 1.2},
    "presence and frequency penalties": {"presence_penalty": 0.5, "frequency_penalty": 0.3},
    "log-probabilities": {"logprobs": 3},
    "processed log-probabilities": {"temperature": 0.9, "seed": 1, "logprobs": 2, "processed_logprobs": True},
    "least tokens before a stop token": {"stop_token_ids": (301,), "min_tokens": 11, "logprobs": 0},
    "a stop token": {"stop_token_ids": (303,), "temperature": 1.0, "seed": 7},
    "expression": {"grammar": Grammar("regex", "((ab|ba)c ){30}"), "logit_bias": (), "max_tokens": 90},
    "choice": {"grammar": Grammar("choice", '["yes yes yes yes yes yes", "no no no no no no no no"]')},
}


async def told(sampling: dict[str, Any], *, speculate: bool) -> tuple[list[Delta], tuple[Answer, ...]]:
    engine = LocalEngine({"tiny": tiny()}, speculate=speculate)
    request = asking(engine, "ab ab ab ab ab", **{"max_tokens": 60, "logit_bias": SOME, **sampling})
    deltas: list[Delta] = []

    async def heard() -> Any:
        async for delta in engine.chat(request):
            deltas.append(delta)
            yield delta

    answers = await fold(heard())
    await engine.aclose()
    return deltas, answers


async def assert_same(sampling: dict[str, Any]) -> tuple[Answer, ...]:
    """Texts, log-probabilities, reasons to end and usage, in fewer deltas or as many."""
    deltas, answers = await told(sampling, speculate=True)
    plain_deltas, plain = await told(sampling, speculate=False)
    assert [replace(each, logprobs=()) for each in answers] == [replace(each, logprobs=()) for each in plain]
    for answer, other in zip(answers, plain, strict=True):
        assert_alike(answer.logprobs, other.logprobs)
    assert len(deltas) <= len(plain_deltas)
    return answers


@pytest.mark.parametrize("name", ASKED)
async def test_every_parameter_means_the_same_with_drafts(name: str) -> None:
    await assert_same(ASKED[name])


async def test_most_of_a_text_that_repeats_itself_comes_in_longer_deltas() -> None:
    forced = {"logit_bias": ((300, 100.0),)}
    deltas, (answer,) = await told(forced, speculate=True)
    assert answer.usage.completion_tokens == 60
    assert len(deltas) < 20


async def test_an_answer_ends_in_the_middle_of_a_draft_where_it_ends_without_one() -> None:
    _, (whole,) = await told({}, speculate=False)
    for limit in range(20, 30):
        (cut,) = await assert_same({"max_tokens": limit, "logprobs": 0})
        assert (cut.usage.completion_tokens, len(cut.logprobs)) == (limit, limit)
    for begin in range(20, 60, 7):
        stop = whole.text[begin : begin + 9]
        (stopped,) = await assert_same({"stop": (stop,)})
        assert stopped.text == whole.text[: whole.text.index(stop)]


async def test_drafts_beside_each_other_change_no_answer() -> None:
    engine, plain = (LocalEngine({"tiny": tiny()}, speculate=speculate) for speculate in (True, False))
    asked = [
        asking(engine, f"ab ab {i}", max_tokens=50, logit_bias=SOME, temperature=i % 2, seed=i)
        for i in range(8)
    ]
    together = await asyncio.gather(*(fold(engine.chat(request)) for request in asked))
    alone = [await fold(plain.chat(request)) for request in asked]
    assert [answer.text for (answer,) in together] == [answer.text for (answer,) in alone]
    await engine.aclose()
    await plain.aclose()
