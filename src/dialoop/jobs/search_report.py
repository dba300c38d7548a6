"""What a search came to, as `search.html`, `search.md` and `search.png`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from dialoop.config import Choice, TuneRecipe
from dialoop.evals.messages import ReportLanguage
from dialoop.evals.pages import both, filled
from dialoop.evals.panels import Axis, Bars, bars, parallel
from dialoop.evals.png import write_png
from dialoop.jobs.search import Searched
from dialoop.jobs.search_words import words
from dialoop.jobs.shootout import METHODS, Contestant, contestants
from dialoop.train.search import Tried

UNLIKE = ("data.", "base", "objective", "train.mask", "train.max_length")
"""Fields that change what is validated on, or by which loss."""
SIDES = ("method", "rate", "loss", "perplexity", "trained", "share", "memory", "seconds", "speed")


@dataclass(frozen=True, slots=True)
class Written:
    """Paths of the three files; png is None where there is nothing to draw."""

    html: Path
    markdown: Path
    png: Path | None


def write_search(found: Searched, recipe: TuneRecipe, *, sides: bool = False) -> Written:
    """Write the report into the search's folder. sides: methods are compared."""
    shown = _Shown(found, recipe, contestants(found.trials) if sides else [])
    html, markdown = found.folder / "search.html", found.folder / "search.md"
    html.write_text(_page(shown), encoding="utf-8")
    markdown.write_text(_markdown(shown, "en"), encoding="utf-8")
    charts = [chart for chart in (shown.sides, shown.importance, shown.coordinates) if chart]
    return Written(html, markdown, write_png(charts, found.folder / "search.png") if charts else None)


class _Shown:
    """The parts of a report that both languages share."""

    def __init__(self, found: Searched, recipe: TuneRecipe, compared: Sequence[Contestant]) -> None:
        self.found, self.name, self.compared = found, recipe.name, compared
        self.imitates = recipe.objective.kind == "sft"
        self.space = recipe.search.space if recipe.search else {}
        self.fields = list(self.space)
        self.rows = [_row(trial, self.fields) for trial in found.trials]
        self.importance = _importance(found.importance)
        self.coordinates = Markup("") if compared else self._coordinates()
        self.sides = _sides(compared)
        self.recipe = found.recipe.read_text(encoding="utf-8") if found.recipe else ""

    def _coordinates(self) -> Markup:
        seen = [trial for trial in self.found.trials if trial.loss is not None]
        if len(seen) < 2:
            return Markup("")
        axes = [self._axis(field, seen) for field in self.fields]
        losses = Axis("validation loss", tuple(trial.loss for trial in seen))
        places = {
            number: i for i, number in enumerate(sorted(range(len(seen)), key=lambda i: _order(seen[i])))
        }
        ranks = [places[i] / (len(seen) - 1) for i in range(len(seen))]
        return parallel([*axes, losses], ranks, "parallel coordinates")

    def _axis(self, field: str, trials: Sequence[Tried]) -> Axis:
        varied = self.space[field]
        values = [trial.values.get(field) for trial in trials]
        named = isinstance(varied, Choice)
        shown = tuple(None if v is None else _text(v) if named else float(v) for v in values)
        return Axis(field, shown, log=not isinstance(varied, Choice) and varied.log)

    def headline(self, language: ReportLanguage) -> str:
        best = self.found.best
        if best is None or best.loss is None:
            return words("no_best", language)
        trials = len(self.found.trials)
        return words("best", language, number=best.number, trials=trials, loss=f"{best.loss:.4f}")

    def counts(self, language: ReportLanguage) -> str:
        outcomes = [trial.outcome for trial in self.found.trials]
        each = {name: outcomes.count(name) for name in ("completed", "stopped", "failed")}
        minutes = sum(trial.seconds for trial in self.found.trials) / 60
        return words("counts", language, minutes=f"{minutes:.1f}", **each)

    def unlike(self, language: ReportLanguage) -> str:
        fields = [field for field in self.fields if field.startswith(UNLIKE)]
        return words("unlike", language, fields=", ".join(fields)) if fields else ""


def _order(trial: Tried) -> tuple[bool, float]:
    """Whole trials before those that were stopped, by their loss."""
    return trial.outcome != "completed", math.inf if trial.loss is None else trial.loss


