"""`dialoop models` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dialoop.cli.models import app, flat, headline
from dialoop.errors import ConfigError, DialoopError, ModelError, StoreError
from dialoop.store.registry import Store
from tests.store.test_registry import adapter
from tests.tiny import tiny_model


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Holds shop@1 and shop@2."""
    with Store.open(tmp_path / "home") as store:
        run = store.runs.start("tune", {}, {})
        store.models.register("shop", "pretrained", tiny_model(), metrics={"loss": 3.25})
        store.models.register("shop", "full", tiny_model(), base="shop", data_hash="ab12" * 16, run_id=run.id,
                              metrics={"after": {"bleu": 21.456789, "loss": 2.0}})  # fmt: skip
    return tmp_path / "home"


def call(home: Path, *words: str, typed: str | None = None) -> Result:
    result = CliRunner().invoke(app, list(words), obj=home, input=typed)
    assert result.exception is None or isinstance(result.exception, DialoopError | SystemExit), (
        result.exception
    )
    return result


def test_the_list_shows_lineage_and_one_score(home: Path) -> None:
    lines = call(home, "list").stdout.splitlines()
    newest, oldest = lines[1].split(), lines[2].split()
    assert newest[:4] == ["shop@2", "full", "shop@1", "ab12ab12ab12"]
    assert newest[-2:] == ["after.bleu", "21.46"]
    assert (oldest[0], oldest[-2:]) == ("shop@1", ["loss", "3.25"])


def test_the_list_as_json_is_complete(home: Path) -> None:
    listed = json.loads(call(home, "list", "--json").stdout)
    assert [(v["name"], v["version"], v["base"]) for v in listed] == [
        ("shop", 2, "shop@1"),
        ("shop", 1, None),
    ]
    assert len(listed[0]["files"]["model.safetensors"]) == 64


def test_an_unrecorded_directory_is_named(home: Path) -> None:
    (home / "models" / "shop" / "9").mkdir()
    assert "shop/9: no record describes it" in call(home, "list").stderr


def test_one_model_shows_what_it_was_made_from(home: Path) -> None:
    shown = call(home, "show", "shop").stdout
    first, second, *_ = shown.splitlines()
    assert first.startswith("shop@1 (pretrained, ")
    assert second.startswith("└─ shop@2 (full, data ab12ab12ab12, ")
    assert all(word in shown for word in ("after.bleu", "21.46", "model.safetensors", "run-"))


def test_one_model_as_json_has_its_lineage(home: Path) -> None:
    shown = json.loads(call(home, "show", "shop@2", "--json").stdout)
    assert (shown["lineage"], shown["metrics"]["after"]["loss"]) == (["shop@2", "shop@1"], 2.0)


def test_a_directory_outside_the_store_shows_its_files(home: Path) -> None:
    shown = json.loads(call(home, "show", str(tiny_model()), "--json").stdout)
    assert shown["sizes"]["config.json"] == (tiny_model() / "config.json").stat().st_size
    assert "not in the store" in call(home, "show", str(tiny_model())).stdout


def test_an_unknown_model_is_an_error_that_names_the_nearest(home: Path) -> None:
    error = call(home, "show", "shopp").exception
    assert isinstance(error, StoreError)
    assert "did you mean 'shop'" in str(error)


def test_a_version_is_removed_after_a_yes(home: Path) -> None:
    assert call(home, "rm", "shop@2", typed="n\n").exit_code == 1
    assert call(home, "rm", "shop@2", typed="y\n").exit_code == 0
    assert call(home, "rm", "shop@1", "--yes").stdout == "shop@1: removed\n"
    assert json.loads(call(home, "list", "--json").stdout) == []


def test_a_version_that_adapters_lie_on_is_not_removed(home: Path, tmp_path: Path) -> None:
    with Store.open(home) as store:
        store.models.register("desk", "lora", adapter(tmp_path / "adapter", "shop@1"), base="shop@1")
    error = call(home, "rm", "shop@1", "--yes").exception
    assert isinstance(error, StoreError)
    assert "base of desk@1" in str(error)


def test_a_version_that_another_was_only_made_from_is_removed_and_stays_in_the_lineage(home: Path) -> None:
    assert call(home, "rm", "shop@1", "--yes").stdout == "shop@1: removed\n"
    first, second, *_ = call(home, "show", "shop").stdout.splitlines()
    assert first.startswith("shop@1 (pretrained, ")
    assert "removed" in first
    assert second.startswith("└─ shop@2 (full, ")


def test_a_registered_model_is_exported_with_its_lineage_in_the_card(home: Path, tmp_path: Path) -> None:
    done = call(home, "export", "shop", "--to", str(tmp_path / "out"))
    assert done.stdout.startswith(f"{tmp_path / 'out'}: shop@2 as merged, ")
    card = (tmp_path / "out" / "README.md").read_text()
    assert all(
        fact in card for fact in ("| base | shop@1 |", f"| data | {'ab12' * 16} |", "| after.bleu | 21.46 |")
    )


def test_a_gguf_export_names_the_file_after_the_model(home: Path, tmp_path: Path) -> None:
    done = call(home, "export", "shop@1", "--to", str(tmp_path / "out"), "--as", "gguf", "--dtype", "q8_0")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["shop-1-q8_0.gguf"]
    assert "tensors: 9 f32, 15 q8_0" in done.stdout


def test_a_directory_is_exported_by_its_path(home: Path, tmp_path: Path) -> None:
    call(home, "export", str(tiny_model()), "--to", str(tmp_path / "m.gguf"), "--as", "gguf")
    assert (tmp_path / "m.gguf").read_bytes()[:4] == b"GGUF"


def test_a_changed_model_is_not_exported(home: Path, tmp_path: Path) -> None:
    (home / "models" / "shop" / "2" / "generation_config.json").write_text("{}")
    error = call(home, "export", "shop@2", "--to", str(tmp_path / "out")).exception
    assert isinstance(error, DialoopError)
    assert "generation_config.json is not what was registered" in str(error)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("words", "kind", "message"), [
    (["--as", "merged", "--dtype", "q8_0"], ConfigError, "GGUF files only"),
    (["--as", "adapter", "--dtype", "f16"], ConfigError, "leave it out"),
    (["--as", "adapter"], ModelError, "whole model"),
])  # fmt: skip
def test_choices_that_do_not_go_together_are_refused(
    home: Path, tmp_path: Path, words: list[str], kind: type[DialoopError], message: str
) -> None:
    error = call(home, "export", "shop", "--to", str(tmp_path / "out"), *words).exception
    assert isinstance(error, kind)
    assert message in str(error)


def test_the_headline_is_a_test_score_where_there_is_one() -> None:
    assert headline({"loss": 2.0, "test": {"after": {"bleu": 20.0}}}) == "test.after.bleu 20"
    assert headline({"tokens": 12, "speed": 1.5}) == "tokens 12"
    assert headline({"verdict": "better"}) == ""


def test_the_headline_of_a_tuned_model_is_its_change() -> None:
    scores = {"en": {"BLEU": {"before": 0.5, "after": 7.5}}, "all": {"ROUGE-L": {"before": 1, "after": 2}}}
    assert headline({"headline": "better", "metrics": scores}) == "BLEU en 0.5 → 7.5"
    assert flat({"a": {"b": {}}, "c": [1]}) == {"c": [1]}
