"""Recipes: TOML in, frozen settings out, and errors that name the right key."""

from __future__ import annotations

from pathlib import Path

import pytest

from dialoop.config import (
    FullMethod,
    LoraMethod,
    PretrainRecipe,
    TuneRecipe,
    apply_override,
    expand,
    load_any,
    load_recipe,
    validate,
)
from dialoop.config.explaining import explain
from dialoop.config.kinds import TUNED
from dialoop.errors import ConfigError

MINIMAL = 'kind = "tune"\nname = "shop"\n[data]\nsources = ["sample:en"]\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_minimal_recipe_is_filled_with_defaults(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, MINIMAL), TuneRecipe)
    assert recipe.base == "dialoop-base"
    assert recipe.method == LoraMethod()
    assert recipe.train.mask == "assistant"


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("train.epochs=2", ("train", "epochs"), 2.0),
        ("base=/models/tiny", ("base",), "/models/tiny"),
        ('data.sources=["sample:zh"]', ("data", "sources"), ("sample:zh",)),
        ("optim.schedule=linear", ("optim", "schedule"), "linear"),
        ("eval.seed = 7", ("eval", "seed"), 7),
    ],
)
def test_any_field_can_be_overridden(
    tmp_path: Path, override: str, path: tuple[str, ...], value: object
) -> None:
    found: object = load_recipe(write(tmp_path, MINIMAL), TuneRecipe, [override])
    for name in path:
        found = getattr(found, name)
    assert found == value


def test_the_method_is_chosen_by_its_kind(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, MINIMAL), TuneRecipe, ['method={kind="full"}'])
    assert recipe.method == FullMethod()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trian.epochs=2", "unknown key 'trian'; did you mean 'train'?"),
        ("train.epoch=2", "unknown key 'train.epoch'; did you mean 'epochs'?"),
        ("method.rnak=2", "unknown key 'method.lora.rnak'; did you mean 'rank'?"),
        ("data.clean.setps=[]", "unknown key 'data.clean.setps'; did you mean 'steps'?"),
        ("train.epochs=0", "train.epochs = 0: Input should be greater than 0"),
        ("name=Big Shop", "name = 'Big Shop'"),
        ("train.mask=none", "train.mask = 'none': Input should be 'assistant', 'last' or 'all'"),
    ],
)
def test_a_wrong_field_is_named_with_what_would_be_right(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_recipe(write(tmp_path, MINIMAL), TuneRecipe, [override])
    assert message in str(error.value)


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="key 'data' is missing"):
        load_recipe(write(tmp_path, 'kind = "tune"\nname = "x"\n'), TuneRecipe)


def test_a_file_that_is_not_toml_says_where(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"not TOML.*line 1"):
        load_recipe(write(tmp_path, "name: shop\n"), TuneRecipe)


def test_settings_cannot_be_changed() -> None:
    recipe = validate(TuneRecipe, {"name": "x", "data": {"sources": ["sample:en"]}}, "here")
    with pytest.raises(ValueError, match="frozen"):
        recipe.name = "y"  # type: ignore[misc]


def test_an_override_of_a_value_as_a_table_is_refused() -> None:
    with pytest.raises(ConfigError, match="'name' is 'x', not a table"):
        apply_override({"name": "x"}, "name.first=y")


def test_an_override_without_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected a\.b=value"):
        apply_override({}, "train.epochs")


def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIALOOP_NOWHERE", raising=False)
    with pytest.raises(ConfigError, match="variable DIALOOP_NOWHERE is not set"):
        expand("${DIALOOP_NOWHERE}/x.jsonl")


def test_a_secret_long_value_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load_recipe(write(tmp_path, MINIMAL), TuneRecipe, [f"name={'S' * 100}"])
    assert "S" * 65 not in str(error.value)