def _text(value: Any) -> str:
    """A value as a cell shows it; a table by its kind."""
    if isinstance(value, dict) and "kind" in value:
        return next((name for name, (method, _) in METHODS.items() if method == value), str(value["kind"]))
    if isinstance(value, float):
        return f"{value:.3g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _row(trial: Tried, fields: Sequence[str]) -> dict[str, Any]:
    values = [_text(trial.values[field]) if field in trial.values else "" for field in fields]
    loss = "" if trial.loss is None else f"{trial.loss:.4f}"
    cells = [str(trial.number), *values, loss, str(len(trial.curve)), f"{trial.seconds:.1f}"]
    return {"cells": cells, "outcome": trial.outcome, "error": trial.error}


def _importance(importance: dict[str, float]) -> Markup:
    if not importance:
        return Markup("")
    panel = Bars("importance", tuple(importance.values()), tuple(f"{v:.0%}" for v in importance.values()))
    return bars(list(importance), [panel], "importance")


def _sides(compared: Sequence[Contestant]) -> Markup:
    """The picture of a shoot-out: what was reached, and what it took."""
    best = [each.best for each in compared]
    if not any(best):
        return Markup("")

    def panel(title: str, value: Any, text: str, log: bool = False) -> Bars:
        values = tuple(None if trial is None else float(value(trial)) for trial in best)
        return Bars(title, values, tuple("" if v is None else text.format(v) for v in values), log)

    panels = [
        panel("validation loss", lambda trial: trial.loss, "{:.3f}"),
        panel("trained weights", lambda trial: trial.trained, "{:,.0f}", log=True),
        panel("peak memory, MB", lambda trial: trial.memory / 1e6, "{:,.0f}"),
        panel("seconds", lambda trial: trial.seconds, "{:,.1f}"),
    ]
    return bars([each.name for each in compared], panels, "methods side by side")


def _side(each: Contestant, imitates: bool) -> list[str]:
    best = each.best
    if best is None or best.loss is None:
        return [each.name, *[""] * (len(SIDES) - 1)]
    return [
        each.name, f"{best.values['optim.learning_rate']:.0e}", f"{best.loss:.4f}",
        f"{math.exp(best.loss):.2f}" if imitates else "",
        f"{best.trained:,}", f"{best.trained / best.weights:.2%}", f"{best.memory / 1e6:,.0f} MB",
        f"{best.seconds:.1f}", f"{best.tokens / max(best.seconds, 1e-9):,.0f}",
    ]  # fmt: skip


def _how(shown: _Shown, language: ReportLanguage) -> str:
    return words("shootout_how", language, rates=max((each.trials for each in shown.compared), default=0))


def _page(shown: _Shown) -> str:
    sides = {
        "rows": [_side(each, shown.imitates) for each in shown.compared],
        "header": SIDES,
        "chart": shown.sides,
    }
    return filled(
        "search.html", name=shown.name, t=lambda key: both(lambda c: words(key, c)),
        headline=both(shown.headline), counts=both(shown.counts),
        unlike=both(shown.unlike) if shown.unlike("en") else "",
        sides={**sides, "how": both(lambda code: _how(shown, code))}, importance=shown.importance,
        coordinates=shown.coordinates, fields=shown.fields, rows=shown.rows, recipe=shown.recipe,
    )  # fmt: skip


def _markdown(shown: _Shown, language: ReportLanguage) -> str:
    parts = [f"# {shown.name}: {shown.headline(language)}", shown.counts(language), shown.unlike(language)]
    if shown.compared:
        header = [words(key, language) for key in SIDES]
        parts += [f"## {words('shootout', language)}", _how(shown, language)]
        parts.append(_table(header, [_side(each, shown.imitates) for each in shown.compared]))
    if shown.found.importance:
        listed = [f"- `{field}`: {share:.0%}" for field, share in shown.found.importance.items()]
        parts += [f"## {words('importance', language)}", "\n".join(listed)]
    header = [words("trial", language), *shown.fields]
    header += [words(key, language) for key in ("loss", "validations", "seconds", "outcome")]
    rows = [[*row["cells"], words(row["outcome"], language)] for row in shown.rows]
    parts += [f"## {words('table', language)}", _table(header, rows)]
    if shown.recipe:
        parts += [f"## {words('recipe', language)}", f"```toml\n{shown.recipe}```"]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
