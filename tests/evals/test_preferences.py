"""Which answer is preferred, before and after: by token for the share, by whole answers for the margin."""

from __future__ import annotations

import pytest

from dialoop.errors import EvalError
from dialoop.evals.preferences import preference_accuracy, preference_margin, preference_rows
from dialoop.types import Conversation, Message, Preference

CHOSEN, REJECTED = [(-30.0, 10), (-4.0, 2), (-9.0, 3)], [(-8.0, 2), (-3.0, 2), (-9.0, 3)]


def pair(i: int) -> Preference:
    language = ("en", "zh")[i % 2]
    history = Conversation(
        (Message("user", f"q{i}"),), metadata={"language": language, "scenario": f"s{i // 2}"}
    )
    return Preference(history, Message("assistant", "good"), Message("assistant", "bad"))


def test_the_share_goes_by_token_and_the_margin_by_the_whole_answer() -> None:
    assert preference_accuracy().value(CHOSEN, REJECTED) == pytest.approx(100 / 3)
    assert preference_margin().value(CHOSEN, REJECTED) == pytest.approx((-22 - 1 + 0) / 3)
    with pytest.raises(EvalError):
        preference_margin().value(CHOSEN, REJECTED[:1])


def test_rows_are_given_by_language_with_whole_groups_resampled() -> None:
    pairs = [pair(i) for i in range(40)]
    before = [((-10.0 - i % 3, 4), (-9.0, 4)) for i in range(40)]
    after = [((-8.0 - i % 3, 4), (-9.5, 4)) for i in range(40)]
    rows = preference_rows(pairs, before, after, resamples=300)
    assert [(row.language, row.change.metric) for row in rows] == [
        (language, f"preference {what}")
        for language in ("en", "zh", "all")
        for what in ("accuracy", "margin")
    ]
    margin = rows[-1].change
    assert margin.delta == pytest.approx(2.5)
    assert (margin.low, margin.high) == (pytest.approx(2.5), pytest.approx(2.5))
    assert margin.verdict == "better"
    assert (margin.cases, margin.groups) == (40, 20)
    accuracy = rows[-2].change
    assert (accuracy.before, accuracy.after) == (0.0, pytest.approx(100 * 27 / 40))
    assert accuracy.low > 0