def test_every_field_of_a_recipe_says_what_it_means() -> None:
    for kind in (TuneRecipe, PretrainRecipe):
        waiting = [""]
        while waiting:
            path = waiting.pop()
            for _, about, fields in explain(kind, path):
                assert about or len(fields) == 1
                assert all(field.meaning for field in fields), path
                waiting += [field.path for field in fields if field.takes == "table" and field.path != path]


def test_a_choice_is_explained_member_by_member() -> None:
    tables = list(explain(TuneRecipe, "method"))
    kinds = {field.default for _, _, fields in tables for field in fields if field.path == "method.kind"}
    assert {'"lora"', '"bottleneck"', '"p-tuning-v2"', '"full"'} <= kinds
    (field,) = next(explain(TuneRecipe, "method.rank"))[2]
    assert (field.takes, field.default) == ("int, >= 1", "16")
    with pytest.raises(ConfigError, match=r"'method.rnak' is no field of a recipe; did you mean 'rank'"):
        list(explain(TuneRecipe, "method.rnak"))


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"kind": "freeze"}, "layers' is missing"),
        ({"kind": "prompt", "init": "text"}, "text go together"),
        ({"kind": "full", "base_precision": "int8"}, "unknown key"),
        ({"kind": "bottleneck", "placement": "below"}, "'houlsby', 'pfeiffer' or 'parallel'"),
    ],
)
def test_a_method_that_cannot_be_is_refused(method: dict[str, object], message: str) -> None:
    table = {"name": "shop", "data": {"sources": ["sample:en"]}, "method": method}
    with pytest.raises(ConfigError, match=message):
        validate(TuneRecipe, table, "recipe")


@pytest.mark.parametrize("kind", list(TUNED))
def test_a_recipe_is_of_the_kind_that_it_names(kind: str, tmp_path: Path) -> None:
    recipe = load_any(write(tmp_path, MINIMAL.replace('"tune"', f'"{kind}"')), TUNED)
    assert type(recipe) is TUNED[kind]


def test_a_kind_that_does_not_exist_is_told_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"kind = 'clasify'; did you mean 'classify'"):
        load_any(write(tmp_path, MINIMAL.replace('"tune"', '"clasify"')), TUNED)


def test_an_architecture_without_a_family_is_a_decoder() -> None:
    table = {"name": "x", "sources": {"a": {"path": "a.jsonl"}}, "architecture": {"layers": 2},
             "stages": [{"name": "s", "sources": ["a"], "tokens": 5}]}  # fmt: skip
    assert validate(PretrainRecipe, table, "recipe").architecture.family == "qwen3"
    table["architecture"] = {"family": "modernbert", "kv_heads": 2}
    with pytest.raises(ConfigError, match=r"unknown key 'architecture\.modernbert\.kv_heads'"):
        validate(PretrainRecipe, table, "recipe")


def test_a_recipe_says_only_what_it_has_otherwise_than_the_one_it_extends(tmp_path: Path) -> None:
    (tmp_path / "below.toml").write_text(
        f'{MINIMAL}[method]\nkind = "lora"\nrank = 3\n[train]\nepochs = 7\nseed = 5\n', encoding="utf-8"
    )
    path = write(tmp_path, 'extends = "below"\n[method]\nkind = "bitfit"\n[train]\nseed = 6\n')
    recipe = load_recipe(path, TuneRecipe, ["train.max_length=64"])
    assert (recipe.name, recipe.method.kind) == ("shop", "bitfit")
    assert (recipe.train.epochs, recipe.train.seed, recipe.train.max_length) == (7, 6, 64)
    same = load_recipe(write(tmp_path, 'extends = "below"\n[method]\nalpha = 4\n'), TuneRecipe)
    assert same.method == LoraMethod(rank=3, alpha=4)


def test_recipes_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    (tmp_path / "below.toml").write_text('extends = "recipe"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="which extends this one"):
        load_recipe(write(tmp_path, 'extends = "below"\n'), TuneRecipe)
    with pytest.raises(ConfigError, match="no such recipe"):
        load_recipe(write(tmp_path, 'extends = "nothing"\n'), TuneRecipe)
