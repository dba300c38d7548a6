"""Every shipped recipe on the shipped rows begins: ten updates of each, on a copy in memory."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from dialoop.config import LoraMethod, TuneRecipe, load_any
from dialoop.config.kinds import KINDS
from dialoop.jobs.dry_run import dry_run
from dialoop.models.load import load_model
from dialoop.models.method import method_of
from dialoop.store.registry import Store
from dialoop.store.shipped import SHIPPED

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
FOLDER = Path(__file__).parents[2] / "src/dialoop/assets/recipes"
LOADED = {path.stem: load_any(path, KINDS) for path in sorted(FOLDER.glob("*.toml"))}
TUNED = {
    name: recipe
    for name, recipe in LOADED.items()
    if isinstance(recipe, TuneRecipe) and all(each.startswith("sample:") for each in recipe.data.sources)
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a model `shop`, as `dialoop tune quickstart` leaves one: an adapter."""
    home = tmp_path_factory.mktemp("home")
    with Store.open(home) as store:
        ref = store.models.resolve(SHIPPED)
        made = method_of(LoraMethod(rank=4)).attach(load_model(ref), ref, seed=0).save(home / "adapter")
        assert made.adapter is not None
        store.models.register("shop", "lora", made.adapter, base=SHIPPED)
    return home


@pytest.mark.parametrize("name", TUNED)
def test_a_shipped_recipe_begins(name: str, home: Path) -> None:
    outlook = dry_run(TUNED[name], home, samples=1)
    assert outlook.samples
    assert math.isfinite(outlook.estimate.seconds)
    assert 0 < outlook.estimate.trained <= outlook.estimate.weights
