"""The engine in a child process answers as the one in this process, and outlives the child."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from dialoop.engine.loaded import open_models
from dialoop.engine.local import LocalEngine
from dialoop.engine.process import ChildCore, ProcessEngine
from dialoop.errors import EngineDownError, ModelError, RequestError
from dialoop.types import Conversation, Delta, Engine, Grammar, Health, Message, ModelRef, Score, fold
from tests.conformance.engine import EngineConformance, answer, asking
from tests.engine.children import child_engine, close, hearing
from tests.engine.test_adapters import write_adapter
from tests.tiny import make_tiny_model, tiny_model

Deltas = AsyncGenerator[Delta, None]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with child_engine(max_rows=4) as engine:
        yield engine


@pytest.fixture(scope="module")
def crowded_engine() -> Iterator[Engine]:
    with child_engine(max_rows=1, max_open=1) as engine:
        yield engine


class TestProcessEngineConforms(EngineConformance):
    """A child serves many event loops, one after the other."""


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> list[ModelRef]:
    adapter = write_adapter(tmp_path_factory.mktemp("adapter") / "shop", 1)
    return [ModelRef("tiny", tiny_model()), ModelRef("shop", tiny_model(), adapter)]


@pytest.fixture(scope="module")
def engines(family: list[ModelRef]) -> Iterator[tuple[ProcessEngine, LocalEngine]]:
    """The same models in a child and here."""
    there, here = ProcessEngine(family, context=200), LocalEngine(open_models(family, context=200))
    yield there, here
    close(there)
    close(here)


ASKED = [
    {"temperature": 0.0},
    {"temperature": 1.2, "seed": 7, "n": 3, "top_p": 0.9},
    {"temperature": 0.0, "logprobs": 5},
    {"temperature": 0.0, "prompt_logprobs": 2, "n": 2},
    {"temperature": 1.2, "seed": 8, "n": 2, "best_of": 5, "max_tokens": 6},
    {"seed": 3, "prompt_logprobs": 0, "grammar": Grammar("choice", '["退货", "换货"]')},
    {"seed": 3, "grammar": Grammar("choice", '["退货", "换货"]')},
    {"seed": 4, "max_tokens": 60, "grammar": Grammar("json_schema", '{"enum": ["已退款", 7]}')},
    {"temperature": 0.0, "logit_bias": ((300, 100.0),), "stop_token_ids": (301,), "min_tokens": 3},
]


@pytest.mark.parametrize("model", ["tiny", "shop"])
@pytest.mark.parametrize("sampling", ASKED, ids=lambda sampling: "-".join(sampling))
async def test_every_answer_is_that_of_the_engine_in_this_process(
    engines: tuple[ProcessEngine, LocalEngine], model: str, sampling: dict[str, Any]
) -> None:
    request = replace(asking(engines[0], "我想退货 please", **sampling), model=model)
    there, here = [await fold(engine.chat(request)) for engine in engines]
    assert there == here


async def test_the_models_and_the_scores_are_the_same(engines: tuple[ProcessEngine, LocalEngine]) -> None:
    there = engines[0]
    assert [(m.name, m.context) for m in there.models()] == [("shop", 200), ("tiny", 200)]
    history = Conversation((Message("user", "Where is my order? 我的订单呢？"),))
    assert isinstance(there, Score)
    for model in ("tiny", "shop"):
        told = [await engine.score(model, history, ["It ships today.", "明天送达。"]) for engine in engines]
        assert told[0] == told[1]


async def test_an_error_that_the_child_finds_is_typed(engines: tuple[ProcessEngine, LocalEngine]) -> None:
    broken = asking(engines[0], grammar=Grammar("regex", "[a-"))
    raised = []
    for engine in engines:
        with pytest.raises(RequestError, match="cannot be followed") as caught:
            await anext(engine.chat(broken))
        raised.append((str(caught.value), caught.value.param))
    assert raised[0] == raised[1]


async def test_signals_to_the_whole_group_leave_the_child_at_work(
    engines: tuple[ProcessEngine, LocalEngine],
) -> None:
    there, pid = engines[0], engines[0].pid
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    assert (await answer(there, asking(there))).text
    assert (there.pid, there.health()) == (pid, "ok")


@pytest.mark.parametrize("missing", ["base", "adapter"])
def test_what_keeps_the_child_from_starting_is_raised_here(tmp_path: Path, missing: str) -> None:
    ref = replace(ModelRef("x", tiny_model()), **{missing: tmp_path / "nowhere"})  # type: ignore[arg-type]
    with pytest.raises(ModelError) as here:
        open_models([ref])
    with pytest.raises(ModelError) as there:
        ProcessEngine([ref])
    assert str(there.value) == str(here.value)


@pytest.fixture(scope="module")
def long_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose answers, unless cut, take minutes."""
    return make_tiny_model(tmp_path_factory.mktemp("long") / "model", context=32768)


