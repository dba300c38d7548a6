"""What a model chooses from options, by whatever tells how good each is: a chat model, a head, or vectors."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dialoop.chat.pairs import history_text
from dialoop.chat.wire import conversation_to_openai
from dialoop.engine.loaded import LoadedEncoder, LoadedHead, open_models
from dialoop.engine.local import LocalEngine
from dialoop.errors import EvalError
from dialoop.evals.choices import chosen_of
from dialoop.evals.cost import Cost, cost_of
from dialoop.evals.embedding import Vectors, vectors_of
from dialoop.evals.suites import Task
from dialoop.evals.task import Case, Outcome
from dialoop.jobs.answers import KeptAnswers, key_of, model_hash
from dialoop.jobs.judging import TIMED_ANSWERS, Ask, Cases, Done
from dialoop.jobs.options import ScoredOptions, score_options
from dialoop.types import ModelRef

LEAST = 1e-30
"""Of a class that a head does not know."""
AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class _Weighed:
    """A score of every option; log-likelihood and tokens of the right one; tokens that were read; whether the
    history was shortened."""

    scores: tuple[float, ...]
    right: tuple[float, int] | None = None
    read: int = 0
    shortened: bool = False


class Choosing:
    """A model that chooses, open until `close`. kept: a folder of what was asked before."""

    def __init__(self, ref: ModelRef, task: Task, on_done: Done, *, kept: Path | None = None) -> None:
        self._ref, self._task, self._on_done = ref, task, on_done
        (self._loaded,) = open_models([ref], precision="float32").values()
        weights = self._loaded.model.parameters()
        self._bytes = sum(weight.numel() * weight.element_size() for weight in weights)
        self._kept = None if kept is None else KeptAnswers(kept, model_hash(ref))
        self._vectors: dict[str, Vectors] = {}
        self._embedding = asyncio.Lock()
        self._runner = asyncio.Runner()
        self._engine = LocalEngine({ref.name: self._loaded})

    def close(self) -> None:
        """Let go of the model."""
        self._runner.run(self._engine.aclose())
        self._runner.close()

    def outcomes(self, chosen: Cases) -> tuple[Outcome, ...]:
        """Of the asked cases, which have options."""
        return self._runner.run(self._all(self._engine, chosen))

    def cost(self, chosen: Cases) -> Cost:
        """Of some choices, made one by one; a first one warms up."""
        some = chosen.asked[:: max(1, len(chosen.asked) // TIMED_ANSWERS)][:TIMED_ANSWERS]

        async def timed() -> list[tuple[float, int]]:
            found = []
            for case in [some[0], *some]:
                begun = time.perf_counter()
                weighed = await self._weigh(self._engine, case, chosen.ask)
                found.append((time.perf_counter() - begun, weighed.read))
            return found[1:]

        found = self._runner.run(timed())
        return cost_of([seconds for seconds, _ in found], [read for _, read in found], self._bytes)

    async def _all(self, engine: LocalEngine, chosen: Cases) -> tuple[Outcome, ...]:
        places, done = asyncio.Semaphore(AT_ONCE), 0

        async def one(case: Case) -> Outcome:
            nonlocal done
            async with places:
                found = await self._once(engine, case, chosen.ask)
            done += 1
            self._on_done("choosing", done, len(chosen.asked))
            total, tokens = found.right or (None, 0)
            return Outcome(case, chosen_of(case, found.scores), total, tokens, found.scores, found.shortened)

        return tuple(await asyncio.gather(*map(one, chosen.asked)))

    async def _once(self, engine: LocalEngine, case: Case, ask: Ask) -> _Weighed:
        """What was kept, or what is found now."""
        if self._kept is None or self._by_vectors:
            return await self._weigh(engine, case, ask)
        asked = {
            "history": conversation_to_openai(ask(case)), "options": case.options, "by": self._task.by,
        }  # fmt: skip
        key = key_of((), asked)
        if (found := self._kept.get(key)) is not None:
            scores, right, *shortened = found
            return _Weighed(
                tuple(scores), None if right is None else (right[0], right[1]), shortened=any(shortened)
            )
        weighed = await self._weigh(engine, case, ask)
        self._kept.keep(key, (weighed.scores, weighed.right, weighed.shortened))
        return weighed

    @property
    def _by_vectors(self) -> bool:
        return self._task.by == "vectors" or isinstance(self._loaded, LoadedEncoder)

    async def _weigh(self, engine: LocalEngine, case: Case, ask: Ask) -> _Weighed:
        loaded = self._loaded
        if isinstance(loaded, LoadedHead):
            return await (self._fits if loaded.served.kind == "scorer" else self._classes)(engine, case, ask)
        return await (self._near if self._by_vectors else self._likely)(engine, case, ask)

    async def _likely(self, engine: LocalEngine, case: Case, ask: Ask) -> _Weighed:
        told = await self._scored(engine, case, ask)
        divisors = (len(each.logprobs) if self._task.by == "token" else 1 for each in told.found)
        scores = tuple(each.total / by for each, by in zip(told.found, divisors, strict=True))
        right = told.found[case.grades.index(max(case.grades))]
        return _Weighed(scores, (right.total, len(right.logprobs)), told.read, told.shortened)

    async def _fits(self, engine: LocalEngine, case: Case, ask: Ask) -> _Weighed:
        told = await self._scored(engine, case, ask)
        return _Weighed(tuple(each.total for each in told.found), None, told.read, told.shortened)

    def _scored(self, engine: LocalEngine, case: Case, ask: Ask) -> Awaitable[ScoredOptions]:
        return score_options(
            engine, self._ref.name, case.history, case.options,
            lambda history: ask(replace(case, history=history)),
        )  # fmt: skip

    async def _classes(self, engine: LocalEngine, case: Case, ask: Ask) -> _Weighed:
        """By the head's own classes."""
        assert isinstance(self._loaded, LoadedHead)
        text = next((m.content for m in ask(case).messages if m.role == "user"), "")
        found = await engine.classify(self._ref.name, [text])
        (told,) = found.rows
        sure = dict(zip(self._loaded.labels, told.probabilities, strict=True))
        if not sure.keys() & set(case.options):
            raise EvalError(
                f"{self._ref.name} knows none of the classes that came, such as {case.options[0]!r}; it "
                f"knows {', '.join(list(sure)[:5])}: give rows with its classes"
            )
        scores = tuple(math.log(max(sure.get(option, 0.0), LEAST)) for option in case.options)
        return _Weighed(scores, None, found.prompt_tokens)

    async def _near(self, engine: LocalEngine, case: Case, ask: Ask) -> _Weighed:
        """By the cosine of the vectors of history and option; those of options are made once."""
        known = self._vectors
        async with self._embedding:
            if left := [text for text in case.options if text not in known]:
                known |= zip(left, await vectors_of(engine, self._ref.name, left), strict=True)
        (asked,) = await vectors_of(engine, self._ref.name, [history_text(ask(case))])
        scores = np.array([known[text] for text in case.options]) @ asked
        return _Weighed(tuple(scores.tolist()))
