"""Metrics of labels for the bootstrap: how many are right, and whether confidence can be believed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dialoop.errors import EvalError
from dialoop.evals.metrics import Metric, Stats, ratio, same_length
from dialoop.evals.words import normalised

OTHER = "(other)"
"""What an answer counts as that is none of the labels."""
BINS = 15


def label_of(answer: str, labels: Sequence[str]) -> str:
    """The label that an answer is, whatever its case, width and end stop; `(other)` where it is none."""
    known = {normalised(label): label for label in labels}
    return known.get(normalised(answer).rstrip(".。!！"), known.get(normalised(answer), OTHER))


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
    """Expected calibration error of the likeliest option, in percent (Guo et al. 2017, arXiv:1706.04599),
    `bins` of equal width. Of the options' log-probabilities, which are made to sum to 1.
    """

    def cases(scores: Sequence[Sequence[float]], grades: Sequence[Sequence[float]]) -> Stats:
        same_length(scores, grades)
        pairs = [_sure_and_right(*pair) for pair in zip(scores, grades, strict=True)]
        sure, right = np.array(pairs).T
        places = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
        found = np.zeros((len(sure), 1 + bins))
        found[:, 0] = 1
        found[np.arange(len(sure)), 1 + places] = right - sure
        return found

    def totals_to_scores(totals: Stats) -> Stats:
        return np.asarray(100 * np.abs(totals[..., 1:]).sum(-1) / np.maximum(totals[..., 0], 1))

    return Metric(
        "ECE", cases, totals_to_scores, f"bins:{bins}|width:equal", higher_is_better=False, reads="scores"
    )


def _sure_and_right(scores: Sequence[float], grades: Sequence[float]) -> tuple[float, float]:
    """The likeliest option's share of all probability, and 1 where it is right; of equal ones the share."""
    logs = np.asarray(scores, float)
    if len(logs) != len(grades) or not np.isfinite(logs).all():
        raise EvalError(f"{len(logs)} scores came for {len(grades)} options: give a finite one of each")
    best = logs == logs.max()
    return float(1 / np.exp(logs - logs.max()).sum()), float((np.asarray(grades)[best] > 0).mean())
