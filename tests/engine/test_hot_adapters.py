"""Adapters that come, go and are replaced while requests run."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio
import torch

from dialoop.engine import worker
from dialoop.engine.constrain import Grammars
from dialoop.engine.loaded import open_model, open_models
from dialoop.engine.local import LocalEngine
from dialoop.engine.wire import Shelved
from dialoop.errors import ModelError, RequestError, UnknownModelError
from dialoop.models.adapters import Adapters
from dialoop.types import Answer, ChatRequest, Conversation, Delta, Grammar, Load, Message, ModelRef, fold
from tests.encoders import make_encoder
from tests.engine.test_adapters import QUESTIONS, answers_of, asking, write_adapter
from tests.tiny import make_tiny_model, tiny_model

BASE = tiny_model()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four adapters of one size."""
    folder = tmp_path_factory.mktemp("adapters")
    return [write_adapter(folder / str(i), i + 1) for i in range(4)]


@pytest.fixture(scope="module")
def alone(folders: list[Path]) -> list[str]:
    """What each adapter answers, merged into a base of its own."""

    async def answer(folder: Path) -> str:
        engine = LocalEngine({"own": open_model(ModelRef("own", BASE, folder))})
        text = (await said(engine, "own")).text
        await engine.aclose()
        return text

    found = [asyncio.run(answer(folder)) for folder in folders]
    assert len(set(found)) == 4
    return found


def size_of(folder: Path) -> int:
    return Adapters(open_model(ModelRef("base", BASE)).model).read(folder).size


async def said(engine: LocalEngine, name: str) -> Answer:
    (answer,) = await answers_of(engine, [asking(name, QUESTIONS[2])])
    return answer


async def load(engine: LocalEngine, name: str, folder: Path, **how: Any) -> None:
    served = await engine.load(ModelRef(name, BASE, folder), **how)
    assert served in engine.models()


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[LocalEngine]:
    engine = LocalEngine({"base": open_model(ModelRef("base", BASE))}, step_tokens=24)
    assert isinstance(engine, Load)
    yield engine
    await engine.aclose()


async def test_an_adapter_is_served_from_its_load_to_its_unload(
    engine: LocalEngine, folders: list[Path], alone: list[str]
) -> None:
    before = await said(engine, "base")
    await load(engine, "shop", folders[0])
    assert [each.name for each in engine.models()] == ["base", "shop"]
    assert (await said(engine, "shop")).text == alone[0]
    assert (await said(engine, "base")).text == before.text
    await engine.unload("shop")
    assert [each.name for each in engine.models()] == ["base"]
    with pytest.raises(UnknownModelError):
        await said(engine, "shop")
    assert (await said(engine, "base")).text == before.text


async def test_a_new_version_answers_new_requests_and_shares_no_blocks_with_the_old(
    engine: LocalEngine, folders: list[Path], alone: list[str]
) -> None:
    for i in (0, 1, 0):
        await load(engine, "shop", folders[i])
        first, again = await said(engine, "shop"), await said(engine, "shop")
        assert first.text == again.text == alone[i]
        assert first.usage.cached_tokens == 0 < again.usage.cached_tokens


async def begun(engine: LocalEngine, name: str) -> tuple[AsyncGenerator[Delta, None], str]:
    chat = cast(AsyncGenerator[Delta, None], engine.chat(asking(name, QUESTIONS[2])))
    return chat, (await anext(chat)).text


async def rest(chat: AsyncGenerator[Delta, None]) -> str:
    return "".join([delta.text async for delta in chat])


@pytest.mark.parametrize("way", ["unload", "swap"])
async def test_requests_that_run_are_answered_to_their_end_by_their_own_version(
    engine: LocalEngine, folders: list[Path], alone: list[str], way: str
) -> None:
    await load(engine, "shop", folders[0])
    chats = [await begun(engine, "shop") for _ in range(3)]
    if way == "swap":
        await load(engine, "shop", folders[1])
        assert (await said(engine, "shop")).text == alone[1]
    else:
        await engine.unload("shop")
    assert [first + await rest(chat) for chat, first in chats] == [alone[0]] * 3


