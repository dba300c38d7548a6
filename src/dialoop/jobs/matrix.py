"""Several prompts with several models on the same cases."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from dialoop.chat.render import render_prompt
from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.config import EvalSettings
from dialoop.errors import ConfigError
from dialoop.evals.matrix import Matrix, Side, matrix_of
from dialoop.evals.suites import REPLY, task_named
from dialoop.jobs.judging import Ask, Cases, Done, as_it_is
from dialoop.jobs.under_test import cases_for, rows_of, under_test
from dialoop.models.encoder import is_encoder
from dialoop.models.head_config import head_kind
from dialoop.prompting.leakage import apart
from dialoop.store.registry import Store
from dialoop.types import Conversation, ModelRef


@dataclass(frozen=True, slots=True)
class Wording:
    """A prompt: its name, and what it makes of a case.

    examples: that it may show; one that gives a case away is refused.
    """

    name: str
    ask: Ask = as_it_is
    examples: tuple[Conversation, ...] = ()


@dataclass(frozen=True, slots=True)
class Crossing:
    """models: of the store, or directories.  speed: some answers of every side are timed."""

    models: tuple[str, ...]
    prompts: tuple[Wording, ...]
    sources: tuple[str, ...]
    settings: EvalSettings = field(default_factory=EvalSettings)
    task: str = REPLY.name
    speed: bool = True


def cross(asked: Crossing, home: Path, on_done: Done) -> Matrix:
    """Ask every side what it was not asked before. Raises DialoopError of many kinds."""
    if not asked.models or not asked.prompts:
        raise ConfigError("give at least one --model and one --prompt; `none` is the question as it is")
    task = task_named(asked.task)
    with Store.open(home) as store:
        refs = [store.models.resolve(name) for name in asked.models]
    rows = rows_of(task, asked.sources, home / "scratch")
    chosen = cases_for(task, rows.train, asked.settings)
    for prompt in asked.prompts:
        apart(prompt.examples, chosen.asked)
    sides = []
    for ref in refs:
        with closing(under_test(ref, task, asked.settings, on_done, kept=home / "answers")) as model:
            for prompt in asked.prompts:
                worded = Cases(chosen.asked, chosen.asked if chosen.scored else (), prompt.ask)
                outcomes = tuple(each for each in model.outcomes(worded) if each.answer is not None)
                cost = model.cost(worded) if asked.speed else None
                sides.append(Side(prompt.name, ref.name, outcomes, cost, _tokens(ref, worded)))
    settings = asked.settings
    return matrix_of(sides, task, resamples=settings.resamples, seed=settings.seed)


def _tokens(ref: ModelRef, chosen: Cases) -> float | None:
    """Of a question as the model reads it, on average; None of a model that has no turns."""
    if head_kind(ref.base) is not None or is_encoder(ref.base):
        return None
    tokenizer = ChatTokenizer.load(ref.base)
    return sum(len(render_prompt(chosen.ask(case), tokenizer)) for case in chosen.asked) / len(chosen.asked)
