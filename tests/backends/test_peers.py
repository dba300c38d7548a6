"""Real vLLM and llama.cpp servers as upstreams. Slow: they live in environments of their own.

DIALOOP_VLLM_PYTHON: a Python that has vllm. DIALOOP_LLAMA_SERVER: a llama-server binary.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

import dialoop
from dialoop.backends.remote import RemoteEngine
from dialoop.backends.upstream import Upstream
from dialoop.engine.loaded import open_model
from dialoop.engine.local import LocalEngine
from dialoop.errors import ContextLengthError, RequestError, UnknownModelError, UnsupportedError
from dialoop.models.gguf import export_gguf
from dialoop.types import (
    Answer,
    ChatRequest,
    Conversation,
    Engine,
    Grammar,
    Message,
    ModelRef,
    Sampling,
    fold,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
BASE = Path(dialoop.__file__).parent / "assets" / "dialoop-base"
"""A random model writes bytes that are no text, at which llama.cpp's parser of answers gives up."""
CONTEXT = 256
ASKED = ChatRequest(
    "base",
    Conversation((Message("developer", "Be kind."), Message("user", "Where is my order? 我的订单在哪里？"))),
    Sampling(temperature=0, max_tokens=12),
)


def given(variable: str) -> str:
    found = os.environ.get(variable)
    if not found:
        pytest.skip(f"{variable} is not set")
    return found


