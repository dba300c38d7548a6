"""The shipped preferences: read whole, clean, balanced, and different in what they prefer."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from dialoop.config import TuneRecipe, load_recipe
from dialoop.data.dataset import load_preferences
from dialoop.types import Preference

RECIPE = Path(__file__).parents[2] / "recipes" / "preference.toml"


def test_the_sample_is_clean_balanced_and_split_by_whole_scenarios(tmp_path: Path) -> None:
    found = load_preferences(load_recipe(RECIPE, TuneRecipe).data, scratch=tmp_path)
    assert found.report.kept == found.report.rows == 52
    assert not [step for step in found.report.steps if step.changed or step.removed]
    parts = (found.train, found.valid, found.test)
    assert [len(part) for part in parts] == [28, 4, 20]
    rows: list[Preference] = [row for part in parts for row in part]
    assert Counter(row.metadata["language"] for row in rows) == {"en": 26, "zh": 26}
    assert set(Counter(row.metadata["scenario"] for row in rows).values()) == {4}
    assert all(row.chosen.content != row.rejected.content for row in rows)
    assert len({row.history.messages for row in rows}) == 52
