"""`dialoop serve`, up to the moment it listens."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from dialoop.cli.named import open_models, served_name
from dialoop.cli.serve import greeting, serve
from dialoop.errors import ConfigError, StoreError
from dialoop.serve.server import bind
from dialoop.store.registry import Store
from dialoop.types import Served
from tests.access.test_keys import make_key
from tests.tiny import CONTEXT, make_tiny_model, tiny_model


def invoke(home: Path, *arguments: str) -> BaseException | None:
    app = typer.Typer()
    app.command()(serve)

    @app.callback()
    def main(context: typer.Context) -> None:
        context.obj = home

    return CliRunner().invoke(app, ["serve", *arguments]).exception


def test_a_port_in_use_ends_the_command_before_a_model_is_loaded(tmp_path: Path) -> None:
    with bind("127.0.0.1", 0) as taken:
        error = invoke(tmp_path, "no-such-model", "--port", str(taken.getsockname()[1]))
    assert isinstance(error, ConfigError)
    assert "\n" not in str(error)


def test_an_open_address_without_a_key_ends_the_command(tmp_path: Path) -> None:
    assert isinstance(invoke(tmp_path, "--host", "0.0.0.0", "--port", "0"), ConfigError)


def test_a_key_of_the_store_lets_it_open(tmp_path: Path) -> None:
    """It goes on to the model, which is not there."""
    with Store.open(tmp_path) as store:
        make_key(store)
    assert isinstance(invoke(tmp_path, "no-such-model", "--host", "0.0.0.0", "--port", "0"), StoreError)


def test_an_unknown_model_ends_the_command(tmp_path: Path) -> None:
    assert isinstance(invoke(tmp_path, "no-such-model", "--port", "0"), StoreError)


def test_models_are_opened_under_the_names_they_are_asked_for(tmp_path: Path) -> None:
    other = make_tiny_model(tmp_path / "other")
    models = open_models(tmp_path / "home", [str(tiny_model()), str(other)], max_model_len=100)
    assert set(models) == {tiny_model().name, "other"}
    assert {loaded.served.name for loaded in models.values()} == set(models)
    assert {loaded.served.context for loaded in models.values()} == {100}
    assert open_models(tmp_path / "home", [str(other)], 10**6)["other"].served.context == CONTEXT


@pytest.mark.parametrize(
    ("asked", "name"),
    [("shop", "shop"), ("shop@3", "shop@3"), ("/models/my-shop", "my-shop"), ("./x/y/", "y")],
)
def test_a_directory_is_served_under_its_last_part(asked: str, name: str) -> None:
    assert served_name(asked) == name


def test_the_greeting_can_be_pasted() -> None:
    first, command = greeting("http://127.0.0.1:8000", (Served("shop", 0, 2048),), keyed=False).splitlines()
    assert "http://127.0.0.1:8000/v1" in first
    words = shlex.split(command)
    assert words[:2] == ["curl", "http://127.0.0.1:8000/v1/chat/completions"]
    assert json.loads(words[-1])["model"] == "shop"
    _, command = greeting(
        "http://[::1]:1", (Served("bert", 0, 512, kind="encoder"),), keyed=True
    ).splitlines()
    assert shlex.split(command)[1] == "http://[::1]:1/v1/embeddings"
    assert set(json.loads(shlex.split(command)[-1])) == {"model", "input"}
