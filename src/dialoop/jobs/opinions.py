"""What other models say of answers: which one they prefer, and how near the reference each is in meaning."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import numpy as np

from dialoop.engine.loaded import open_models
from dialoop.engine.local import LocalEngine
from dialoop.evals.embedding import Vectors, embedding_similarity, vectors_of
from dialoop.evals.judge import Pairwise, prefer
from dialoop.evals.metrics import Metric
from dialoop.evals.task import Case, Outcome
from dialoop.types import ModelRef

T = TypeVar("T")


def preferred(judge: ModelRef, before: Sequence[Outcome], after: Sequence[Outcome]) -> Pairwise:
    """The judge's preferences among the answers that both sides gave."""
    pairs = [(b.case, b.answer, a.answer) for b, a in zip(before, after, strict=True)]
    told: list[tuple[Case, str, str]] = [
        (case, old, new) for case, old, new in pairs if old is not None and new is not None
    ]
    cases, old, new = [t[0] for t in told], [t[1] for t in told], [t[2] for t in told]
    return _with_engine(judge, lambda engine: prefer(engine, judge.name, cases, old, new))


def meaning(embedder: ModelRef, sides: Sequence[Sequence[Outcome]]) -> Metric:
    """The metric of these outcomes' answers, whose texts are embedded here and now."""
    outcomes = [outcome for side in sides for outcome in side if outcome.answer is not None]
    texts = [text for each in outcomes for text in (each.answer or "", each.case.reference)]
    unique = list(dict.fromkeys(texts))
    vectors = _with_engine(embedder, lambda engine: vectors_of(engine, embedder.name, unique))
    known = dict(zip(unique, vectors, strict=True))

    def embed(some: Sequence[str]) -> Vectors:
        return np.array([known[text] for text in some])

    return embedding_similarity(embed, embedder.name)


def _with_engine(ref: ModelRef, work: Callable[[LocalEngine], Awaitable[T]]) -> T:
    async def whole() -> T:
        engine = LocalEngine(open_models([ref]))
        try:
            return await work(engine)
        finally:
            await engine.aclose()

    return asyncio.run(whole())
