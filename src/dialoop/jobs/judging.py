"""Answers and likelihoods of one model on test cases, and what its answers cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dialoop.chat.render import render, render_prompt
from dialoop.config import EvalSettings
from dialoop.engine.generate import Generated, context_of, generate
from dialoop.engine.loaded import LoadedModel, open_model
from dialoop.engine.score import log_likelihoods
from dialoop.evals.cost import Cost, cost_of
from dialoop.evals.preferences import Likelihoods
from dialoop.evals.task import Case, Outcome, cases, run
from dialoop.jobs.answers import KeptAnswers, key_of, model_hash
from dialoop.train.fit import fitted
from dialoop.types import Conversation, ModelRef, Preference, Sampling

Done = Callable[[str, int, int], None]
Ask = Callable[[Case], Conversation]
"""A case -> what a model is asked."""
GREEDY = Sampling(temperature=0.0)
SCORED_AT_ONCE = 64
TIMED_ANSWERS = 12


def as_it_is(case: Case) -> Conversation:
    """A history is its own question."""
    return case.history


@dataclass(frozen=True, slots=True)
class Cases:
    """asked: turns that are answered; scored: all turns, whose likelihood is computed.

    ask: what a model reads of each. A history that is too long is shortened before it is put into words.
    """

    asked: tuple[Case, ...]
    scored: tuple[Case, ...]
    ask: Ask = as_it_is


def choose_cases(test: Sequence[Conversation], settings: EvalSettings) -> Cases:
    """Evenly over languages and scenarios. Raises EvalError where there is nothing to ask."""
    return Cases(cases(test, max_cases=settings.max_cases, seed=settings.seed), cases(test))


class Judged:
    """A model under test. kept: a folder of answers that need not be given again."""

    def __init__(
        self, ref: ModelRef, settings: EvalSettings, on_done: Done, *, kept: Path | None = None
    ) -> None:
        self._loaded = open_model(ref)
        self._context = context_of(self._loaded.model)
        self._settings, self._on_done = settings, on_done
        self._kept = None if kept is None else KeptAnswers(kept, model_hash(ref))

    def close(self) -> None:
        """Nothing is held."""

    def outcomes(self, chosen: Cases) -> tuple[Outcome, ...]:
        """Greedy answers to the asked cases, likelihoods of all."""
        plain = {case.id: case for case in (*chosen.asked, *chosen.scored)}
        asked = [self._asked(case, chosen.ask) for case in chosen.asked]
        cut = {case.id for case, shortened in asked if shortened}
        scored = [self._worded(case, chosen.ask, self._holds_answered)[0] for case in chosen.scored]
        found = run([case for case, _ in asked], self._answers, self._likelihoods, scored=scored)
        return tuple(replace(each, case=plain[each.case.id], shortened=each.case.id in cut) for each in found)

    def cost(self, chosen: Cases) -> Cost:
        """Of some of the cases, evenly chosen and answered one by one; a first one warms up."""
        step = max(1, len(chosen.asked) // TIMED_ANSWERS)
        some = [self._asked(case, chosen.ask)[0] for case in chosen.asked[::step][:TIMED_ANSWERS]]
        timed = [self._timed(self._prompt(case.history)) for case in [some[0], *some]][1:]
        weights = self._loaded.model.parameters()
        size = sum(weight.numel() * weight.element_size() for weight in weights)
        return cost_of([seconds for seconds, _ in timed], [tokens for _, tokens in timed], size)

    def _timed(self, prompt: tuple[int, ...]) -> tuple[float, int]:
        begun = time.perf_counter()
        (answer,) = self._generated([prompt], lambda index, answer: None)
        return time.perf_counter() - begun, len(answer.token_ids)

    def _answers(self, histories: Sequence[Conversation]) -> list[str]:
        prompts = [self._prompt(history) for history in histories]
        parameters = {"temperature": 0, "max_tokens": self._settings.max_tokens}
        keys = [key_of(prompt, parameters) for prompt in prompts]
        found: dict[int, str] = {
            i: text for i, key in enumerate(keys) if (text := self._get(key)) is not None
        }
        left = [i for i in range(len(prompts)) if i not in found]

        def answered(index: int, answer: Generated) -> None:
            found[left[index]] = answer.text
            self._keep(keys[left[index]], answer.text)
            self._on_done("answering", len(found), len(prompts))

        self._generated([prompts[i] for i in left], answered)
        return [found[i] for i in range(len(prompts))]

    def _generated(
        self, prompts: Sequence[tuple[int, ...]], on_answer: Callable[[int, Generated], None]
    ) -> list[Generated]:
        return generate(
            self._loaded.model, self._loaded.tokenizer, prompts, GREEDY, on_answer=on_answer,
            batch_size=self._settings.batch_size, max_tokens=self._settings.max_tokens,
        )  # fmt: skip

    def _likelihoods(self, conversations: Sequence[Conversation]) -> list[tuple[float, int]]:
        keys = [self._scored_key(conversation) for conversation in conversations]
        found: dict[int, tuple[float, int]] = {}
        for i, key in enumerate(keys):
            if (kept := self._get(key)) is not None:
                found[i] = (kept[0], kept[1])
        left = [i for i in range(len(conversations)) if i not in found]
        for start in range(0, len(left), SCORED_AT_ONCE):
            some = left[start : start + SCORED_AT_ONCE]
            scores = log_likelihoods(
                self._loaded.model, self._loaded.tokenizer, [conversations[i] for i in some]
            )
            for i, score in zip(some, scores, strict=True):
                found[i] = score
                self._keep(keys[i], list(score))
            self._on_done("scoring", len(found), len(conversations))
        return [found[i] for i in range(len(conversations))]

    def _scored_key(self, conversation: Conversation) -> str:
        """The prompt with its answer, told apart from a longer prompt by what is learnt of it."""
        if self._kept is None:
            return ""
        row = render(conversation, self._loaded.tokenizer, mask="last")
        learnt = sum(weight > 0 for weight in row.loss_mask)
        return key_of(row.token_ids, {"likelihood": learnt})

    def _get(self, key: str) -> Any:
        return None if self._kept is None else self._kept.get(key)

    def _keep(self, key: str, result: object) -> None:
        if self._kept is not None:
            self._kept.keep(key, result)

    def _asked(self, case: Case, ask: Ask) -> tuple[Case, bool]:
        """In words, without its oldest exchanges where it would leave no room for an answer."""
        room = self._context - self._settings.max_tokens
        return self._worded(case, ask, lambda asked: len(self._prompt(asked.history)) <= room)

    def _holds_answered(self, asked: Case) -> bool:
        return len(self._prompt(asked.answered)) <= self._context

    def _worded(self, case: Case, ask: Ask, fits: Callable[[Case], bool]) -> tuple[Case, bool]:
        """The case as it is asked, about as much of its history as fits, and whether that is not all."""

        def worded(history: Conversation) -> Case:
            return replace(case, history=ask(replace(case, history=history)))

        kept = fitted(case.history, lambda history: fits(worded(history)))
        return worded(kept), kept is not case.history

    def _prompt(self, asked: Conversation) -> tuple[int, ...]:
        return render_prompt(asked, self._loaded.tokenizer)


def judge_pairs(ref: ModelRef, pairs: Sequence[Preference], on_done: Done) -> Likelihoods:
    """log P of each pair's two answers, the chosen one first, with their tokens."""
    loaded = open_model(ref)
    context = context_of(loaded.model)
    sides = [within(side, loaded, context) for pair in pairs for side in (pair.conversation, pair.other)]
    found = log_likelihoods(
        loaded.model, loaded.tokenizer, sides, on_progress=lambda done, total: on_done("pairs", done, total)
    )
    return tuple(zip(found[::2], found[1::2], strict=True))


def within(conversation: Conversation, loaded: LoadedModel, context: int) -> Conversation:
    """The conversation, without its oldest exchanges where it goes beyond the context."""
    return fitted(conversation, lambda each: len(render_prompt(each, loaded.tokenizer)) <= context)