@pytest.fixture(scope="module")
def long_engine(long_model: Path) -> Iterator[ProcessEngine]:
    with child_engine(long_model, max_rows=2) as engine:
        yield engine


def endless(engine: Engine) -> Deltas:
    return cast(Deltas, engine.chat(asking(engine, max_tokens=None, ignore_eos=True)))


async def test_hanging_up_frees_the_rows_in_the_child(long_engine: ProcessEngine) -> None:
    """Two rows are all there are: were one still taken, this would last for minutes."""
    for _ in range(2):
        async with aclosing(endless(long_engine)) as first, aclosing(endless(long_engine)) as second:
            await anext(first)
            await anext(second)
    assert (await answer(long_engine, asking(long_engine, n=2))).text


async def test_who_does_not_read_delays_nobody(long_engine: ProcessEngine) -> None:
    """What waits is larger than the socket's buffer."""
    much = asking(long_engine, max_tokens=600, ignore_eos=True, logprobs=20)
    async with aclosing(cast(Deltas, long_engine.chat(much))) as idle:
        await anext(idle)
        other = await answer(long_engine, replace(much, sampling=replace(much.sampling, logprobs=None)))
        assert other.usage.completion_tokens == 600
        assert sum([len(delta.logprobs) async for delta in idle]) >= 599


async def test_a_killed_child_fails_its_requests_and_is_there_again(
    long_engine: ProcessEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, pid = long_engine, long_engine.pid
    assert isinstance(engine, Health)
    before = await answer(engine, asking(engine))
    handed_over = threading.Event()
    submit = ChildCore.submit

    def watched(core: ChildCore, *arguments: Any) -> None:
        submit(core, *arguments)
        handed_over.set()

    with hearing() as heard:
        async with aclosing(endless(engine)) as open_answer, aclosing(endless(engine)) as unbegun:
            await anext(open_answer)
            os.kill(pid, signal.SIGSTOP)
            monkeypatch.setattr(ChildCore, "submit", watched)
            first = asyncio.ensure_future(anext(unbegun))
            await asyncio.to_thread(handed_over.wait)
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(EngineDownError) as caught:
                await first
            assert caught.value.retry_after >= 1
            with pytest.raises(EngineDownError, match="started again"):
                async for _ in open_answer:
                    pass
        said = heard.wait_for("ended")
        assert "SIGKILL" in said
        assert "2 open requests" in said
        heard.wait_for("there again")
    assert engine.health() == "ok"
    assert engine.pid != pid
    assert (await answer(engine, asking(engine))).text == before.text


def test_a_child_that_falls_again_and_again_is_given_up(tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_model(), tmp_path / "model"))
    with child_engine(base, restarts=1) as engine, hearing() as heard:
        assert engine.health() == "ok"
        base.rename(tmp_path / "away")
        os.kill(engine.pid, signal.SIGKILL)
        said = heard.wait_for("CRITICAL")
        assert "not started again" in said
        assert "no such directory" in said
        assert engine.health() == "failed"
        with pytest.raises(EngineDownError, match="log"):
            asyncio.run(fold(engine.chat(asking(engine))))


PARENT = """
import asyncio, sys
from pathlib import Path
from dialoop.engine.process import ProcessEngine
from dialoop.types import *

engine = ProcessEngine([ModelRef("tiny", Path(sys.argv[1]))])
request = ChatRequest("tiny", Conversation((Message("user", "你好"),)), Sampling(max_tokens=3))
asyncio.run(fold(engine.chat(request)))
asyncio.run(engine.embed("tiny", ["你好"]))
print(sorted({"torch", "transformers"} & set(sys.modules)), flush=True)
sys.stdin.read()
"""


def test_the_parent_needs_no_torch_and_the_child_ends_with_it() -> None:
    """The child holds the same pipe: it can be read to its end once both are gone."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PARENT, str(tiny_model())]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == "[]\n"
        parent.kill()
        assert parent.stdout.read() == ""