async def test_swapping_under_load_fails_no_request_and_mixes_no_versions(
    engine: LocalEngine, folders: list[Path], alone: list[str]
) -> None:
    await load(engine, "shop", folders[0])

    async def client() -> list[str]:
        return [(await said(engine, "shop")).text for _ in range(4)]

    async def swaps() -> None:
        for i in (1, 0, 1, 0, 1):
            await load(engine, "shop", folders[i])

    clients, _ = await asyncio.gather(asyncio.gather(*(client() for _ in range(4))), swaps())
    assert {text for texts in clients for text in texts} <= {alone[0], alone[1]}
    assert (await said(engine, "shop")).text == alone[1]


async def test_a_retired_version_leaves_memory_when_its_last_request_ends(
    folders: list[Path], alone: list[str]
) -> None:
    opened = open_models([ModelRef("base", BASE), ModelRef("shop", BASE, folders[0])])
    model: Any = opened["base"].model
    engine = LocalEngine(opened)
    chat, first = await begun(engine, "shop")
    await engine.unload("shop")
    await said(engine, "base")
    assert first + await rest(chat) == alone[0]
    await said(engine, "base")
    await engine.aclose()
    assert not any(layer._forward_hooks for layer in model.modules())


@pytest.mark.parametrize("room", [1, 2])
async def test_more_adapters_than_memory_holds_all_answer(
    folders: list[Path], alone: list[str], room: int
) -> None:
    model = open_model(ModelRef("base", BASE))
    engine = LocalEngine({"base": model}, adapter_memory=room * size_of(folders[0]), max_rows=4)
    for i, folder in enumerate(folders):
        await load(engine, str(i), folder)
    order = [0, 1, 2, 3, 3, 0, 2, 1, 0, 0]
    one_by_one = [(await said(engine, str(i))).text for i in order]
    together = await asyncio.gather(*(said(engine, str(i)) for i in order))
    assert one_by_one == [answer.text for answer in together] == [alone[i] for i in order]
    await engine.aclose()


async def test_the_longest_unused_adapter_leaves_memory_and_a_pinned_one_never(
    tmp_path: Path, folders: list[Path], alone: list[str]
) -> None:
    """An adapter that is still in memory answers when its files are gone; another does not."""
    mine = [Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in folders]
    model = open_model(ModelRef("base", BASE))
    engine = LocalEngine({"base": model}, adapter_memory=2 * size_of(folders[0]))
    await load(engine, "0", mine[0], pinned=True)
    for i in (1, 2):
        await load(engine, str(i), mine[i])
    await said(engine, "1")
    await load(engine, "3", mine[3])
    for folder in mine:
        shutil.rmtree(folder)
    for i in (0, 1, 3):
        assert (await said(engine, str(i))).text == alone[i]
    with pytest.raises(ModelError, match="adapter_config"):
        await said(engine, "2")
    await engine.aclose()


