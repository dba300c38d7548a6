"""What cleaning did: counts by step, and the list of every row that it touched."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dialoop.data.wording import Wording, wording

Action = Literal["changed", "removed", "flagged"]
REJECTING_STEPS = frozenset({"roles", "turns"})
"""Rows that these steps remove are broken rather than superfluous, and count as rejects."""
EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Change:
    """One row that one step touched. `row` is the conversation's id, or `#` and its position from 1."""

    step: str
    action: Action
    row: str
    what: str

    def to_json(self) -> str:
        """One line of the changes file."""
        return json.dumps(
            {"row": self.row, "step": self.step, "action": self.action, "what": self.what}, ensure_ascii=False
        )


@dataclass(frozen=True, slots=True)
class StepReport:
    """Rows that one step saw, changed, removed and flagged; `what` counts the reasons."""

    step: str
    seen: int
    changed: int
    removed: int
    flagged: int
    what: tuple[tuple[str, int], ...] = ()
    examples: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class CleaningReport:
    """The whole run. `unreadable` rows never became conversations; `labels` are counts by language."""

    rows: int
    kept: int
    unreadable: int
    steps: tuple[StepReport, ...]
    labels: tuple[tuple[str, int], ...] = ()

    @property
    def rejected(self) -> int:
        """Rows that could not be read or used; duplicates and unwanted languages are not among them."""
        return self.unreadable + sum(s.removed for s in self.steps if s.step in REJECTING_STEPS)

    @property
    def reject_share(self) -> float:
        """Rejected rows over all rows, 0 to 1."""
        total = self.rows + self.unreadable
        return self.rejected / total if total else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "rows": self.rows,
            "kept": self.kept,
            "unreadable": self.unreadable,
            "rejected": self.rejected,
            "reject_share": round(self.reject_share, 6),
            "languages": dict(self.labels),
            "steps": [_step_dict(step) for step in self.steps],
        }

    def to_text(self, language: str = "en") -> str:
        """A table for people, as Markdown. language: `en` or `zh`."""
        return _render(self, wording(language))


def _step_dict(step: StepReport) -> dict[str, Any]:
    return {
        "step": step.step,
        "seen": step.seen,
        "changed": step.changed,
        "removed": step.removed,
        "flagged": step.flagged,
        "what": dict(step.what),
        "examples": [{"row": e.row, "action": e.action, "what": e.what} for e in step.examples],
    }


def _render(report: CleaningReport, words: Wording) -> str:
    lines = [
        words["summary"].format(
            rows=report.rows + report.unreadable,
            kept=report.kept,
            rejected=report.rejected,
            share=report.reject_share,
        )
    ]
    if report.unreadable:
        lines.append(words["unreadable"].format(count=report.unreadable))
    if report.labels:
        listed = ", ".join(f"{name} {count}" for name, count in report.labels)
        lines.append(words["languages"].format(listed=listed))
    lines += ["", *_table(report.steps, words)]
    return "\n".join(lines) + "\n"


def _table(steps: Sequence[StepReport], words: Wording) -> list[str]:
    heads = [words[key] for key in ("step", "seen", "changed", "removed", "flagged", "what")]
    rows = [f"| {' | '.join(heads)} |", "|---|---:|---:|---:|---:|---|"]
    for step in steps:
        reasons = "; ".join(f"{words.get(name, name)} {count}" for name, count in step.what)
        cells = [
            words.get(step.step, step.step),
            *map(str, (step.seen, step.changed, step.removed, step.flagged)),
        ]
        rows.append(f"| {' | '.join([*cells, reasons])} |")
    return rows


@dataclass(slots=True)
class _Count:
    seen: int = 0
    actions: Counter[str] = field(default_factory=Counter)
    what: Counter[str] = field(default_factory=Counter)
    examples: list[Change] = field(default_factory=list)


class Tally:
    """Collects the counts of a run. Every change is also handed to `on_change`."""

    def __init__(self, on_change: Callable[[Change], None] | None = None) -> None:
        self._on_change = on_change
        self._steps: dict[str, _Count] = {}
        self._labels: Counter[str] = Counter()
        self.rows = 0
        self.kept = 0
        self.unreadable = 0

    def saw(self, step: str, rows: int = 1) -> None:
        """`rows` conversations came to `step`."""
        self._step(step).seen += rows

    def note(self, step: str, action: Action, row: str, what: Sequence[str]) -> None:
        """`step` did `action` to a row, once, for the reasons `what`; a reason may stand there twice."""
        count = self._step(step)
        count.actions[action] += 1
        count.what.update(what)
        change = Change(step, action, row, "; ".join(dict.fromkeys(what)))
        if len(count.examples) < EXAMPLES:
            count.examples.append(change)
        if self._on_change is not None:
            self._on_change(change)

    def label(self, language: str) -> None:
        """A kept or removed row is in `language`."""
        self._labels[language] += 1

    def report(self) -> CleaningReport:
        """The counts so far."""
        steps = tuple(_step_report(name, count) for name, count in self._steps.items())
        labels = tuple(sorted(self._labels.items()))
        return CleaningReport(self.rows, self.kept, self.unreadable, steps, labels)

    def _step(self, name: str) -> _Count:
        if name not in self._steps:
            self._steps[name] = _Count()
        return self._steps[name]


def _step_report(name: str, count: _Count) -> StepReport:
    actions = count.actions
    return StepReport(
        name,
        count.seen,
        actions["changed"],
        actions["removed"],
        actions["flagged"],
        tuple(count.what.most_common()),
        tuple(count.examples),
    )