@contextmanager
def peer(command: Sequence[str], port: int, log: Path) -> Iterator[str]:
    """The base URL of a server once it listens."""
    outside = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=outside)
        try:
            url = f"http://127.0.0.1:{port}/v1"
            while not answers(f"{url}/models"):
                assert process.poll() is None, log.read_text()[-2000:]
                time.sleep(0.5)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture(scope="module", params=["vllm", "llama.cpp"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("peers")
    port, log = free_port(), folder / f"{request.param}.log"
    if request.param == "vllm":
        command = [
            given("DIALOOP_VLLM_PYTHON"), "-m", "vllm.entrypoints.openai.api_server", "--model", str(BASE),
            "--served-model-name", "base", "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32",
            "--max-model-len", str(CONTEXT), "--max-num-seqs", "8", "--enforce-eager",
            "--gpu-memory-utilization", "0.2",
        ]  # fmt: skip
    else:
        server = given("DIALOOP_LLAMA_SERVER")
        weights = export_gguf(ModelRef("base", BASE), folder / "base.gguf", dtype="f32").path
        command = [
            server, "-m", str(weights), "--alias", "base", "--host", "127.0.0.1", "--port", str(port),
            "--ctx-size", str(CONTEXT * 4), "--parallel", "4", "--jinja", "--no-webui",
        ]  # fmt: skip
    with peer(command, port, log) as url:
        yield url


@pytest_asyncio.fixture
async def engine(url: str) -> AsyncIterator[RemoteEngine]:
    engine = RemoteEngine("peer", Upstream(url=url))
    await engine.refresh()
    yield engine
    await engine.aclose()


@pytest_asyncio.fixture
async def local() -> AsyncIterator[LocalEngine]:
    engine = LocalEngine({"base": open_model(ModelRef("base", BASE), context=CONTEXT)})
    yield engine
    await engine.aclose()


async def ask(engine: Engine, request: ChatRequest = ASKED, **sampling: Any) -> tuple[Answer, ...]:
    return await fold(engine.chat(replace(request, sampling=replace(request.sampling, **sampling))))


async def test_its_models_and_their_context_are_told(engine: RemoteEngine) -> None:
    (served,) = engine.models()
    assert (served.name, served.context) == ("base", CONTEXT)
    assert engine.kind in ("vllm", "llama.cpp")


async def test_greedy_answers_are_those_of_our_own_engine(engine: RemoteEngine, local: Engine) -> None:
    (theirs,), (ours,) = await ask(engine), await ask(local)
    assert (theirs.text, theirs.finish_reason) == (ours.text, ours.finish_reason)
    assert theirs.usage.prompt_tokens == ours.usage.prompt_tokens
    assert theirs.usage.completion_tokens == ours.usage.completion_tokens


async def test_log_probabilities_are_those_of_our_own_engine(engine: RemoteEngine, local: Engine) -> None:
    (theirs,), (ours,) = [await ask(each, logprobs=2, max_tokens=8) for each in (engine, local)]
    # llama.cpp tells none of tokens that are a part of a character only.
    one, other = theirs.logprobs[0], ours.logprobs[0]
    assert one.logprob == pytest.approx(other.logprob, abs=0.02)
    assert [each.logprob for each in one.top] == pytest.approx([each.logprob for each in other.top], abs=0.02)


async def test_a_seed_draws_the_same_answer_again(engine: RemoteEngine) -> None:
    drawn = {"temperature": 1.0, "seed": 2**40 + 5, "top_p": 0.9, "top_k": 20, "min_p": 0.01}
    (one,), (other,) = [await ask(engine, **drawn) for _ in range(2)]
    assert one.text == other.text


async def test_several_greedy_answers_are_alike_and_all_are_counted(engine: RemoteEngine) -> None:
    if engine.kind == "llama.cpp":
        with pytest.raises(UnsupportedError):
            await ask(engine, n=3)
        return
    (one,), three = await ask(engine), await ask(engine, n=3)
    assert [each.text for each in three] == [one.text] * 3
    assert three[0].usage.completion_tokens == 3 * one.usage.completion_tokens


@pytest.mark.parametrize(
    "fields",
    [{"stop": ("e",)}, {"repetition_penalty": 1.3}, {"top_p": 0.0, "temperature": 1.0}],
    ids=lambda fields: "+".join(fields),
)  # fmt: skip
async def test_parameters_mean_what_they_mean_here(
    engine: RemoteEngine, local: Engine, fields: dict[str, Any]
) -> None:
    (theirs,), (ours,) = [await ask(each, **fields) for each in (engine, local)]
    assert theirs.text == ours.text


async def test_a_bias_forces_a_token_and_bans_one(engine: RemoteEngine, local: LocalEngine) -> None:
    (letter,) = (await local.tokenize("base", "e")).ids
    (forced,) = await ask(engine, logit_bias=((letter, 100.0),), max_tokens=8)
    assert forced.text == "e" * 8
    (free,) = await ask(local, token_ids=True)
    ban = {"logit_bias": ((free.token_ids[0], -100.0),), "max_tokens": 8}
    (theirs,), (ours,) = [await ask(each, **ban) for each in (engine, local)]
    assert theirs.text == ours.text != free.text[: len(ours.text)]


@pytest.mark.parametrize(
    "grammar",
    [Grammar("choice", '["shipped today", "lost"]'),
     Grammar("json_schema", '{"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], '
                            '"additionalProperties": false}')],
    ids=["choice", "schema"],
)  # fmt: skip
async def test_formats_are_kept_to(engine: RemoteEngine, grammar: Grammar) -> None:
    (answer,) = await ask(engine, grammar=grammar, max_tokens=100)
    if grammar.kind == "choice":
        assert answer.text in json.loads(grammar.text)
    elif answer.finish_reason == "length":
        # llama.cpp lets white space go on before JSON, and a weak model writes no end of it.
        assert not answer.text.strip()
    else:
        assert json.loads(answer.text)["a"] in (1, 2)


async def test_a_prompt_too_long_tells_both_numbers(engine: RemoteEngine) -> None:
    long = Conversation((Message("user", "订单 " * CONTEXT),))
    with pytest.raises(ContextLengthError) as caught:
        await ask(engine, replace(ASKED, conversation=long))
    assert caught.value.limit == CONTEXT < caught.value.prompt_tokens


async def test_a_longer_answer_than_the_context_holds_is_cut_or_refused(engine: RemoteEngine) -> None:
    try:
        (answer,) = await ask(engine, max_tokens=10 * CONTEXT, ignore_eos=True)
    except RequestError as refused:  # by vLLM
        if "max_tokens" not in str(refused):
            raise
        return
    assert answer.finish_reason == "length"
    assert answer.usage.prompt_tokens + answer.usage.completion_tokens <= CONTEXT


async def test_an_unknown_model_and_an_unknown_parameter_are_refused(engine: RemoteEngine) -> None:
    with pytest.raises(UnknownModelError, match="base"):
        await ask(engine, replace(ASKED, model="other"))
    with pytest.raises(UnsupportedError):
        await ask(engine, best_of=2)


async def test_hanging_up_frees_the_place_of_the_answer(engine: RemoteEngine) -> None:
    long = replace(ASKED.sampling, max_tokens=None, ignore_eos=True)
    for _ in range(12):
        deltas = engine.chat(replace(ASKED, sampling=long))
        await anext(deltas)
        await deltas.aclose()
    assert (await ask(engine, max_tokens=2))[0].usage.completion_tokens == 2
