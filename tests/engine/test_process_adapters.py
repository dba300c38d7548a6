"""Vectors and adapters of an engine in a child process; the next child forgets no adapter."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dialoop.engine.loaded import open_models
from dialoop.engine.local import LocalEngine
from dialoop.engine.process import ProcessEngine
from dialoop.errors import ModelError, RequestError, UnknownModelError, UnsupportedError
from dialoop.types import Embed, Load, ModelRef
from tests.conformance.engine import asking
from tests.encoders import LONGEST, make_encoder
from tests.engine.children import Heard, close, hearing
from tests.engine.test_adapters import QUESTIONS, write_adapter
from tests.engine.test_adapters import asking as asking_for
from tests.tiny import make_tiny_model, tiny_model

BASE = tiny_model()
TEXTS = ["Where is my order?", "我想退货", "x"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three adapters of one size."""
    folder = tmp_path_factory.mktemp("adapters")
    return [write_adapter(folder / str(i), i + 1) for i in range(3)]


@pytest.fixture(scope="module")
def alone(folders: list[Path]) -> list[str]:
    """What each adapter answers in this process, and then the base."""
    refs = [ModelRef(str(i), BASE, folder) for i, folder in enumerate(folders)]
    engine = LocalEngine(open_models([*refs, ModelRef("base", BASE)]))
    found = [asyncio.run(said(engine, name)) for name in ("0", "1", "2", "base")]
    close(engine)
    assert len(set(found)) == 4
    return found


async def said(engine: Any, name: str) -> str:
    return "".join([delta.text async for delta in engine.chat(asking_for(name, QUESTIONS[2]))])


@contextmanager
def child(*refs: ModelRef, **options: Any) -> Iterator[ProcessEngine]:
    engine = ProcessEngine([*refs], **options)
    try:
        yield engine
    finally:
        close(engine)


async def fall(engine: ProcessEngine, heard: Heard) -> None:
    """Kill the child and wait for the next one."""
    os.kill(engine.pid, signal.SIGKILL)
    await asyncio.to_thread(heard.wait_for, "there again")


async def test_vectors_are_those_of_the_engine_in_this_process(tmp_path: Path, folders: list[Path]) -> None:
    refs = [
        ModelRef("tiny", BASE), ModelRef("shop", BASE, folders[0]),
        ModelRef("bert", make_encoder(tmp_path / "bert")),
    ]  # fmt: skip
    here = LocalEngine(open_models(refs))
    with child(*refs) as there:
        assert isinstance(there, Embed)
        assert [(each.name, each.kind) for each in there.models()] == [
            ("bert", "encoder"), ("shop", "decoder"), ("tiny", "decoder")
        ]  # fmt: skip
        for name in ("tiny", "shop", "bert"):
            found = [await engine.embed(name, TEXTS) for engine in (there, here)]
            assert found[0] == found[1]
        with pytest.raises(RequestError, match=r"input\[1\]"):
            await there.embed("bert", ["a", [5] * (LONGEST + 1)])
        with pytest.raises(UnsupportedError, match="encoder"):
            await anext(there.chat(asking(there)))
    await here.aclose()


async def test_adapters_come_and_go_in_the_child(
    folders: list[Path], alone: list[str], tmp_path: Path
) -> None:
    with child(ModelRef("base", BASE)) as engine:
        assert isinstance(engine, Load)
        for i in (0, 1, 0):
            served = await engine.load(ModelRef("shop", BASE, folders[i]))
            assert served in engine.models()
            assert await said(engine, "shop") == alone[i]
        assert await said(engine, "base") == alone[3]
        for ref in (ModelRef("a", BASE, tmp_path), ModelRef("a", tmp_path, folders[0]), ModelRef("a", BASE)):
            with pytest.raises(ModelError):
                await engine.load(ref)
        await engine.unload("shop")
        assert [each.name for each in engine.models()] == ["base"]
        with pytest.raises(UnknownModelError):
            await said(engine, "shop")


async def test_the_next_child_has_the_adapters_that_were_loaded_and_not_those_that_went(
    tmp_path: Path, folders: list[Path], alone: list[str]
) -> None:
    """The files of those that went are no longer there."""
    mine = [Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in folders]
    started = [ModelRef("base", BASE), ModelRef("first", BASE, mine[0])]
    with child(*started) as engine, hearing() as heard:
        await engine.load(ModelRef("kept", BASE, mine[1]))
        await engine.load(ModelRef("pinned", BASE, mine[1]), pinned=True)
        await engine.load(ModelRef("pinned", BASE, mine[2]), pinned=True)
        await engine.load(ModelRef("gone", BASE, mine[0]))
        for name in ("gone", "first"):
            await engine.unload(name)
        shutil.rmtree(mine[0])
        for _ in range(2):
            await fall(engine, heard)
            assert [each.name for each in engine.models()] == ["base", "kept", "pinned"]
            assert await said(engine, "kept") == alone[1]
            assert await said(engine, "pinned") == alone[2]
            assert await said(engine, "base") == alone[3]


async def test_the_next_child_refuses_an_adapter_whose_files_are_others_now(
    tmp_path: Path, folders: list[Path], alone: list[str]
) -> None:
    mine = Path(shutil.copytree(folders[0], tmp_path / "mine"))
    with child(ModelRef("base", BASE)) as engine, hearing() as heard:
        await engine.load(ModelRef("mine", BASE, mine))
        shutil.copytree(folders[1], mine, dirs_exist_ok=True)
        await fall(engine, heard)
        with pytest.raises(RequestError, match="mine changed on disk"):
            await said(engine, "mine")
        await engine.load(ModelRef("mine", BASE, mine))
        assert await said(engine, "mine") == alone[1]


async def test_an_adapter_is_unloaded_while_there_is_no_child(
    tmp_path: Path, folders: list[Path], alone: list[str]
) -> None:
    """Its files and the base are away until the child is to come again."""
    base = Path(shutil.copytree(BASE, tmp_path / "base"))
    first = Path(shutil.copytree(folders[0], tmp_path / "first"))
    started = [ModelRef("base", base), ModelRef("first", base, first)]
    with child(*started) as engine, hearing() as heard:
        await engine.load(ModelRef("second", base, folders[1]))
        away = shutil.move(base, tmp_path / "away")
        os.kill(engine.pid, signal.SIGKILL)
        await asyncio.to_thread(heard.wait_for, "no such directory")
        await engine.unload("first")
        shutil.rmtree(first)
        shutil.move(away, base)
        await asyncio.to_thread(heard.wait_for, "there again")
        assert [each.name for each in engine.models()] == ["base", "second"]
        assert await said(engine, "second") == alone[1]


def test_a_child_that_finds_other_models_than_the_first_is_given_up(tmp_path: Path) -> None:
    base = Path(shutil.copytree(BASE, tmp_path / "base"))
    with child(ModelRef("base", base), restarts=1) as engine, hearing() as heard:
        make_tiny_model(base, context=64)
        os.kill(engine.pid, signal.SIGKILL)
        assert "not those that were loaded" in heard.wait_for("CRITICAL")
