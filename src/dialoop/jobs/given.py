"""What a run begins with: the models and the prompt that its recipe names, and its rows, read and split."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dialoop.config import CleanStep, DistillObjective, PreferenceObjective, TuneRecipe
from dialoop.config.heads import HeadCleanSettings, HeadDataSettings
from dialoop.config.row_prompt import RowPrompt
from dialoop.data.dataset import Dataset, load_dataset, load_preferences
from dialoop.data.head_dataset import load_head_dataset
from dialoop.data.head_rows import LABELLED
from dialoop.errors import ConfigError, DataError, RequestError
from dialoop.evals.choices import with_options
from dialoop.evals.suites import REPLY, Task, task_named
from dialoop.evals.task import cases
from dialoop.jobs.judging import Cases, choose_cases
from dialoop.jobs.prompt_data import CLASSIFICATION, as_dialogue, task_of
from dialoop.jobs.wording import PLAIN, Wording, learnt_rows, wording
from dialoop.prompting.leakage import apart
from dialoop.store.registry import Store
from dialoop.types import Conversation, ModelRef, Preference

DIALOGUE_STEPS: tuple[CleanStep, ...] = ("roles", "turns")
"""Of cleaning: a text with a label has neither."""


@dataclass(frozen=True, slots=True)
class Given:
    """recipe: with its prompt by version.  learnt: the rows that are trained on, in the prompt's words.

    dataset: the dialogues in them, as they came.  wording: that they are asked in.  task: they are judged by.
    """

    recipe: TuneRecipe
    base: ModelRef
    teacher: ModelRef | None
    learnt: Dataset[Any]
    dataset: Dataset[Conversation]
    wording: Wording = PLAIN
    task: Task = REPLY

    @property
    def pairs(self) -> tuple[Preference, ...]:
        """Test rows that have two answers."""
        return tuple(row for row in self.learnt.test if isinstance(row, Preference))

    def cases(self) -> Cases:
        """Of the test rows, in the prompt's words. Raises EvalError where an example gives one away."""
        chosen = choose_cases(self.dataset.test, self.recipe.eval)
        if self.task.options is not None:
            rows = (*self.dataset.train, *self.dataset.valid, *self.dataset.test)
            chosen = Cases(with_options(chosen.asked, cases(rows), self.task.options), ())
        apart(self.wording.examples, chosen.asked)
        return replace(chosen, ask=self.wording.ask)


def given(store: Store, recipe: TuneRecipe, scratch: Path) -> Given:
    """Raises as `Store.models.resolve` and `load_dataset` do; ConfigError where the prompt does not fit."""
    base, teacher = models_of(recipe, store)
    recipe = by_version(recipe, store)
    rows = read_rows(recipe, scratch)
    dataset = dialogues_in(recipe, rows)
    prompt = recipe.data.prompt
    if prompt is None:
        return Given(recipe, base, teacher, rows, dataset)
    worded, task = _wording(store, prompt), task_named(_task(recipe))
    labels: tuple[str, ...] = ()
    if task.options is not None:
        labels = tuple(sorted({row.answer for row in (*dataset.train, *dataset.valid, *dataset.test)}))
    try:
        learnt = _in_words(rows, worded, labels, prompt.without_examples)
    except RequestError as error:
        raise DataError(
            f"data.prompt {prompt.name}: {error} in data.prompt.values, or in the metadata of every row"
        ) from error
    return Given(recipe, base, teacher, learnt, dataset, worded, task)


def models_of(recipe: TuneRecipe, store: Store) -> tuple[ModelRef, ModelRef | None]:
    """The base, and the teacher where there is one."""
    base, objective = store.models.resolve(recipe.base), recipe.objective
    return base, store.models.resolve(objective.teacher) if isinstance(objective, DistillObjective) else None


def by_version(recipe: TuneRecipe, store: Store) -> TuneRecipe:
    """The recipe with the version of the prompt that its name means now. Raises StoreError."""
    prompt = recipe.data.prompt
    if prompt is None:
        return recipe
    told = prompt.model_copy(update={"name": store.prompts.get(prompt.name).ref})
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"prompt": told})})


def read_rows(recipe: TuneRecipe, scratch: Path) -> Dataset[Any]:
    """Preferences where the objective learns from pairs, else dialogues; those of labels are made of them."""
    if isinstance(recipe.objective, PreferenceObjective):
        return load_preferences(recipe.data, scratch=scratch)
    if recipe.data.prompt is None or _task(recipe) != CLASSIFICATION:
        return load_dataset(recipe.data, scratch=scratch)
    data = recipe.data
    if not data.mix.is_plain or data.format is not None or data.encoding is not None:
        raise ConfigError(
            "data.mix, data.format and data.encoding are for dialogues, and data.prompt.task is "
            "classification: leave them out, and name the columns text and label in data.columns"
        )
    steps = tuple(step for step in data.clean.steps if step not in DIALOGUE_STEPS)
    told = data.model_dump(include=set(HeadDataSettings.model_fields) - {"clean"})
    clean = HeadCleanSettings(**{**data.clean.model_dump(), "steps": steps})
    settings = HeadDataSettings(**told, clean=clean)
    return load_head_dataset(settings, LABELLED, scratch=scratch).each(as_dialogue)


def dialogues_in(recipe: TuneRecipe, rows: Dataset[Any]) -> Dataset[Conversation]:
    """The rows, or of preferences the chosen answers after their histories."""
    pairs = isinstance(recipe.objective, PreferenceObjective)
    return rows.each(lambda pair: pair.conversation) if pairs else rows


def _task(recipe: TuneRecipe) -> str:
    prompt = recipe.data.prompt
    if prompt is None or isinstance(recipe.objective, PreferenceObjective):
        return REPLY.name
    return prompt.task or task_of(recipe.data.sources)


def _wording(store: Store, prompt: RowPrompt) -> Wording:
    worded = wording(prompt.name, store.prompts.get(prompt.name).settings, prompt.values)
    if worded.soft is not None:
        raise ConfigError(
            f"data.prompt {prompt.name} is answered by the learnt prompt of {worded.soft}: tune that model "
            f"(base), and name a prompt of words"
        )
    return worded


def _in_words(
    rows: Dataset[Any], worded: Wording, labels: tuple[str, ...], without_examples: float
) -> Dataset[Any]:
    """Rows of general data that is shown again stay as they are.

    without_examples: share of the rows, drawn by what they say.
    """
    own = len(rows.train) - rows.replayed
    general = rows.train[own:]

    def learnt(row: Any) -> list[Any]:
        pair = isinstance(row, Preference)
        said = row.history if pair else row
        told = worded
        drawn = random.Random("\n".join(turn.content for turn in said.messages)).random()
        if drawn < without_examples:
            told = replace(worded, ask=worded.bare)
        if pair:
            (asked,) = learnt_rows(replace(told, opens=True), said)
            return [replace(row, history=asked)]
        return list(learnt_rows(told, said, labels))

    made = replace(rows, train=rows.train[:own]).spread(learnt)
    return replace(made, train=(*made.train, *general))
