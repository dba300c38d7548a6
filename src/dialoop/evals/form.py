"""What answers are like, whatever they say: JSON or none, refusals, repetition."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dialoop.evals.grams import repeats
from dialoop.evals.loops import LEAST, loops
from dialoop.evals.metrics import Metric, Stats, ratio, same_length
from dialoop.evals.words import coded_words

_REFUSAL = re.compile(
    r"\bi(?:'m| am) (?:sorry|afraid|unable|not able)|\bi (?:can(?:not| not|'t)|won't|will not|must decline)\b"
    r"|\b(?:can(?:not| not|'t)|unable to|won't) (?:help|assist|provide|comply|fulfil)"
    r"|\bagainst (?:my|the|our) (?:policy|policies|guidelines)|抱歉|对不起|很遗憾"
    r"|(?:无法|不能|不可以|不便|拒绝)(?:[为向]您|[为向]你)?(?:提供|协助|帮助|回答|满足|讨论|透露|告诉)"
)
_HEAD = 160
"""Characters in which an answer that refuses says so."""


def refuses(answer: str) -> bool:
    """Whether an answer says, in English or Chinese, that it will not do what was asked."""
    return _REFUSAL.search(answer[:_HEAD].lower().replace("’", "'")) is not None


def right_refusals() -> Metric:
    """Share of answers that refuse where the reference does and nowhere else, in percent."""
    return _share("right refusals", lambda said, right: refuses(said) == refuses(right), "rules:1")


def refusals() -> Metric:
    """Share of answers that refuse, in percent."""
    return _share("refusals", lambda said, right: refuses(said), "rules:1", good=None)


def valid_json() -> Metric:
    """Share of answers that are JSON from end to end, in percent."""
    return _share("valid JSON", lambda said, right: parsed(said) is not None, "parser:python")


def equal_json() -> Metric:
    """Share of answers that are the reference's JSON value, order of keys aside, in percent."""

    def equal(said: str, right: str) -> bool:
        value = parsed(said)
        return value is not None and value == parsed(right)

    return _share("equal JSON", equal, "parser:python")


def parsed(text: str) -> tuple[Any] | None:
    """The JSON value of the whole text, in a tuple; None where it is none (NaN is none)."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        return (json.loads(text, parse_constant=refuse),)
    except (ValueError, RecursionError):
        return None


def endless() -> Metric:
    """Share of answers that repeat themselves without end, in percent."""

    def cases(predictions: Sequence[str], references: Sequence[str]) -> Stats:
        same_length(predictions, references)
        said, _ = coded_words(predictions, references)
        found = np.column_stack([np.zeros(len(predictions)), np.ones(len(predictions))])
        for i in np.flatnonzero(repeats(said, LEAST)).tolist():
            found[i, 0] = 100.0 * loops(predictions[i])
        return found

    signature = "unit:4-words-or-6-characters"
    return Metric("endless", cases, ratio, signature, higher_is_better=False, binary=True)


def _share(
    name: str, holds: Callable[[str, str], bool], signature: str, *, good: bool | None = True
) -> Metric:
    """Percent of the cases in which `holds(answer, reference)`."""

    def cases(predictions: Sequence[str], references: Sequence[str]) -> Stats:
        same_length(predictions, references)
        pairs = zip(predictions, references, strict=True)
        return np.array([[100.0 * holds(p, r), 1.0] for p, r in pairs])

    return Metric(name, cases, ratio, signature, higher_is_better=good, binary=True)
