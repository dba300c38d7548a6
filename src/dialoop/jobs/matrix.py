"""Several prompts with several models on the same cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from dialoop.chat.render import render_prompt
from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.config import EvalSettings
from dialoop.errors import ConfigError
from dialoop.evals.matrix import Matrix, Side, matrix_of
from dialoop.evals.suites import REPLY, task_named
from dialoop.jobs.judging import Cases, Done
from dialoop.jobs.under_test import UnderTest, cases_for, rows_of, under_test
from dialoop.jobs.wording import Wording
from dialoop.models.encoder import is_encoder
from dialoop.models.head_config import head_kind
from dialoop.prompting.leakage import apart
from dialoop.store.registry import Store
from dialoop.types import ModelRef


@dataclass(frozen=True, slots=True)
class Crossing:
    """models: of the store, or directories.  speed: some answers of every side are timed.

    A prompt whose opening was learnt is answered by its own model, in the place of the base of it.
    """

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
        soft = {each.name: store.models.resolve(each.soft) for each in asked.prompts if each.soft}
    rows = rows_of(task, asked.sources, home / "scratch")
    chosen = cases_for(task, rows.train, asked.settings)
    for prompt in asked.prompts:
        apart(prompt.examples, chosen.asked)
    _check(refs, soft)
    sides = []
    for ref in refs:
        found: dict[str, Side] = {}
        for answering in dict.fromkeys(soft.get(prompt.name, ref) for prompt in asked.prompts):
            with closing(
                under_test(answering, task, asked.settings, on_done, kept=home / "answers")
            ) as model:
                for prompt in asked.prompts:
                    if soft.get(prompt.name, ref) == answering:
                        found[prompt.name] = _side(asked, chosen, prompt, answering, model)
        sides += [found[prompt.name] for prompt in asked.prompts]
    settings = asked.settings
    return matrix_of(sides, task, resamples=settings.resamples, seed=settings.seed)


def _check(refs: Sequence[ModelRef], soft: Mapping[str, ModelRef]) -> None:
    """A learnt prompt goes before its own base alone."""
    for prompt, answering in soft.items():
        for ref in refs:
            if ref != answering and (ref.adapter is not None or ref.base != answering.base):
                raise ConfigError(
                    f"prompt {prompt} opens {answering.name}, which {ref.name} is not the base of: leave one "
                    f"of them out, or cross them on their own"
                )


def _side(asked: Crossing, chosen: Cases, prompt: Wording, ref: ModelRef, model: UnderTest) -> Side:
    worded = Cases(chosen.asked, chosen.asked if chosen.scored else (), prompt.ask)
    outcomes = tuple(each for each in model.outcomes(worded) if each.answer is not None)
    cost = model.cost(worded) if asked.speed else None
    return Side(prompt.name, ref.name, outcomes, cost, _tokens(ref, worded))


def _tokens(ref: ModelRef, chosen: Cases) -> float | None:
    """Of a question as the model reads it, on average; None of a model that has no turns."""
    if head_kind(ref.base) is not None or is_encoder(ref.base):
        return None
    tokenizer = ChatTokenizer.load(ref.base)
    return sum(len(render_prompt(chosen.ask(case), tokenizer)) for case in chosen.asked) / len(chosen.asked)
