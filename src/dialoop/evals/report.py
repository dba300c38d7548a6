"""The before/after report as a value: rows by language, slices, curves and answers side by side."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dialoop.errors import EvalError
from dialoop.evals.compare import Comparison, compare
from dialoop.evals.cost import Cost
from dialoop.evals.families import corrected
from dialoop.evals.judge import Pairwise
from dialoop.evals.metrics import Metric, Reads, Stats
from dialoop.evals.suites import REPLY, Task
from dialoop.evals.task import Case, Outcome
from dialoop.evals.words import words

_FIRST = ("en", "zh")


@dataclass(frozen=True, slots=True)
class Identity:
    """What was compared and how it came about; whatever is left empty is shown as not given.

    command: the line that repeats the run.  leak_check: what was found between train and test.
    """

    base: str = ""
    model: str = ""
    method: str = ""
    dataset_hash: str = ""
    split_rule: str = ""
    seeds: Mapping[str, int] = field(default_factory=dict)
    decoding: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    hardware: str = ""
    command: str = ""
    leak_check: str = ""
    created: str = ""
    more: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """A metric on the cases of one language (`all`: of every language).

    nearest: from the nearest-neighbour baseline to after; None where none was computed.
    """

    language: str
    change: Comparison
    nearest: Comparison | None = None


@dataclass(frozen=True, slots=True)
class Slice:
    """The cases that share a value: `language`, `intent`, `turn` (from 1) or `length` of the reference."""

    key: str
    value: str
    change: Comparison


@dataclass(frozen=True, slots=True)
class SideBySide:
    """One case with its answers; `gain` is the change of the task's own metric of single cases, in points."""

    case: Case
    before: str
    after: str
    nearest: str | None
    gain: float


@dataclass(frozen=True, slots=True)
class Retained:
    """What became of another set of dialogues, such as an old or a general one."""

    name: str
    report: Report


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that the written reports show.

    curves: rows of the training journal: `step` and any of `loss`, `valid_loss`, `rate` (learning
    rate) and `norm` (of the gradient); others are kept in the JSON.
    skipped: assistant turns that could not be asked.
    retained: other sets, old or general, each compared likewise.
    costs: before and after, where they were measured.
    leaked: share of the test dialogues that repeat training dialogues; None = not known.
    judged: what another model preferred, where one was asked.
    shortened: answered histories that lost their oldest exchanges, before or after, to fit into a context.
    """

    identity: Identity
    rows: tuple[Row, ...]
    slices: tuple[Slice, ...]
    gains: tuple[SideBySide, ...]
    losses: tuple[SideBySide, ...]
    answers: tuple[SideBySide, ...]
    curves: tuple[Mapping[str, float | None], ...]
    cases: int
    groups: int
    scored: int
    skipped: int
    resamples: int
    seed: int
    retained: tuple[Retained, ...] = ()
    costs: tuple[Cost | None, Cost | None] = (None, None)
    leaked: float | None = None
    task: str = REPLY.name
    judged: Pairwise | None = None
    shortened: int = 0

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages with rows, English and Chinese first, `all` last."""
        return tuple(dict.fromkeys(row.language for row in self.rows))

    def of(self, language: str) -> tuple[Row, ...]:
        """The rows of one language."""
        return tuple(row for row in self.rows if row.language == language)


@dataclass(frozen=True, slots=True)
class _Trio:
    """The outcomes of one case."""

    before: Outcome
    after: Outcome
    nearest: Outcome | None

    @property
    def case(self) -> Case:
        return self.before.case

    def has(self, what: Reads) -> bool:
        return self.before.has(what) and self.after.has(what)


def build(
    before: Sequence[Outcome],
    after: Sequence[Outcome],
    *,
    nearest: Sequence[Outcome] | None = None,
    identity: Identity | None = None,
    curves: Sequence[Mapping[str, float | None]] = (),
    skipped: int = 0,
    resamples: int = 2000,
    seed: int = 0,
    examples: int = 3,
    retained: Sequence[Retained] = (),
    costs: tuple[Cost | None, Cost | None] = (None, None),
    leaked: float | None = None,
    task: Task = REPLY,
    more: Sequence[Metric] = (),
    further: Sequence[Row] = (),
) -> Report:
    """Compare outcomes of the same cases.

    more: metrics beside the task's own.  further: rows that stand below those of their language.

    Raises EvalError where cases differ or none was answered.
    """
    trios = _paired(before, after, nearest)
    answered = [trio for trio in trios if trio.has("text")]
    if not answered:
        raise EvalError("no case has an answer before and after: generate both before the report")
    sides = _sides(answered, task.side())
    return Report(
        identity or Identity(),
        (*_rows(task, more, trios, resamples, seed), *further),
        _slices(task.side(), answered, resamples, seed),
        _extremes([side for side in sides if side.gain > 0], examples, worst=False),
        _extremes([side for side in sides if side.gain < 0], examples, worst=True),
        sides,
        tuple(dict(row) for row in curves),
        len(answered), len({trio.case.group for trio in answered}),
        sum(trio.has("likelihood") for trio in trios),
        skipped, resamples, seed, tuple(retained), costs, leaked, task.name,
        shortened=sum(trio.before.shortened or trio.after.shortened for trio in answered),
    )  # fmt: skip


def _paired(
    before: Sequence[Outcome], after: Sequence[Outcome], nearest: Sequence[Outcome] | None
) -> list[_Trio]:
    first, second = [o.case.id for o in before], [o.case.id for o in after]
    if first != second or len(set(first)) != len(first):
        raise EvalError(
            f"{len(first)} outcomes before and {len(second)} after are not of the same distinct cases in the "
            f"same order: run both on one tuple of cases"
        )
    found = {o.case.id: o for o in nearest or ()}
    return [_Trio(b, a, found.get(b.case.id)) for b, a in zip(before, after, strict=True)]


