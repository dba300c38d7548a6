"""Which of ten answers fits a history: a scorer beside BM25 and a decoder's P(A|H)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quality_work import WAYS, Bench, decoder, share, show

from dialoop.evals.baselines import bm25_ranking
from dialoop.evals.compare import compare
from dialoop.evals.head_report import by_language
from dialoop.evals.metrics import Stats
from dialoop.evals.ranking import recall_at
from dialoop.jobs.choices import Choices, choices_of

ANSWERS = ("pair",)
BASELINES = {"bm25": "BM25", "likelihood": "shipped decoder, P(A|H)"}
HEADER = ("rows", "contestant", "recall@1, 95 %", "against BM25, 95 %", "against P(A|H), 95 %", "minutes")


def answers(bench: Bench, sets: Sequence[str]) -> None:
    """Teach, ask and print, by language."""
    for name in sets:
        _set(bench, name)


def _set(bench: Bench, name: str) -> None:
    dataset = bench.rows(name)
    recipe: Any = bench.recipe(name)
    choices = choices_of(recipe, dataset.test)
    seen = [row.answer for row in dataset.train]
    found = {
        BASELINES["bm25"]: bench.kept(name, "bm25", lambda: {"answers": bm25_ranking(seen, *choices.texts)}),
        BASELINES["likelihood"]: bench.kept(
            name, "likelihood", lambda: {"answers": choices.by_likelihood(decoder(bench.work))}
        ),
    }
    for way in bench.ways:

        def ask(way: str = way) -> dict[str, Any]:
            model, told = bench.taught(name, way, dataset)
            return {"answers": choices.by_head(model), **told}

        found[WAYS[way].title] = bench.kept(name, way, ask)
    print(f"{name}: {len(dataset.train)} answers to train on, split {dataset.split_rule}")
    show(f"Which of {recipe.candidates} answers fits", HEADER, _rows(found, choices))


def _rows(found: dict[str, dict[str, Any]], choices: Choices) -> list[list[str]]:
    metric, rows = recall_at(1), []
    hits = {name: metric.cases(one["answers"], choices.grades) for name, one in found.items()}
    groups = [str(row.history.metadata.get("id")) for row in choices.rows]
    for language, places in by_language(choices.languages).items():
        for name, one in found.items():
            changes = [
                "" if name == other else _change(hits[other][places], hits[name][places], groups, places)
                for other in BASELINES.values()
            ]
            right = (hits[name][places, 0] > 0).tolist()
            rows.append(
                [f"{language} ({len(places)})", name, share(right), *changes, f"{one['minutes']:.1f}"]
            )
    return rows


def _change(before: Stats, after: Stats, groups: Sequence[str], places: Sequence[int]) -> str:
    """Of recall@1, dialogues resampled whole."""
    change = compare(recall_at(1), before, after, groups=[groups[i] for i in places])
    return f"{change.signed(change.delta)} {change.interval}"