async def test_an_adapter_that_cannot_be_read_again_is_tried_once_a_request(
    tmp_path: Path, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def lost(shelved: Shelved, adapters: Adapters) -> Any:
        tried.append(shelved.key)
        raise OSError("the disk is gone")

    monkeypatch.setattr("dialoop.engine.worker.read_again", lost)
    model = open_model(ModelRef("base", BASE))
    engine = LocalEngine({"base": model}, adapter_memory=size_of(folders[0]))
    await load(engine, "0", folders[0])
    await load(engine, "1", folders[1])
    for _ in range(2):
        with pytest.raises(OSError, match="gone"):
            await said(engine, "0")
        with pytest.raises(OSError, match="gone"):
            await engine.embed("0", ["Hi"])
    assert (await said(engine, "base")).text
    assert len(tried) == 4
    await engine.aclose()


async def test_an_adapter_that_changed_on_disk_is_not_mixed_with_what_it_was(
    tmp_path: Path, folders: list[Path], alone: list[str]
) -> None:
    mine = Path(shutil.copytree(folders[0], tmp_path / "mine"))
    model = open_model(ModelRef("base", BASE))
    engine = LocalEngine({"base": model}, adapter_memory=size_of(folders[0]))
    await load(engine, "mine", mine)
    await said(engine, "mine")
    await load(engine, "other", folders[1])
    await said(engine, "other")
    shutil.copytree(folders[2], mine, dirs_exist_ok=True)
    with pytest.raises(RequestError, match="mine changed on disk"):
        await said(engine, "mine")
    await load(engine, "mine", mine)
    assert (await said(engine, "mine")).text == alone[2]
    await engine.aclose()


async def test_a_request_that_waits_for_room_can_be_given_up(folders: list[Path], alone: list[str]) -> None:
    model = open_model(ModelRef("base", BASE))
    engine = LocalEngine({"base": model}, adapter_memory=size_of(folders[0]))
    await load(engine, "0", folders[0])
    await load(engine, "1", folders[1])
    chat, first = await begun(engine, "0")
    waiting = [asyncio.create_task(said(engine, "1")) for _ in range(2)]
    scoring = asyncio.create_task(engine.score("1", Conversation((Message("user", "Hi"),)), ["Hi"]))
    assert (await said(engine, "base")).text
    waiting[0].cancel()
    scoring.cancel()
    assert first + await rest(chat) == alone[0]
    assert (await waiting[1]).text == alone[1]
    await engine.aclose()


async def test_an_adapter_stays_for_a_request_whose_grammar_is_being_compiled(
    engine: LocalEngine, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is unloaded meanwhile, and other requests let the model's thread sweep."""
    await load(engine, "shop", folders[0])
    request = asking("shop", QUESTIONS[2])
    grammar = Grammar("regex", "[a-z ]{20,40}")
    request = replace(request, sampling=replace(request.sampling, grammar=grammar))
    (before,) = await answers_of(engine, [request])
    begun, go_on, plain = threading.Event(), threading.Event(), Grammars.constraint

    def slow(*arguments: Any) -> Any:
        begun.set()
        go_on.wait()
        return plain(*arguments)

    monkeypatch.setattr(Grammars, "constraint", slow)
    task = asyncio.create_task(answers_of(engine, [request]))
    await asyncio.to_thread(begun.wait)
    await engine.unload("shop")
    assert (await said(engine, "base")).text
    go_on.set()
    assert (await task)[0].text == before.text


@pytest.mark.parametrize("end", ["cancel", "fail"])
async def test_a_load_that_is_not_ended_leaves_nothing(
    folders: list[Path], alone: list[str], monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    opened = open_model(ModelRef("base", BASE))
    engine = LocalEngine({"base": opened})
    reading, go_on, plain = threading.Event(), threading.Event(), worker.shelve

    def slow(*arguments: Any, **options: Any) -> Any:
        reading.set()
        go_on.wait()
        if end == "fail":
            raise OSError("the disk is gone")
        return plain(*arguments, **options)

    monkeypatch.setattr(worker, "shelve", slow)
    task = asyncio.create_task(engine.load(ModelRef("shop", BASE, folders[0])))
    await asyncio.to_thread(reading.wait)
    if end == "cancel":
        task.cancel()
        await asyncio.wait([task])
    go_on.set()
    with pytest.raises((OSError, asyncio.CancelledError)):
        await task
    assert [each.name for each in engine.models()] == ["base"]
    monkeypatch.setattr(worker, "shelve", plain)
    await load(engine, "shop", folders[1])
    assert (await said(engine, "shop")).text == alone[1]
    await engine.unload("shop")
    await engine.aclose()
    model: Any = opened.model
    assert not any(layer._forward_hooks for layer in model.modules())


async def test_closing_the_engine_ends_requests_that_wait_for_an_adapter(folders: list[Path]) -> None:
    model = open_model(ModelRef("base", BASE))
    engine = LocalEngine({"base": model}, adapter_memory=size_of(folders[0]), max_rows=1)
    await load(engine, "0", folders[0])
    await load(engine, "1", folders[1])
    chat, _ = await begun(engine, "0")
    waiting = asyncio.create_task(said(engine, "1"))
    await asyncio.sleep(0)
    await engine.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await waiting
    with pytest.raises(RuntimeError, match="closed"):
        await rest(chat)


async def test_scores_and_vectors_go_through_the_adapter(engine: LocalEngine, folders: list[Path]) -> None:
    own = LocalEngine({"shop": open_model(ModelRef("shop", BASE, folders[0]))})
    await load(engine, "shop", folders[0])
    history = Conversation((Message("user", "Hi"),))
    for model in ("shop", "base"):
        (mine,) = await engine.score(model, history, ["Hello"])
        (vector,) = (await engine.embed(model, ["Hello"])).vectors
        (wanted,) = await own.score("shop", history, ["Hello"])
        (direction,) = (await own.embed("shop", ["Hello"])).vectors
        alike = torch.allclose(torch.tensor(vector), torch.tensor(direction), atol=1e-4)
        assert (mine.total == pytest.approx(wanted.total, abs=1e-3)) is (model == "shop")
        assert alike is (model == "shop")
    await own.aclose()


async def test_what_cannot_be_loaded_is_refused_and_leaves_all_as_it_was(
    tmp_path: Path, folders: list[Path]
) -> None:
    other = make_tiny_model(tmp_path / "other", seed=1)
    encoder = make_encoder(tmp_path / "encoder")
    models = open_models([ModelRef("base", BASE), ModelRef("bert", encoder)])
    engine = LocalEngine(models, adapter_memory=size_of(folders[0]) - 1)
    dora = write_adapter(tmp_path / "dora", 1, use_dora=True)
    for ref in (
        ModelRef("a", other, folders[0]), ModelRef("a", BASE), ModelRef("a", BASE, tmp_path),
        ModelRef("a", encoder, folders[0]), ModelRef("a", BASE, dora), ModelRef("a", BASE, folders[0]),
    ):  # fmt: skip
        with pytest.raises(ModelError):
            await engine.load(ref)
    for name in ("base", "bert"):
        with pytest.raises(RequestError, match="whole model"):
            await engine.load(ModelRef(name, BASE, folders[0]))
        with pytest.raises(RequestError, match="whole model"):
            await engine.unload(name)
    with pytest.raises(UnknownModelError):
        await engine.unload("a")
    await load(engine, "pinned", folders[0], pinned=True)
    assert [each.name for each in engine.models()] == ["base", "bert", "pinned"]
    await engine.aclose()


async def test_no_adapter_lies_beside_weights_that_another_one_is_folded_into(folders: list[Path]) -> None:
    engine = LocalEngine({"own": open_model(ModelRef("own", BASE, folders[0]))})
    with pytest.raises(ModelError, match="served here"):
        await engine.load(ModelRef("other", BASE, folders[1]))
    await engine.aclose()


async def test_a_request_in_preparation_goes_to_the_version_of_its_submission(
    engine: LocalEngine, folders: list[Path], alone: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is swapped, and then unloaded, while a prompt is being rendered."""
    from dialoop.engine import front

    await load(engine, "shop", folders[0])
    rendering, go_on = asyncio.Event(), asyncio.Event()
    loop, plain = asyncio.get_running_loop(), front.asked_to_chat

    def slow(*arguments: Any) -> Any:
        loop.call_soon_threadsafe(rendering.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()
        return plain(*arguments)

    monkeypatch.setattr(front, "asked_to_chat", slow)
    answers = []
    for way in (engine.load(ModelRef("shop", BASE, folders[1])), engine.unload("shop")):
        rendering.clear()
        go_on.clear()
        request: ChatRequest = asking("shop", QUESTIONS[2])
        task = asyncio.create_task(fold(engine.chat(request)))
        await rendering.wait()
        await way
        go_on.set()
        answers.append(task)
        await asyncio.wait([task])
    assert answers[0].result()[0].text == alone[1]
    assert isinstance(answers[1].exception(), UnknownModelError)
