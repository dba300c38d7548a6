"""All the rows of a training run in memory: read, cleaned and split by group."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args

from dialoop.chat.wire import conversation_to_openai
from dialoop.config import CleanSettings, CleanStep, DataSettings
from dialoop.config.heads import HeadDataSettings
from dialoop.data.clean import Progress, check_rejects, clean
from dialoop.data.contrast import Contrast
from dialoop.data.leak import LeakReport, leaks
from dialoop.data.mix import labelled
from dialoop.data.rejects import Rejected
from dialoop.data.sources import OnReject, contrasts, conversations, read_source
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
Read = Callable[[str, OnReject], Iterator[Conversation]]
"""The rows of one source, carried by conversations."""


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
        return self.spread(lambda row: (change(row),))

    def spread(self, change: Callable[[R], Iterable[S]]) -> Dataset[S]:
        """The same with every row changed into any number of rows."""
        made: Any = self
        parts = {
            name: tuple(new for row in getattr(self, name) for new in change(row))
            for name in ("train", "valid", "test")
        }
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
    def read(source: str, on_reject: OnReject) -> Iterator[Conversation]:
        items = read_source(
            source, format=settings.format, columns=settings.columns, encoding=settings.encoding,
            on_reject=on_reject,
        )  # fmt: skip
        found = islice(select(items, on_reject=on_reject, file=source), settings.limit)
        return found if settings.mix.is_plain else labelled(found, source)

    return load_rows(settings, read, scratch, on_progress, replay=settings.mix.replay)


def load_rows(
    settings: DataSettings | HeadDataSettings,
    read: Read,
    scratch: Path,
    on_progress: Progress | None = None,
    *,
    replay: Sequence[str] = (),
    mend: str = "run `dialoop data check` on the file to see why",
) -> Dataset[Conversation]:
    """Rows of any kind, carried by conversations, through the one way from sources to a split.

    read: one source.  replay: sources whose rows go to the training rows.  mend: said where no row is left.
    Raises as `load_dataset`.
    """
    loading = _Loading(read, scratch, mend)
    rows, report = loading.cleaned(settings.sources, settings.clean, on_progress)
    given, test_report = _given_test(settings, loading)
    general = loading.cleaned(replay, settings.clean)[0] if replay else ()
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
        tuple(loading.rejects[:REJECTS_SHOWN]),
        len(general),
    )


def _given_test(
    settings: DataSettings | HeadDataSettings, loading: _Loading
) -> tuple[tuple[Conversation, ...], CleaningReport | None]:
    if not settings.test_sources:
        return (), None
    keep = tuple(s for s in get_args(CleanStep) if s in settings.clean.steps and s not in REMOVING_STEPS)
    gentle = settings.clean.model_copy(update={"steps": keep, "drop_flags": ()})
    return loading.cleaned(settings.test_sources, gentle)


@dataclass(frozen=True, slots=True)
class _Loading:
    """Sources on their way; what cannot be used of them is gathered."""

    read: Read
    scratch: Path
    mend: str
    rejects: list[Rejected] = field(default_factory=list)

    def cleaned(
        self, sources: Sequence[str], how: CleanSettings, on_progress: Progress | None = None
    ) -> tuple[tuple[Conversation, ...], CleaningReport]:
        """What is left of the sources."""
        tally = Tally()

        def reject(row: Rejected) -> None:
            tally.unreadable += 1
            self.rejects.append(row)

        read = (row for source in sources for row in self.read(source, reject))
        rows = tuple(clean(read, how, scratch=self.scratch, tally=tally, on_progress=on_progress))
        report = tally.report()
        check_rejects(report, how.max_reject_share)
        if not rows:
            raise DataError(f"{', '.join(sources)}: no row is left of {report.rows}: {self.mend}")
        return rows, report


def content_hash(conversations: Iterable[Conversation]) -> str:
    """sha256 of the rows as canonical JSON lines, in their order."""
    digest = sha256()
    for conversation in conversations:
        row = json.dumps(
            conversation_to_openai(conversation), ensure_ascii=False, sort_keys=True, separators=(",", ":")
        )
        digest.update(row.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()
