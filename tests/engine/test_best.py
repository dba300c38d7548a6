"""Of many answers the best: those of the highest log-probability per token."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from dialoop.engine.loaded import open_model
from dialoop.engine.local import LocalEngine
from dialoop.types import Answer, ModelRef, fold
from tests.conformance.engine import asking, deltas_of
from tests.tiny import tiny_model

DRAWN = {"temperature": 1.0, "seed": 11, "max_tokens": 6, "ignore_eos": True}


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[LocalEngine]:
    engine = LocalEngine({"tiny": open_model(ModelRef("tiny", tiny_model()))}, max_rows=3)
    yield engine
    await engine.aclose()


def per_token(answer: Answer) -> float:
    return sum(token.logprob for token in answer.logprobs) / len(answer.logprobs)


@pytest.mark.parametrize("more", [{}, {"processed_logprobs": True, "top_p": 0.8}])
async def test_the_best_are_given_best_first(engine: LocalEngine, more: dict[str, object]) -> None:
    made = await fold(engine.chat(asking(engine, **DRAWN, **more, n=8, logprobs=0)))
    best = await fold(engine.chat(asking(engine, **DRAWN, **more, n=3, best_of=8, logprobs=0)))
    ranked = sorted(made, key=per_token, reverse=True)
    assert [each.text for each in best] == [each.text for each in ranked[:3]]
    assert [per_token(each) for each in best] == pytest.approx([per_token(each) for each in ranked[:3]])
    assert best[0].usage.completion_tokens == made[0].usage.completion_tokens == 48


@pytest.mark.parametrize("end", [0, 1])
async def test_the_token_that_ends_an_answer_counts(engine: LocalEngine, end: int) -> None:
    """Answers of one token out of two, one of which ends them: the more probable one is the best."""
    pair = (260, 270)
    asked = {
        **DRAWN,
        "max_tokens": 1,
        "temperature": 2.0,
        "logit_bias": tuple((token, 60.0) for token in pair),
    }
    made = await fold(engine.chat(asking(engine, **asked, n=12, logprobs=0)))
    logprobs = {answer.logprobs[0].token_id: answer.logprobs[0].logprob for answer in made}
    assert set(logprobs) == set(pair)
    (best,) = await fold(engine.chat(asking(engine, **asked, best_of=12, stop_token_ids=(pair[end],))))
    assert (best.finish_reason == "stop") == (max(pair, key=logprobs.__getitem__) == pair[end])


async def test_log_probabilities_are_told_only_where_they_are_asked_for(engine: LocalEngine) -> None:
    deltas = await deltas_of(engine, asking(engine, **DRAWN, n=1, best_of=2))
    assert not any(delta.logprobs for delta in deltas)


async def test_as_many_best_as_answers_come_as_they_are_made(engine: LocalEngine) -> None:
    plain, ranked = [
        await fold(engine.chat(asking(engine, **DRAWN, n=2, best_of=best))) for best in (None, 2)
    ]
    assert [each.text for each in plain] == [each.text for each in ranked]
