"""Classification: a report by label, who was taken for whom, and whether confidence can be believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dialoop.errors import EvalError
from dialoop.evals.classes import ClassScore
from dialoop.evals.metrics import Metric, Stats, ratio, same_length
from dialoop.evals.words import normalised

OTHER = "(other)"
"""What an answer counts as that is none of the labels."""
BINS = 15


@dataclass(frozen=True, slots=True, eq=False)
class Confusion:
    """counts: (L, L), rows what was right and columns what was said."""

    labels: tuple[str, ...]
    counts: NDArray[np.int64]

    @property
    def shares(self) -> NDArray[np.float64]:
        """Counts over their row's sum; 0 where the row is empty."""
        return np.asarray(self.counts / np.maximum(self.counts.sum(1, keepdims=True), 1))

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return float(np.trace(self.counts) / max(self.counts.sum(), 1))

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the labels that are right or were said somewhere."""
        seen = (self.counts.sum(0) + self.counts.sum(1)) > 0
        f1 = [each.f1 for each, here in zip(self.report(), seen, strict=True) if here]
        return float(np.mean(f1)) if f1 else 0.0

    def report(self) -> tuple[ClassScore, ...]:
        """Each label's precision, recall and F1; 0 where they are not defined."""
        right, said, true = np.diag(self.counts), self.counts.sum(0), self.counts.sum(1)
        precision, recall = right / np.maximum(said, 1), right / np.maximum(true, 1)
        f1 = 2 * right / np.maximum(said + true, 1)
        return tuple(
            ClassScore(label, float(precision[i]), float(recall[i]), float(f1[i]), int(true[i]))
            for i, label in enumerate(self.labels)
        )

    def largest(self, most: int) -> Confusion:
        """The `most` labels with the largest support; the others' cases are left out."""
        places = np.sort(np.argsort(-self.counts.sum(1), kind="stable")[:most])
        return Confusion(tuple(self.labels[i] for i in places), self.counts[np.ix_(places, places)])


def label_of(answer: str, labels: Sequence[str]) -> str:
    """The label that an answer is, whatever its case, width and end stop; `(other)` where it is none."""
    known = {normalised(label): label for label in labels}
    return known.get(normalised(answer).rstrip(".。!！"), known.get(normalised(answer), OTHER))


def confusion(predictions: Sequence[str], references: Sequence[str]) -> Confusion:
    """Labels are those of the references, sorted, and `(other)` where something else was said."""
    same_length(predictions, references)
    labels = sorted(set(references))
    said = [label_of(answer, labels) for answer in predictions]
    names = (*labels, *([OTHER] if OTHER in said and OTHER not in labels else []))
    places = {name: i for i, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(counts, ([places[r] for r in references], [places[s] for s in said]), 1)
    return Confusion(names, counts)


def accuracy() -> Metric:
    """Share of answers that are the right label, in percent."""

    def cases(predictions: Sequence[str], references: Sequence[str]) -> Stats:
        same_length(predictions, references)
        labels = sorted(set(references))
        pairs = zip(predictions, references, strict=True)
        return np.array([[100.0 * (label_of(p, labels) == r), 1.0] for p, r in pairs])

    return Metric("accuracy", cases, ratio, "norm:nfkc+casefold+space+stop", binary=True)


def macro_f1(labels: Sequence[str]) -> Metric:
    """Mean F1 of the labels, in percent; answers that are no label count against the right one alone."""
    names = sorted(set(labels))
    places = {name: i for i, name in enumerate(names)}

    def cases(predictions: Sequence[str], references: Sequence[str]) -> Stats:
        same_length(predictions, references)
        counts = np.zeros((len(predictions), 3, len(names)))
        for i, (said, right) in enumerate(zip(predictions, references, strict=True)):
            label = label_of(said, names)
            counts[i, 0, places[right]] += label == right
            counts[i, 1, places[right]] += 1
            if label in places:
                counts[i, 2, places[label]] += 1
        return counts.reshape(len(predictions), -1)

    return Metric("macro F1", cases, _mean_f1, f"labels:{len(names)}|average:macro")


def _mean_f1(totals: Stats) -> Stats:
    """(..., 3 L) sums of hits, right and said -> (...) mean over labels that occur."""
    hits, right, said = np.moveaxis(totals.reshape(*totals.shape[:-1], 3, -1), -2, 0)
    seen = (right + said) > 0
    f1 = 2 * hits / np.where(seen, right + said, 1)
    return np.asarray(100 * (f1 * seen).sum(-1) / np.maximum(seen.sum(-1), 1))


def calibration_error(bins: int = BINS) -> Metric:
    """Expected calibration error, in percent (Guo et al. 2017, arXiv:1706.04599), `bins` of equal width.

    Of (confidences from 0 to 1, whether right).
    """

    def cases(confidences: Sequence[float], right: Sequence[bool]) -> Stats:
        same_length(confidences, right)
        sure = np.asarray(confidences, float)
        if not ((sure >= 0) & (sure <= 1)).all():
            raise EvalError("a confidence is not from 0 to 1: give probabilities")
        places = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
        found = np.zeros((len(sure), 1 + bins))
        found[:, 0] = 1
        found[np.arange(len(sure)), 1 + places] = np.asarray(right, float) - sure
        return found

    def scores(totals: Stats) -> Stats:
        return np.asarray(100 * np.abs(totals[..., 1:]).sum(-1) / np.maximum(totals[..., 0], 1))

    return Metric("ECE", cases, scores, f"bins:{bins}|width:equal", higher_is_better=False)
