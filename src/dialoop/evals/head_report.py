"""The report of a head: systems on the same test rows, by language, and every class of the tuned one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dialoop.evals.classes import ClassReport, Confusion
from dialoop.evals.picture import confusion_picture
from dialoop.evals.png import write_png

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
    confusion: of a classification by the tuned model.
    """

    title: str
    systems: tuple[System, ...]
    details: Mapping[str, ClassReport]
    counts: Mapping[str, int]
    identity: Mapping[str, Any]
    confusion: Confusion | None = None

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
        (f"{language} ({count})", system.name, *_percentages(system.values[language], report.metrics))
        for language, count in report.counts.items()
        for system in report.systems
    ]
    return header, rows


def _percentages(values: Mapping[str, float], metrics: Sequence[str]) -> Iterator[str]:
    """A dash where a system has none, such as a confidence of one that has no probabilities."""
    return (f"{100 * values[name]:.1f}" if name in values else "–" for name in metrics)


def markdown(report: HeadReport) -> str:
    """The whole report."""
    header, rows = table(report)
    lines = [f"# {report.title}", ""]
    lines += [_row(header), _row(["---", "---", *("---:" for _ in report.metrics)]), *map(_row, rows)]
    for name, detail in report.details.items():
        lines += ["", f"## {name}", "", "```", detail.to_text().rstrip(), "```"]
    if report.confusion is not None:
        lines += ["", "![Who was taken for whom](confusion.png)"]
    lines += ["", "## What was measured", ""]
    lines += [f"- {key}: {value}" for key, value in report.identity.items()]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def write(report: HeadReport, folder: Path) -> Path:
    """Write `report.md` and `report.json`, and of a classification `confusion.png`; the path of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {"schema": SCHEMA, **asdict(replace(report, confusion=None))}
    del found["confusion"]
    if report.confusion is not None:
        write_png([confusion_picture(report.confusion)], folder / "confusion.png")
    (folder / "report.json").write_text(json.dumps(found, ensure_ascii=False, indent=1), encoding="utf-8")
    path = folder / "report.md"
    path.write_text(markdown(report), encoding="utf-8")
    return path
