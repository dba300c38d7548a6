"""What is asked, and by whom it is answered: rows of every task, and models of every kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from dialoop.config import CleanSettings, DataSettings, EvalSettings, SplitSettings
from dialoop.config.heads import HeadCleanSettings, HeadDataSettings
from dialoop.data.dataset import Dataset, load_dataset
from dialoop.data.head_dataset import load_head_dataset
from dialoop.data.head_rows import LABELLED, TAGGED, Shape
from dialoop.data.sources import SAMPLES, detect, locate
from dialoop.errors import DataError, EvalError
from dialoop.evals.choices import with_options
from dialoop.evals.cost import Cost
from dialoop.evals.suites import Task
from dialoop.evals.task import Outcome
from dialoop.jobs.choosing import Choosing
from dialoop.jobs.judging import Cases, Done, Judged, choose_cases
from dialoop.jobs.tagging import Tagging
from dialoop.models.encoder import is_encoder
from dialoop.models.head_config import head_kind
from dialoop.types import Conversation, Labelled, Message, ModelRef, Tagged

ROWS: dict[str, Shape[Any]] = {"classification": LABELLED, "tags": TAGGED}
"""What rows that are no dialogues are read as, by task."""
WHOLE = SplitSettings(valid=0, test=0)


class UnderTest(Protocol):
    """A model that is judged, until it is closed."""

    def close(self) -> None: ...

    def outcomes(self, chosen: Cases) -> tuple[Outcome, ...]: ...

    def cost(self, chosen: Cases) -> Cost: ...


def rows_of(task: Task, sources: tuple[str, ...], scratch: Path) -> Dataset[Conversation]:
    """All rows of the sources, tidied and none left out as a duplicate. Raises DataError.

    Rows of a text and its label, or of tagged words, become a question and its answer.
    """
    shape = ROWS.get(task.name)
    if shape is None or all(map(_holds_dialogues, sources)):
        steps = CleanSettings(steps=("unicode", "roles", "turns", "language"))
        return load_dataset(DataSettings(sources=sources, clean=steps, split=WHOLE), scratch=scratch)
    tidy = HeadCleanSettings(steps=("unicode", "language"))
    settings = HeadDataSettings(sources=sources, clean=tidy, split=WHOLE)
    return load_head_dataset(settings, shape, scratch=scratch).each(_as_dialogue)


def _holds_dialogues(source: str) -> bool:
    if source.partition(":")[2] in SAMPLES:
        return True
    try:
        return detect(locate(source)).format != "text"
    except DataError:
        return False


def _as_dialogue(row: Labelled | Tagged) -> Conversation:
    said, right = (
        (row.text, row.label) if isinstance(row, Labelled) else (" ".join(row.tokens), " ".join(row.tags))
    )
    return Conversation((Message("user", said), Message("assistant", right)), metadata=row.metadata)


def cases_for(task: Task, test: Sequence[Conversation], settings: EvalSettings) -> Cases:
    """Evenly over languages and scenarios. Raises EvalError where there is nothing to ask."""
    chosen = choose_cases(test, settings)
    if task.options is None:
        return chosen
    return Cases(with_options(chosen.asked, chosen.scored, task.options, seed=settings.seed), ())


def under_test(
    ref: ModelRef, task: Task, settings: EvalSettings, on_done: Done, *, kept: Path | None = None
) -> UnderTest:
    """kept: a folder of answers that need not be given again. Raises EvalError where it cannot do this."""
    kind = head_kind(ref.base)
    if kind == "token" and task.name == "tags":
        return Tagging(ref, on_done)
    if kind == "token":
        raise EvalError(f"{ref.name} tags words: ask it with --task tags")
    if task.options is not None:
        return Choosing(ref, task, on_done, kept=kept)
    if kind is not None or is_encoder(ref.base):
        raise EvalError(
            f"{ref.name} does not write answers: ask it with --task classification, selection or retrieval"
        )
    return Judged(ref, settings, on_done, kept=kept)
