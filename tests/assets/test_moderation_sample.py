"""The shipped moderation sample: what its generator makes, in both languages, by category."""

from __future__ import annotations

import importlib
import json
import sys
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Any

from dialoop.config import load_recipe
from dialoop.config.heads import ClassifyRecipe
from dialoop.data.head_dataset import load_head_dataset
from dialoop.data.head_rows import LABELLED
from dialoop.safety.categories import CATEGORIES

ROOT = Path(__file__).parents[2]
SAMPLE = Path(str(resources.files("dialoop.assets") / "samples" / "moderation.jsonl"))


def generator() -> Any:
    folder = str(ROOT / "tools" / "samples")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("moderation")
    finally:
        sys.path.remove(folder)


def test_the_shipped_file_is_byte_for_byte_what_the_generator_makes() -> None:
    same = generator().jsonl().encode() == SAMPLE.read_bytes()
    assert same, "run `python tools/samples/moderation.py` and commit what it writes"


def test_its_labels_are_categories_and_one_that_is_none() -> None:
    rows = [json.loads(line) for line in SAMPLE.read_text(encoding="utf-8").splitlines()]
    labels = Counter((row["label"], row["metadata"]["language"]) for row in rows)
    assert {label for label, _ in labels} - set(CATEGORIES) == {"none"}
    assert all(labels[label, language] >= 15 for label, _ in labels for language in ("en", "zh"))
    assert len({row["text"] for row in rows}) == len(rows)


def test_the_recipe_tests_on_lines_that_it_does_not_train_on(tmp_path: Path) -> None:
    recipe = load_recipe(ROOT / "recipes" / "moderation.toml", ClassifyRecipe)
    found = load_head_dataset(recipe.data, LABELLED, scratch=tmp_path)
    parts = [{row.metadata["scenario"] for row in part} for part in (found.train, found.valid, found.test)]
    assert all(parts)
    assert not parts[0] & parts[2]
    assert {row.label for row in found.test} == {row.label for row in found.train}
