"""Reading two arms at every look: rarely wrong where they are alike, right where they are not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dialoop.errors import EvalError
from dialoop.evals.sequential import FEWEST, Arm, parted_by_chance, read


def arms(seed: int, users: int, rates: tuple[float, float]) -> tuple[Arm, Arm]:
    draw = np.random.default_rng(seed)
    first, second = (tuple((draw.random(users) < rate).astype(float)) for rate in rates)
    return Arm("A", first), Arm("B", second)


def decided(seed: int, users: int, rates: tuple[float, float], every: int) -> bool:
    """Whether any look says that the arms differ."""
    control, arm = arms(seed, users, rates)
    looks = range(FEWEST, users + 1, every)
    return any(
        read(Arm("A", control.values[:n]), Arm("B", arm.values[:n])).found in ("better", "worse")
        for n in looks
    )


def test_arms_that_are_alike_are_rarely_told_apart_however_often_one_looks() -> None:
    wrong = sum(decided(seed, 800, (0.5, 0.5), 10) for seed in range(200))
    assert wrong <= 10  # 5 %


def test_a_difference_is_found_and_its_interval_is_where_p_is_one_in_twenty() -> None:
    control, arm = arms(1, 3000, (0.4, 0.5))
    found = read(control, arm)
    assert found.found == "better"
    assert found.low < 0.1 < found.high
    assert found.p < 0.05
    assert read(arm, control).found == "worse"
    assert "B is better than A: +0." in found.words()
    assert "优于" in found.words("zh")


def test_p_and_interval_agree() -> None:
    for seed in range(30):
        found = read(*arms(seed, 300, (0.4, 0.5)))
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


def test_few_users_tell_nothing_and_more_are_asked_for() -> None:
    few = read(*arms(0, FEWEST - 1, (0.0, 1.0)))
    assert (few.found, few.p) == ("few", 1.0)
    assert math.isinf(few.high)
    assert f"at least {FEWEST}" in few.words()
    close = read(*arms(3, 200, (0.45, 0.5)))
    assert close.found == "unclear"
    assert close.needed is None or close.needed > 400
    assert read(Arm("A", (1.0,) * 50), Arm("B", (0.0,) * 50)).found == "unclear"


def test_a_value_that_is_no_number_is_refused() -> None:
    with pytest.raises(EvalError, match="not finite"):
        read(Arm("A", (math.nan,) * 30), Arm("B", (1.0,) * 30))


def test_arms_of_other_sizes_than_their_weights_are_noticed() -> None:
    assert parted_by_chance([500, 480], [1, 1]) > 0.01
    assert parted_by_chance([500, 300], [1, 1]) < 0.001
    assert parted_by_chance([900, 100], [9, 1]) > 0.5
    assert parted_by_chance([0, 0], [1, 1]) == 1
