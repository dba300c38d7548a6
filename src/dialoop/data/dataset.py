"""All the rows of a training run in memory: read, cleaned and split by group."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args

from dialoop.chat.wire import conversation_to_openai
from dialoop.config import CleanSettings, CleanStep, DataSettings
from dialoop.data.clean import Progress, check_rejects, clean
from dialoop.data.contrast import Contrast
from dialoop.data.leak import LeakReport, leaks
from dialoop.data.mix import labelled
from dialoop.data.rejects import Rejected
from dialoop.data.sources import contrasts, conversations, read_source
from dialoop.data.split import split_rows
from dialoop.data.tally import CleaningReport, Tally
from dialoop.errors import DataError
from dialoop.types import Conversation, Preference

REMOVING_STEPS = frozenset({"exact", "near"})
"""Not run on a given test split, whose rows are its author's choice."""
REJECTS_SHOWN = 20
R = TypeVar("R")
S = TypeVar("S")
Select = Callable[..., Iterator[Conversation]]
"""What a run learns from among the items of a source: `conversations` or `contrasts`."""


@dataclass(frozen=True, slots=True)
class Dataset(Generic[R]):
    """Rows to train on, to validate on and to test on, and how they came to be.

    content_hash: sha256 of the canonical JSON of all rows.  split_rule: in words.
    test_report: of a given test split, else None.  leaked: test rows that repeat training rows.
    replayed: how many of the training rows, the last, are general data that is shown again.
    """

    train: tuple[R, ...]
    valid: tuple[R, ...]
    test: tuple[R, ...]
    report: CleaningReport
    content_hash: str
    split_rule: str
    leaked: LeakReport
    test_report: CleaningReport | None = None
    rejects: tuple[Rejected, ...] = ()
    replayed: int = 0

    def each(self, change: Callable[[R], S]) -> Dataset[S]:
        """The same with every row changed."""
        made: Any = self
        parts = {name: tuple(map(change, getattr(self, name))) for name in ("train", "valid", "test")}
        changed: Dataset[S] = replace(made, **parts)
        return changed


def load_dataset(
    settings: DataSettings, *, scratch: Path, on_progress: Progress | None = None
) -> Dataset[Conversation]:
    """Raises DataError for a source that cannot be read or is empty, RejectsError for too many rejects."""
    return _load(settings, conversations, scratch, on_progress)


def load_preferences(
    settings: DataSettings, *, scratch: Path, on_progress: Progress | None = None
) -> Dataset[Preference]:
    """As `load_dataset`, of the preferences in the sources; rows of other kinds are rejects."""
    return _load(settings, contrasts, scratch, on_progress).each(_preference)


def _preference(row: Conversation) -> Preference:
    assert isinstance(row, Contrast)
    return row.preference


def _load(
    settings: DataSettings, select: Select, scratch: Path, on_progress: Progress | None
) -> Dataset[Conversation]:
    rejects: list[Rejected] = []
    rows, report = _cleaned(settings.sources, settings, settings.clean, select, scratch, rejects, on_progress)
    given, test_report = _given_test(settings, select, scratch, rejects)
    general = _replayed(settings, select, scratch, rejects)
    cut = settings.split.model_copy(update={"test": 0.0}) if test_report else settings.split
    parts, planned = split_rows(rows, cut, scratch=scratch)
    test = given if test_report else parts["test"]
    rule = f"{planned.rule}; test split given" if test_report else planned.rule
    train = (*parts["train"], *general)
    return Dataset(
        train,
        parts["valid"],
        test,
        report,
        content_hash((*rows, *given, *general)),
        rule,
        leaks(train, test, threshold=settings.clean.near_threshold),
        test_report,
        tuple(rejects[:REJECTS_SHOWN]),
        len(general),
    )


def _given_test(
    settings: DataSettings, select: Select, scratch: Path, rejects: list[Rejected]
) -> tuple[tuple[Conversation, ...], CleaningReport | None]:
    if not settings.test_sources:
        return (), None
    keep = tuple(s for s in get_args(CleanStep) if s in settings.clean.steps and s not in REMOVING_STEPS)
    gentle = settings.clean.model_copy(update={"steps": keep, "drop_flags": ()})
    return _cleaned(settings.test_sources, settings, gentle, select, scratch, rejects, None)


def _replayed(
    settings: DataSettings, select: Select, scratch: Path, rejects: list[Rejected]
) -> tuple[Conversation, ...]:
    if not settings.mix.replay:
        return ()
    return _cleaned(settings.mix.replay, settings, settings.clean, select, scratch, rejects, None)[0]


def _cleaned(
    sources: Iterable[str],
    settings: DataSettings,
    how: CleanSettings,
    select: Select,
    scratch: Path,
    rejects: list[Rejected],
    on_progress: Progress | None,
) -> tuple[tuple[Conversation, ...], CleaningReport]:
    tally = Tally()
    read = _all(sources, settings, select, tally, rejects)
    rows = tuple(clean(read, how, scratch=scratch, tally=tally, on_progress=on_progress))
    report = tally.report()
    check_rejects(report, how.max_reject_share)
    if not rows:
        raise DataError(
            f"{', '.join(sources)}: no conversation is left of {report.rows} rows: "
            f"run `dialoop data check` on the file to see why"
        )
    return rows, report


def _all(
    sources: Iterable[str], settings: DataSettings, select: Select, tally: Tally, rejects: list[Rejected]
) -> Iterator[Conversation]:
    def reject(row: Rejected) -> None:
        tally.unreadable += 1
        rejects.append(row)

    for source in sources:
        items = read_source(
            source, format=settings.format, columns=settings.columns, encoding=settings.encoding,
            on_reject=reject,
        )  # fmt: skip
        found = islice(select(items, on_reject=reject, file=source), settings.limit)
        yield from found if settings.mix.is_plain else labelled(found, source)


def content_hash(conversations: Iterable[Conversation]) -> str:
    """sha256 of the rows as canonical JSON lines, in their order."""
    digest = sha256()
    for conversation in conversations:
        row = json.dumps(
            conversation_to_openai(conversation), ensure_ascii=False, sort_keys=True, separators=(",", ":")
        )
        digest.update(row.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()
