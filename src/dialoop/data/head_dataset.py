"""The rows of a head's training in memory: read, cleaned and split as dialogues are."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

from dialoop.config import CleanSettings
from dialoop.config.heads import HeadDataSettings
from dialoop.data.clean import check_rejects, clean
from dialoop.data.dataset import REJECTS_SHOWN, REMOVING_STEPS, Dataset, content_hash
from dialoop.data.head_rows import Shape
from dialoop.data.leak import leaks
from dialoop.data.rejects import Rejected
from dialoop.data.split import split_rows
from dialoop.data.tally import CleaningReport, Tally
from dialoop.errors import DataError
from dialoop.types import Conversation

T = TypeVar("T")
Carriers = tuple[Conversation, ...]


def load_head_dataset(settings: HeadDataSettings, shape: Shape[T], *, scratch: Path) -> Dataset[T]:
    """Raises DataError for a source that cannot be read or is empty, RejectsError for too many rejects."""
    rejects: list[Rejected] = []
    carriers, report = _cleaned(settings.sources, settings, settings.clean, shape, scratch, rejects)
    given: Carriers = ()
    cut = settings.split
    if settings.test_sources:
        keep = tuple(step for step in settings.clean.steps if step not in REMOVING_STEPS)
        gentle = settings.clean.model_copy(update={"steps": keep, "drop_flags": ()})
        given, _ = _cleaned(settings.test_sources, settings, gentle, shape, scratch, rejects)
        cut = cut.model_copy(update={"test": 0.0})
    parts, planned = split_rows(carriers, cut, scratch=scratch)
    test = given or parts["test"]
    train, valid, tested = (
        tuple(row for each in part for row in shape.back(each))
        for part in (parts["train"], parts["valid"], test)
    )
    return Dataset(
        train,
        valid,
        tested,
        report,
        content_hash((*carriers, *given)),
        f"{planned.rule}; test split given" if given else planned.rule,
        leaks(parts["train"], test, threshold=settings.clean.near_threshold),
        rejects=tuple(rejects[:REJECTS_SHOWN]),
    )


def _cleaned(
    sources: Sequence[str],
    settings: HeadDataSettings,
    how: CleanSettings,
    shape: Shape[T],
    scratch: Path,
    rejects: list[Rejected],
) -> tuple[Carriers, CleaningReport]:
    tally = Tally()

    def reject(row: Rejected) -> None:
        tally.unreadable += 1
        rejects.append(row)

    read = (
        carrier
        for source in sources
        for carrier in islice(shape.read(source, settings.columns, reject), settings.limit)
    )
    kept = tuple(clean(read, how, scratch=scratch, tally=tally))
    report = tally.report()
    check_rejects(report, how.max_reject_share)
    if not kept:
        raise DataError(
            f"{', '.join(sources)}: no row is left of {report.rows}: name the columns in data.columns"
        )
    return kept, report
