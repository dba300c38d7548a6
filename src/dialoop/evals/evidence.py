"""What a comparison of two models found, as a gate reads it: from a report or from its `report.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from dialoop.config.gate import MAIN_SET
from dialoop.errors import EvalError, nearest
from dialoop.evals.compare import Comparison
from dialoop.evals.cost import Cost
from dialoop.evals.report import Report, Row


@dataclass(frozen=True, slots=True)
class Evidence:
    """sets: rows by the name of the set; the main one is `test`.  leaked: share of it, None = unknown."""

    sets: Mapping[str, tuple[Row, ...]]
    before: Cost | None = None
    after: Cost | None = None
    leaked: float | None = None
    names: tuple[str, str] = field(default=("", ""))

    def changes(self, set_name: str, metric: str, language: str | None) -> tuple[Row, ...]:
        """The rows that a rule is about. Raises EvalError where there is none."""
        if set_name not in self.sets:
            raise EvalError(f"the report has no set {set_name!r}{nearest(set_name, self.sets)}")
        rows = self.sets[set_name]
        found = [row for row in rows if row.change.metric == metric]
        kept = [row for row in found if language in (None, row.language)]
        if not kept:
            what = metric if language is None else f"{metric} of language {language}"
            known = {row.change.metric for row in rows}
            raise EvalError(f"set {set_name!r} has no {what}{nearest(metric, known)}")
        alone = [row for row in kept if row.language != "all"]
        return tuple(alone if language is None and alone else kept)


def evidence_of(report: Report) -> Evidence:
    """The report's rows and costs, those of retained sets beside them."""
    sets = {MAIN_SET: report.rows} | {part.name: part.report.rows for part in report.retained}
    names = (report.identity.base, report.identity.model)
    return Evidence(sets, *report.costs, leaked=report.leaked, names=names)


def read_evidence(path: Path) -> Evidence:
    """The evidence in a `report.json`. Raises EvalError where the file is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        sets = {part["name"]: _rows(part["report"]) for part in found["retained"]}
        before, after = (None if cost is None else Cost(**cost) for cost in found["costs"])
        names = (found["identity"]["base"], found["identity"]["model"])
        return Evidence({MAIN_SET: _rows(found), **sets}, before, after, found["leaked"], names)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvalError(
            f"{path}: no report of this version ({error}): give the report.json of `dialoop eval --compare`"
        ) from error


def _rows(report: Mapping[str, Any]) -> tuple[Row, ...]:
    return tuple(
        Row(row["language"], _finite(row["change"]), row["nearest"] and _finite(row["nearest"]))
        for row in report["rows"]
    )


def _finite(value: Mapping[str, Any]) -> Comparison:
    """JSON has no NaN: numbers that must be there and are null."""
    numbers = {each.name for each in fields(Comparison) if each.type == "float"}
    found: dict[str, Any] = {k: math.nan if v is None and k in numbers else v for k, v in value.items()}
    return Comparison(**found)
