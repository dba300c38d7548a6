"""A model under prompts: its answers, or its choice of a class, on test cases.

Everything that it once said is kept, by the tokens that it was asked, and not asked again: what was
interrupted goes on where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, cast

import numpy as np

from dialoop.chat.prompt import Prompt
from dialoop.chat.render import render_prompt
from dialoop.data.exact import content_keys
from dialoop.engine.loaded import LoadedModel, open_model
from dialoop.engine.local import LocalEngine
from dialoop.errors import ConfigError, ContextLengthError
from dialoop.evals.choices import chosen_of
from dialoop.evals.task import Case, Outcome
from dialoop.jobs.answers import KeptAnswers, key_of, model_hash
from dialoop.jobs.options import Ask, score_options
from dialoop.prompting.calibration import CONTENT_FREE, Probabilities, calibrated, probabilities
from dialoop.prompting.selection import Pool, Vector, asked_text
from dialoop.train.fit import fitted
from dialoop.types import ChatRequest, Conversation, Message, ModelRef, Sampling, fold

Done = Callable[[str, int, int], None]
T = TypeVar("T")
AT_ONCE = 16
EMBEDDED_AT_ONCE = 64
CONTEXTS = 4
"""Sets of examples that are shown before questions without content, where each question has its own."""


@dataclass(frozen=True, slots=True)
class Asking:
    """How a prompt is put to a model.

    values: of its variables.  pool: examples to choose from as its few_shot says; None = its own.
    labels: the answer is the one with the highest P(label | prompt); without, the model writes it.
    calibrate: labels are freed from what the prompt prefers anyway.
    """

    prompt: Prompt
    values: Mapping[str, Any] = field(default_factory=dict)
    pool: tuple[Conversation, ...] | None = None
    labels: tuple[str, ...] = ()
    calibrate: bool = True


@dataclass(frozen=True, slots=True)
class Shown:
    """A case as a model reads it. ask: the words about its history, or about as much of it as fits."""

    case: Case
    ask: Ask
    examples: tuple[Conversation, ...]

    @property
    def asked(self) -> Conversation:
        """About the whole history."""
        return self.ask(self.case.history)


class Prompted:
    """A model that prompts are put to, by the engine that serves; `with` lets it go.

    max_tokens: of an answer that is written.  kept: folder of what was said.  embedder: compares examples,
    where a selection needs vectors; None = the model itself.  left_out: examples that were chosen so far and
    did not fit.  shortened: questions so far whose history lost its oldest exchanges, to fit.
    """

    def __init__(
        self,
        ref: ModelRef,
        *,
        max_tokens: int = 96,
        on_done: Done = lambda what, done, total: None,
        kept: Path | None = None,
        embedder: ModelRef | None = None,
    ) -> None:
        found = open_model(ref)
        if not isinstance(found, LoadedModel):
            raise ConfigError(f"{ref.name} writes no answers: give a decoder")
        self._loaded: LoadedModel = found
        self._name = ref.name
        self._engine = LocalEngine({ref.name: found}, max_open=4 * AT_ONCE)
        self._embedding = self._engine if embedder is None else LocalEngine({ref.name: open_model(embedder)})
        self._max_tokens, self._on_done = max_tokens, on_done
        self.hash = model_hash(ref)
        self._kept = None if kept is None else KeptAnswers(kept, self.hash)
        self._runner = asyncio.Runner()
        self._pools: dict[bytes, Pool] = {}
        self.left_out = 0
        self.shortened = 0

    def __enter__(self) -> Prompted:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for engine in {self._engine, self._embedding}:
            self._runner.run(engine.aclose())
        self._runner.close()

    @property
    def name(self) -> str:
        """The model's."""
        return self._name

    def tokens(self, asked: Conversation) -> int:
        """How many the model reads."""
        return len(render_prompt(asked, self._loaded.tokenizer))

    def scores(self, asked: Conversation, answers: Sequence[str]) -> list[float]:
        """log P(answer | what is asked) of each."""
        (found,) = self._each("scoring", [self._scored(asked, _as_it_is, answers)])
        return [total for total, _ in found]

    def outcomes(self, asking: Asking, cases: Sequence[Case]) -> tuple[Outcome, ...]:
        """The answers: written, or the most probable of the labels. Raises DialoopError of many kinds."""
        shown = self.shown(asking, cases)
        if asking.labels:
            shares = self.shares(asking, shown)
            return tuple(
                _chosen(each.case, asking.labels, row) for each, row in zip(shown, shares, strict=True)
            )
        texts = self._each("answering", [self._answer(each, asking) for each in shown])
        return tuple(Outcome(each.case, text) for each, text in zip(shown, texts, strict=True))

    def likelihoods(self, asking: Asking, cases: Sequence[Case]) -> tuple[Outcome, ...]:
        """log P(reference | prompt) of each case; nothing is written."""
        shown = self.shown(asking, cases)
        found = self._each("scoring", [self._told(each, (each.case.reference,)) for each in shown])
        return tuple(
            Outcome(each.case, None, total, tokens)
            for each, ((total, tokens),) in zip(shown, found, strict=True)
        )

    def shares(self, asking: Asking, shown: Sequence[Shown]) -> Probabilities:
        """(cases, labels): P(label | prompt) among the labels."""
        told = self._each("scoring", [self._told(each, asking.labels) for each in shown])
        found = probabilities(np.array([[total for total, _ in row] for row in told]))
        if not asking.calibrate:
            return found
        languages = [asking.prompt.language_for(each.case.language) for each in shown]
        for language in sorted(set(languages)):
            mine = [i for i, each in enumerate(languages) if each == language]
            usual = self._without_content(asking, [shown[i] for i in mine], language)
            found[mine] = calibrated(found[mine], usual)
        return found

    def shown(self, asking: Asking, cases: Sequence[Case]) -> tuple[Shown, ...]:
        """The cases as the model reads them, each with its examples."""
        settings = asking.prompt.settings.few_shot
        if asking.pool is None and settings.select == "all":
            return tuple(Shown(case, self._asking(asking, case.language, None), ()) for case in cases)
        made: list[Shown] = []
        for language in dict.fromkeys(case.language for case in cases):
            mine = [case for case in cases if case.language == language]
            examples = asking.prompt.examples(language) if asking.pool is None else asking.pool
            pool = self._pool(examples, settings.needs_vectors)
            vectors = (
                self._vectors([asked_text(case.history) for case in mine]) if settings.needs_vectors else None
            )
            made += [
                self._with_examples(asking, case, pool, None if vectors is None else vectors[i])
                for i, case in enumerate(mine)
            ]
        places = {each.case.id: each for each in made}
        return tuple(places[case.id] for case in cases)

    def _with_examples(self, asking: Asking, case: Case, pool: Pool, vector: Vector | None) -> Shown:
        settings = asking.prompt.settings.few_shot
        room = self._loaded.served.context - self._room(asking)
        bare = self._asking(asking, case.language, ())
        history = fitted(case.history, lambda each: self.tokens(bare(each)) <= room)
        alone = self.tokens(bare(history))
        bound = room - alone if settings.max_tokens is None else min(settings.max_tokens, room - alone)
        left: list[Conversation] = []

        def fits(examples: Sequence[Conversation]) -> bool:
            worded = self._asking(asking, case.language, examples)(history)
            fitting = self.tokens(worded) - alone <= bound
            if not fitting:
                left.append(examples[-1])
            return fitting

        examples = pool.chosen(settings, case.history, vector, fits)
        self.left_out += len(left)
        return Shown(case, self._asking(asking, case.language, examples), examples)

    def _room(self, asking: Asking) -> int:
        """Tokens that an answer may need."""
        if not asking.labels:
            return self._max_tokens
        return 8 + max(len(self._loaded.tokenizer.encode(label)) for label in asking.labels)

    def _asking(self, asking: Asking, language: str, examples: Sequence[Conversation] | None) -> Ask:
        """The words about a history."""
        prompt = asking.prompt
        return lambda history: prompt.ask(
            history, {**prompt.values_in(history.metadata), **asking.values},
            language=language, examples=examples,
        )  # fmt: skip

    def _pool(self, examples: tuple[Conversation, ...], needs_vectors: bool) -> Pool:
        key = content_keys(examples).tobytes()
        known = self._pools.get(key)
        if known is None or (needs_vectors and known.vectors is None):
            texts = [asked_text(example.history) for example in examples]
            known = Pool(examples, self._vectors(texts) if needs_vectors else None)
            self._pools[key] = known
        return known

    def _vectors(self, texts: Sequence[str]) -> Vector:
        """(n, width), of length 1."""
        found: list[tuple[float, ...]] = []
        for start in range(0, len(texts), EMBEDDED_AT_ONCE):
            some = self._embedding.embed(
                self._name, [text or " " for text in texts[start:][:EMBEDDED_AT_ONCE]]
            )
            found += self._runner.run(cast(Any, some)).vectors
            self._on_done("embedding", len(found), len(texts))
        return np.array(found, dtype=np.float32)

    def _without_content(self, asking: Asking, shown: Sequence[Shown], language: str) -> Probabilities:
        """(m, labels) shares of questions without content, after the same examples.

        Where each question has examples of its own, after those of a few: the examples' own pull towards
        their classes is what a selection is for, and only what all have in common is to be divided out.
        """
        sets = list({content_keys(each.examples).tobytes(): each.examples for each in shown}.values())
        step = max(1, len(sets) // CONTEXTS)
        own = asking.pool is None and asking.prompt.settings.few_shot.select == "all"
        facts = shown[0].case.history.metadata
        asked = [
            self._asking(asking, language, None if own else examples)(
                Conversation((Message("user", text),), metadata=facts)
            )
            for examples in sets[::step][:CONTEXTS]
            for text in CONTENT_FREE
        ]
        told = self._each("calibrating", [self._scored(each, _as_it_is, asking.labels) for each in asked])
        return probabilities(np.array([[total for total, _ in row] for row in told]))

    def _each(self, what: str, work: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
        """Done side by side, in order."""

        async def all_of() -> list[T]:
            free, done = asyncio.Semaphore(AT_ONCE), 0

            async def one(begin: Callable[[], Awaitable[T]]) -> T:
                nonlocal done
                async with free:
                    found = await begin()
                done += 1
                self._on_done(what, done, len(work))
                return found

            return list(await asyncio.gather(*map(one, work)))

        return self._runner.run(all_of())

    def _told(self, shown: Shown, answers: Sequence[str]) -> Callable[[], Awaitable[list[tuple[float, int]]]]:
        return self._scored(shown.case.history, shown.ask, answers)

    def _scored(
        self, history: Conversation, ask: Ask, answers: Sequence[str]
    ) -> Callable[[], Awaitable[list[tuple[float, int]]]]:
        """(log P, tokens) of each answer."""

        async def found() -> list[tuple[float, int]]:
            key = self._key(ask(history), {"scored": list(answers)})
            if (known := self._get(key)) is not None:
                whole = isinstance(known, list)
                self.shortened += not whole
                return [(total, tokens) for total, tokens in (known if whole else known["shortened"])]
            told = await score_options(self._engine, self._name, history, answers, ask)
            rows = [(each.total, len(each.logprobs)) for each in told.found]
            self.shortened += told.shortened
            self._keep(key, {"shortened": rows} if told.shortened else rows)
            return rows

        return found

    def _answer(self, shown: Shown, asking: Asking) -> Callable[[], Awaitable[str]]:
        drawn = asking.prompt.settings.parameters
        sampling = Sampling(
            temperature=0.0,
            max_tokens=min(drawn.max_tokens or self._max_tokens, self._max_tokens),
            stop=drawn.stop,
        )

        room = self._loaded.served.context - self._max_tokens
        history = fitted(shown.case.history, lambda each: self.tokens(shown.ask(each)) <= room)
        asked = shown.ask(history)
        self.shortened += history is not shown.case.history

        async def found() -> str:
            told = {"served": "greedy", "max_tokens": sampling.max_tokens, "stop": list(sampling.stop)}
            key = self._key(asked, told)
            if (known := self._get(key)) is not None:
                return str(known)
            try:
                async with aclosing(self._engine.chat(ChatRequest(self._name, asked, sampling))) as deltas:
                    (answer,) = await fold(deltas)
            except ContextLengthError as error:
                raise ConfigError(f"prompt {asking.prompt.settings.name!r}: {error}") from error
            self._keep(key, answer.text)
            return answer.text

        return found

    def _key(self, asked: Conversation, parameters: Mapping[str, Any]) -> str:
        return "" if self._kept is None else key_of(render_prompt(asked, self._loaded.tokenizer), parameters)

    def _get(self, key: str) -> Any:
        return None if self._kept is None else self._kept.get(key)

    def _keep(self, key: str, result: object) -> None:
        if self._kept is not None:
            self._kept.keep(key, result)


def _as_it_is(history: Conversation) -> Conversation:
    return history


def _chosen(case: Case, labels: tuple[str, ...], shares: Probabilities) -> Outcome:
    """The most probable label, and the log-probabilities of all."""
    graded = replace(case, options=labels, grades=tuple(float(label == case.reference) for label in labels))
    logs = np.log(np.maximum(shares, np.finfo(np.float64).tiny))
    return Outcome(graded, chosen_of(graded, shares.tolist()), scores=tuple(map(float, logs)))


def with_few_shot(prompt: Prompt, **settings: Any) -> Prompt:
    """The same prompt with other examples."""
    few_shot = prompt.settings.few_shot.model_copy(update=settings)
    return replace(prompt, settings=prompt.settings.model_copy(update={"few_shot": few_shot}))
