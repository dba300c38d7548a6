"""Test cases and examples for prompts, kept apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dialoop.data.head_rows import LABELLED
from dialoop.data.language import detect
from dialoop.data.rejects import Rejected
from dialoop.data.sources import read_source
from dialoop.errors import DataError
from dialoop.evals.suites import REPLY, Task, task_named
from dialoop.evals.task import Case, cases
from dialoop.jobs.under_test import rows_of
from dialoop.prompting.leakage import Leaked, apart
from dialoop.types import Conversation, Document, Labelled, Message

CLASSIFICATION = "classification"


@dataclass(frozen=True, slots=True)
class PromptData:
    """cases: to be asked.  pool: examples that none of them leaks from.  labels: of a classification.

    leaked: examples that were left out.  rejects: rows that could not be read.
    """

    task: Task
    cases: tuple[Case, ...]
    pool: tuple[Conversation, ...]
    labels: tuple[str, ...]
    leaked: Leaked
    rejects: tuple[Rejected, ...] = ()


def prompt_data(
    sources: Sequence[str],
    examples: Sequence[str],
    task: str,
    scratch: Path,
    *,
    max_cases: int,
    seed: int = 0,
    drop_leaks: bool = False,
) -> PromptData:
    """Cases of the sources; examples of others, or of the rows of the same sources that are not asked.

    Examples that came by themselves and leak are refused unless `drop_leaks`; of the same sources they are
    left out. Raises DataError, EvalError.
    """
    rejects: list[Rejected] = []
    rows = _dialogues(sources, task, scratch, rejects)
    chosen = cases(rows, max_cases=max_cases, seed=seed)
    others = _dialogues(examples, task, scratch, rejects) if examples else _not_asked(rows, chosen)
    pool, leaked = apart([_first_exchange(each) for each in others], chosen, drop=drop_leaks or not examples)
    labels: tuple[str, ...] = ()
    if task == CLASSIFICATION:
        labels = tuple(sorted({each.answer for each in (*rows, *others)}))
    return PromptData(task_named(task), chosen, pool, labels, leaked, tuple(rejects))


def task_of(sources: Sequence[str]) -> str:
    """What the first row asks for: a class where it is a text, an answer where it is a dialogue."""
    first = next(iter(read_source(sources[0], on_reject=lambda rejected: None)), None)
    return CLASSIFICATION if isinstance(first, Document) else REPLY.name


def _dialogues(
    sources: Sequence[str], task: str, scratch: Path, rejects: list[Rejected]
) -> tuple[Conversation, ...]:
    if task != CLASSIFICATION:
        return rows_of(task_named(task), tuple(sources), scratch).train
    found = [row for source in sources for row in LABELLED.read(source, {}, rejects.append)]
    if not found:
        raise DataError(f"{', '.join(sources)}: no row has a text and a label: give labelled rows")
    rows = [as_dialogue(each) for row in found for each in LABELLED.back(row)]
    return tuple(_with_id(row, i) for i, row in enumerate(rows))


def as_dialogue(row: Labelled) -> Conversation:
    """A text and its class as a dialogue; the class in words, `lost_card` as `lost card`."""
    label = spelt(row.label)
    facts = {"language": detect(row.text), **row.metadata, "intent": label}
    return Conversation((Message("user", row.text), Message("assistant", label)), metadata=facts)


def spelt(label: str) -> str:
    """A label as a person would write it."""
    return " ".join(label.replace("_", " ").split())


def _with_id(row: Conversation, place: int) -> Conversation:
    return replace(row, metadata={**row.metadata, "id": f"row {place}"})


def _not_asked(rows: Sequence[Conversation], chosen: Sequence[Case]) -> list[Conversation]:
    """Rows that no case is of."""
    asked = {case.id.rpartition("/")[0] for case in chosen}
    return [row for i, row in enumerate(rows) if str(row.metadata.get("id", i)) not in asked]


def _first_exchange(row: Conversation) -> Conversation:
    """A dialogue up to its first answer: as an example it is short, and needs nothing said before."""
    first = next((i for i, turn in enumerate(row.messages) if turn.role == "assistant"), None)
    return row if first is None else replace(row, messages=row.messages[: first + 1])
