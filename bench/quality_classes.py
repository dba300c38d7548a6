"""Classes of texts: three ways of a head beside TF-IDF with a logistic regression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quality_work import WAYS, Bench, share, show

from dialoop.evals.baselines import majority, tfidf_regression
from dialoop.evals.classes import class_report
from dialoop.evals.compare import compare
from dialoop.evals.metrics import exact_match

CLASSES = ("banking77", "clinc150", "dbpedia14", "twitter-finance", "fin-eva")
BASELINE = "TF-IDF + logistic regression"
HEADER = (
    "set",
    "contestant",
    "accuracy, 95 %",
    "macro F1",
    "against TF-IDF + LR, 95 %",
    "p",
    "weights",
    "minutes",
)


def classes(bench: Bench, sets: Sequence[str]) -> None:
    """Teach, ask and print."""
    rows, better = [], []
    for name in sets:
        found, gold = _contestants(bench, name)
        rows += _rows(name, found, gold)
        better += [name] if _beaten(found, gold) else []
    show("Classes of texts", HEADER, rows)
    print(
        f"\nThe best head is above {BASELINE} on {len(better)} of {len(sets)}: {', '.join(better) or 'none'}."
    )


def _contestants(bench: Bench, name: str) -> tuple[dict[str, dict[str, Any]], list[str]]:
    dataset = bench.rows(name)
    texts, gold = [row.text for row in dataset.test], [row.label for row in dataset.test]
    found = {
        "commonest class": {"answers": majority(dataset.train, len(gold))},
        BASELINE: bench.kept(name, "tfidf", lambda: {"answers": tfidf_regression(dataset.train, texts)}),
    }
    for way in bench.ways:

        def ask(way: str = way) -> dict[str, Any]:
            model, told = bench.taught(name, way, dataset)
            return {"answers": model.labels_for(texts), **told}

        found[WAYS[way].title] = bench.kept(name, way, ask)
    print(
        f"{name}: {len(dataset.train)} rows to train on, {len(dataset.valid)} to validate, {len(gold)} to "
        f"test, {len(set(gold))} classes; split {dataset.split_rule}"
    )
    return found, gold


def _rows(name: str, found: dict[str, dict[str, Any]], gold: list[str]) -> list[list[str]]:
    metric, first = exact_match(), found[BASELINE]["answers"]
    rows = []
    for contestant, one in found.items():
        said = one["answers"]
        told = ["", ""]
        if contestant not in (BASELINE, "commonest class"):
            change = compare(metric, metric.cases(first, gold), metric.cases(said, gold))
            told = [f"{change.signed(change.delta)} {change.interval}", f"{change.p:.2g}"]
        rows.append([
            f"{name} ({len(gold)})", contestant, share([a == b for a, b in zip(said, gold, strict=True)]),
            f"{100 * class_report(gold, said).average('macro').f1:.1f}", *told,
            f"{one['trained']:,}" if "trained" in one else "",
            f"{one['minutes']:.1f}" if "minutes" in one else "",
        ])  # fmt: skip
    return rows


def _beaten(found: dict[str, dict[str, Any]], gold: list[str]) -> bool:
    """Whether a head has more right than the baseline."""
    right = {
        name: sum(a == b for a, b in zip(one["answers"], gold, strict=True)) for name, one in found.items()
    }
    heads = [right[way.title] for way in WAYS.values() if way.title in right]
    return bool(heads) and max(heads) > right[BASELINE]