def in_order(found: Collection[str]) -> list[str]:
    """Languages as reports name them, `all` last where there are several."""
    ordered = [*(x for x in _FIRST if x in found), *sorted(set(found) - set(_FIRST))]
    return [*ordered, "all"] if len(ordered) > 1 else ordered


def _rows(
    task: Task, more: Sequence[Metric], trios: Sequence[_Trio], resamples: int, seed: int
) -> tuple[Row, ...]:
    languages = in_order({trio.case.language for trio in trios})
    found = (_of_language(task, more, language, trios, resamples, seed) for language in languages)
    return tuple(row for rows in found for row in rows)


def _of_language(
    task: Task, more: Sequence[Metric], language: str, trios: Sequence[_Trio], resamples: int, seed: int
) -> list[Row]:
    """Metrics that have a good direction are one family of comparisons."""
    references = [trio.case.reference for trio in trios if language in ("all", trio.case.language)]
    metrics = (*task.metrics(language, references), *more)
    judging = {metric.name for metric in metrics if metric.higher_is_better is not None}
    found = [_row(metric, language, trios, resamples, seed) for metric in metrics]
    rows = [row for row in found if row is not None]
    family = corrected([row.change for row in rows if row.change.metric in judging])
    changes = {change.metric: change for change in family}
    return [replace(row, change=changes.get(row.change.metric, row.change)) for row in rows]


def _row(metric: Metric, language: str, trios: Sequence[_Trio], resamples: int, seed: int) -> Row | None:
    """None where no case of the language has what the metric reads."""
    mine = [t for t in trios if language in ("all", t.case.language) and t.has(metric.reads)]
    if not mine:
        return None
    groups = [trio.case.group for trio in mine]
    before, after = _stats(metric, mine, lambda t: t.before), _stats(metric, mine, lambda t: t.after)
    change = compare(metric, before, after, groups=groups, resamples=resamples, seed=seed)
    if metric.reads != "text" or any(t.nearest is None or t.nearest.answer is None for t in mine):
        return Row(language, change)
    baseline = _stats(metric, mine, lambda t: t.nearest or t.before)
    return Row(
        language, change, compare(metric, baseline, after, groups=groups, resamples=resamples, seed=seed)
    )


def _stats(metric: Metric, trios: Sequence[_Trio], side: Callable[[_Trio], Outcome]) -> Stats:
    return stats_of(metric, [side(trio) for trio in trios])


def stats_of(metric: Metric, outcomes: Sequence[Outcome]) -> Stats:
    """(N, k) of outcomes that have what the metric reads."""
    if metric.reads == "scores":
        return metric.cases([o.scores for o in outcomes], [o.case.grades for o in outcomes])
    if metric.reads == "likelihood":
        return metric.cases([o.log_likelihood for o in outcomes], [o.tokens for o in outcomes])
    return metric.cases([o.answer for o in outcomes], [o.case.reference for o in outcomes])


def _slices(metric: Metric, answered: Sequence[_Trio], resamples: int, seed: int) -> tuple[Slice, ...]:
    """Slices by every key that has at least two values, the largest fall first."""
    before = _stats(metric, answered, lambda t: t.before)
    after = _stats(metric, answered, lambda t: t.after)
    labels: dict[str, list[str | None]] = {
        "language": [trio.case.language for trio in answered],
        "intent": [trio.case.intent for trio in answered],
        "turn": [str(trio.case.index + 1) for trio in answered],
        "length": _lengths([len(words(trio.case.reference)) for trio in answered]),
    }
    found = []
    for key, values in labels.items():
        distinct = sorted({v for v in values if v is not None})
        for value in distinct if len(distinct) > 1 else ():
            at = np.array([i for i, v in enumerate(values) if v == value])
            groups = [answered[i].case.group for i in at]
            change = compare(metric, before[at], after[at], groups=groups, resamples=resamples, seed=seed)
            found.append(Slice(key, value, change))
    return tuple(sorted(found, key=lambda s: (s.change.delta, s.key, s.value)))


def _lengths(counts: Sequence[int]) -> list[str | None]:
    """Thirds by number of words (Chinese: characters), in words: `1–8`, `9–15`, `16–40`."""
    ends = sorted({int(end) for end in np.quantile(counts, [1 / 3, 2 / 3, 1], method="lower")})
    starts = [min(counts), *(end + 1 for end in ends)]
    thirds = np.searchsorted(ends, counts)
    return [f"{starts[third]}–{ends[third]}" for third in thirds]


def _sides(answered: Sequence[_Trio], metric: Metric) -> tuple[SideBySide, ...]:
    before = _stats(metric, answered, lambda t: t.before)[:, 0]
    after = _stats(metric, answered, lambda t: t.after)[:, 0]
    return tuple(
        SideBySide(
            trio.case,
            trio.before.answer or "",
            trio.after.answer or "",
            trio.nearest.answer if trio.nearest else None,
            float(after[i] - before[i]),
        )
        for i, trio in enumerate(answered)
    )


def _extremes(sides: Sequence[SideBySide], wanted: int, *, worst: bool) -> tuple[SideBySide, ...]:
    """The largest changes, languages taking turns, one case a group."""
    ordered = sorted(sides, key=lambda side: (side.gain if worst else -side.gain, side.case.id))
    queues: dict[str, list[SideBySide]] = {}
    seen: set[str] = set()
    for side in ordered:
        if side.case.group not in seen:
            seen.add(side.case.group)
            queues.setdefault(side.case.language, []).append(side)
    longest = max(map(len, queues.values()), default=0)
    turns = [queue[i] for i in range(longest) for queue in queues.values() if i < len(queue)]
    return tuple(turns[:wanted])
