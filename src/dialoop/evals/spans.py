"""Spans in tagged tokens, strictly: a span counts where its type and both ends are right (IOB2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dialoop.data.spans import spans
from dialoop.errors import EvalError
from dialoop.evals.metrics import Metric, Stats, same_length


def span_f1() -> Metric:
    """Micro F1 of spans, in percent, as `seqeval` in its strict mode with IOB2; of sequences of tags."""

    def cases(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> Stats:
        same_length(predictions, references)
        return np.array([_counts(p, r) for p, r in zip(predictions, references, strict=True)], dtype=float)

    return Metric("span F1", cases, _f1, "mode:strict|scheme:IOB2|average:micro")


def written_spans() -> Metric:
    """The same of answers that are tags with spaces between; one of another length finds no span."""
    tagged = span_f1()

    def cases(predictions: Sequence[str], references: Sequence[str]) -> Stats:
        right = [text.split() for text in references]
        said = [text.split() for text in predictions]
        fitting = [s if len(s) == len(r) else ["O"] * len(r) for s, r in zip(said, right, strict=True)]
        return tagged.cases(fitting, right)

    return Metric("span F1", cases, _f1, tagged.signature)


def _counts(said: Sequence[str], right: Sequence[str]) -> tuple[int, int, int]:
    if len(said) != len(right):
        raise EvalError(f"{len(said)} tags came for {len(right)} tokens: give a tag for every token")
    found, wanted = spans(said), spans(right)
    return len(found & wanted), len(found), len(wanted)


def _f1(totals: Stats) -> Stats:
    both = totals[..., 1] + totals[..., 2]
    return np.asarray(np.where(both > 0, 200 * totals[..., 0] / np.where(both > 0, both, 1), 0.0))
