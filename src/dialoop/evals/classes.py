"""How well classes are told apart: precision, recall and F1 by class and on average, who was taken for whom,
and the same of whole spans.

Numbers are scikit-learn's and seqeval's; a class that nothing is taken for has precision 0.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ClassScore:
    """Of one class, or of an average over classes. support: rows that belong to it."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class ClassReport:
    """accuracy: share of rows that are right, which is also their micro-average over all classes.

    averages: micro (over the rows), macro (every class alike), weighted (by support).
    """

    accuracy: float
    classes: tuple[ClassScore, ...]
    averages: tuple[ClassScore, ...]

    def average(self, name: str) -> ClassScore:
        """`micro avg`, `macro avg` or `weighted avg`."""
        return next(each for each in self.averages if each.name == f"{name} avg")

    def to_text(self) -> str:
        """A table, as scikit-learn prints it."""
        width = max(len(each.name) for each in (*self.classes, *self.averages))
        head = f"{'':>{width}}  precision    recall  f1-score   support"
        rows = [
            f"{each.name:>{width}}  {each.precision:9.3f} {each.recall:9.3f} {each.f1:9.3f} {each.support:9d}"
            for each in (*self.classes, *self.averages)
        ]
        return "\n".join([head, "", *rows[: len(self.classes)], "", *rows[len(self.classes) :]]) + "\n"


def class_report(gold: Sequence[str], found: Sequence[str]) -> ClassReport:
    """The guide's classification report. gold, found: a class a row, of the same rows, one at least."""
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    names = sorted({*gold, *found})
    each = precision_recall_fscore_support(gold, found, labels=names, zero_division=0)
    averages = tuple(
        _average(precision_recall_fscore_support(gold, found, labels=names, average=kind, zero_division=0),
                 f"{kind} avg", len(gold))
        for kind in ("micro", "macro", "weighted")
    )  # fmt: skip
    return ClassReport(float(accuracy_score(gold, found)), _by_class(names, each), averages)


@dataclass(frozen=True, slots=True, eq=False)
class Confusion:
    """counts: (L, L), rows what was right and columns what was said."""

    labels: tuple[str, ...]
    counts: NDArray[np.int64]

    @property
    def shares(self) -> NDArray[np.float64]:
        """Counts over their row's sum; 0 where the row is empty."""
        return np.asarray(self.counts / np.maximum(self.counts.sum(1, keepdims=True), 1))

    def largest(self, most: int) -> Confusion:
        """The `most` labels with the largest support; the others' cases are left out."""
        places = np.sort(np.argsort(-self.counts.sum(1), kind="stable")[:most])
        return Confusion(tuple(self.labels[i] for i in places), self.counts[np.ix_(places, places)])


def confusion(gold: Sequence[str], found: Sequence[str]) -> Confusion:
    """gold, found: a class a row, of the same rows. Classes of either, sorted."""
    names = sorted({*gold, *found})
    places = {name: i for i, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(counts, ([places[g] for g in gold], [places[f] for f in found]), 1)
    return Confusion(tuple(names), counts)


def span_report(gold: Sequence[Sequence[str]], found: Sequence[Sequence[str]]) -> ClassReport:
    """Of whole spans, strict: a span counts where its ends and its kind are right. Tags in IOB2.

    accuracy: of the words' tags.
    """
    from seqeval.metrics import accuracy_score
    from seqeval.metrics.v1 import precision_recall_fscore_support
    from seqeval.scheme import IOB2

    names = sorted({tag[2:] for tags in (*gold, *found) for tag in tags if tag != "O"})
    given: dict[str, Any] = {"scheme": IOB2, "zero_division": 0}
    y = [list(tags) for tags in gold], [list(tags) for tags in found]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes without a span, which count as 0
        each = precision_recall_fscore_support(*y, average=None, **given)
        averages = {
            kind: precision_recall_fscore_support(*y, average=kind, **given)
            for kind in ("micro", "macro", "weighted")
        }
    support = int(sum(each[3]))
    rows = tuple(_average(values, f"{kind} avg", support) for kind, values in averages.items())
    return ClassReport(float(accuracy_score(*y)), _by_class(names, each), rows)


def _by_class(names: Sequence[str], columns: Any) -> tuple[ClassScore, ...]:
    rows = zip(names, *columns, strict=True)
    return tuple(ClassScore(n, float(p), float(r), float(f), int(s)) for n, p, r, f, s in rows)


def _average(values: Any, name: str, support: int) -> ClassScore:
    precision, recall, f1, _ = values
    return ClassScore(name, float(precision), float(recall), float(f1), support)
