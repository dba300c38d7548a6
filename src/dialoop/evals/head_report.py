"""The report of a head: systems on the same test rows, by language, and every class of the tuned one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dialoop.evals.classes import ClassReport

SCHEMA = "dialoop.head-report/1"
ALL = "all"


@dataclass(frozen=True, slots=True)
class System:
    """One row of the table. values: by language, `all` among them, and by metric."""

    name: str
    values: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class HeadReport:
    """systems: worst first by habit: baselines, before, after.  details: reports of the tuned model by name.

    counts: test rows by language.  identity: what was measured, for repeating it.
    """

    title: str
    systems: tuple[System, ...]
    details: Mapping[str, ClassReport]
    counts: Mapping[str, int]
    identity: Mapping[str, Any]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Columns of the table."""
        return tuple(self.systems[-1].values[ALL])

    def summary(self) -> dict[str, Any]:
        """The systems' numbers over all languages, as JSON."""
        return {system.name: dict(system.values[ALL]) for system in self.systems}


def by_language(languages: Sequence[str]) -> dict[str, list[int]]:
    """Positions of the rows of each language, of all first; a language alone is not told twice."""
    found = {ALL: list(range(len(languages)))}
    for language in sorted(set(languages)):
        found[language] = [i for i, each in enumerate(languages) if each == language]
    return found if len(found) > 2 else {ALL: found[ALL]}


def table(report: HeadReport) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows: language, system, metrics as percentages."""
    header = ("rows", "system", *report.metrics)
    rows = [
        (f"{language} ({count})", system.name, *(f"{100 * v:.1f}" for v in system.values[language].values()))
        for language, count in report.counts.items()
        for system in report.systems
    ]
    return header, rows


def markdown(report: HeadReport) -> str:
    """The whole report."""
    header, rows = table(report)
    lines = [f"# {report.title}", ""]
    lines += [_row(header), _row(["---", "---", *("---:" for _ in report.metrics)]), *map(_row, rows)]
    for name, detail in report.details.items():
        lines += ["", f"## {name}", "", "```", detail.to_text().rstrip(), "```"]
    lines += ["", "## What was measured", ""]
    lines += [f"- {key}: {value}" for key, value in report.identity.items()]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def write(report: HeadReport, folder: Path) -> Path:
    """Write `report.md` and `report.json`; the path of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {"schema": SCHEMA, **asdict(report)}
    (folder / "report.json").write_text(json.dumps(found, ensure_ascii=False, indent=1), encoding="utf-8")
    path = folder / "report.md"
    path.write_text(markdown(report), encoding="utf-8")
    return path
