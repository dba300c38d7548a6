"""Answers and likelihoods of one model on test cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dialoop.chat.render import render_prompt
from dialoop.config import EvalSettings
from dialoop.engine.generate import context_of, generate
from dialoop.engine.loaded import LoadedModel, open_model
from dialoop.engine.score import log_likelihoods
from dialoop.evals.preferences import Likelihoods
from dialoop.evals.task import Case, Outcome, cases, run
from dialoop.train.fit import without_oldest
from dialoop.types import Conversation, ModelRef, Preference, Sampling

Done = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Cases:
    """asked: turns that are answered; scored: all turns, whose likelihood is computed."""

    asked: tuple[Case, ...]
    scored: tuple[Case, ...]


def choose_cases(test: Sequence[Conversation], settings: EvalSettings) -> Cases:
    """Evenly over languages and scenarios. Raises EvalError where there is nothing to ask."""
    return Cases(cases(test, max_cases=settings.max_cases, seed=settings.seed), cases(test))


def judge(ref: ModelRef, chosen: Cases, settings: EvalSettings, on_done: Done) -> tuple[Outcome, ...]:
    """Greedy answers to the asked cases, likelihoods of all. on_done(what, done, all) as it goes."""
    loaded = open_model(ref)
    context = context_of(loaded.model)

    def answer(histories: Sequence[Conversation]) -> list[str]:
        prompts = [_prompt(history, loaded, context - settings.max_tokens) for history in histories]
        found = generate(
            loaded.model, loaded.tokenizer, prompts, Sampling(temperature=0.0),
            batch_size=settings.batch_size, max_tokens=settings.max_tokens,
            on_progress=lambda done, total: on_done("answering", done, total),
        )  # fmt: skip
        return [generated.text for generated in found]

    def score(conversations: Sequence[Conversation]) -> list[tuple[float, int]]:
        fitted = [_fit(conversation, loaded, context) for conversation in conversations]
        return log_likelihoods(
            loaded.model, loaded.tokenizer, fitted,
            on_progress=lambda done, total: on_done("scoring", done, total),
        )  # fmt: skip

    return run(chosen.asked, answer, score, scored=chosen.scored)


def judge_pairs(ref: ModelRef, pairs: Sequence[Preference], on_done: Done) -> Likelihoods:
    """log P of each pair's two answers, the chosen one first, with their tokens."""
    loaded = open_model(ref)
    context = context_of(loaded.model)
    sides = [_fit(side, loaded, context) for pair in pairs for side in (pair.conversation, pair.other)]
    found = log_likelihoods(
        loaded.model, loaded.tokenizer, sides, on_progress=lambda done, total: on_done("pairs", done, total)
    )
    return tuple(zip(found[::2], found[1::2], strict=True))


def _prompt(history: Conversation, loaded: LoadedModel, room: int) -> tuple[int, ...]:
    """The prompt, without its oldest exchanges where it would leave no room for an answer."""
    prompt = render_prompt(history, loaded.tokenizer)
    while len(prompt) > room and (shorter := without_oldest(history)) is not None:
        history, prompt = shorter, render_prompt(shorter, loaded.tokenizer)
    return prompt


def _fit(conversation: Conversation, loaded: LoadedModel, context: int) -> Conversation:
    while len(render_prompt(conversation, loaded.tokenizer)) > context:
        shorter = without_oldest(conversation)
        if shorter is None:
            break
        conversation = shorter
    return conversation
