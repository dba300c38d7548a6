"""Servers and streaming clients of bench/serve.py: the time of every event as a client sees it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from statistics import quantiles
from typing import Any
from urllib.parse import urlsplit

import openai
from serve_models import Prompt, gguf_of
from serve_offline import PROMPT, Bench, Start
from serve_peers import CONTESTANTS, PATIENCE, Figures, Live, PeerError, Process, Setting
from serve_tables import Bar, bars, medians, ratios

CLIENTS = 16
DELAYS = ("TTFT p50", "TTFT p95", "between tokens p50", "between tokens p95")
BARS = {
    "A": (
        Bar("dialoop serve", "tokens/s, openai", 0.85, ("dialoop",)),
        Bar("dialoop serve", "tokens/s, raw", 0.85, ("dialoop",)),
        Bar("dialoop serve", "tokens/s, openai", 1.5, ("llama-server",)),
        Bar("dialoop serve", "tokens/s, raw", 1.5, ("llama-server",)),
    ),
    "B": (
        Bar("dialoop serve", "tokens/s, openai", 1.2, ("llama-server",)),
        Bar("dialoop serve", "tokens/s, raw", 1.2, ("llama-server",)),
    ),
}


@dataclass(frozen=True, slots=True)
class Heard:
    """One streamed answer. seconds: from sending the request to each event with text."""

    seconds: tuple[float, ...]
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Wave:
    """Requests sent at once: seconds until the last answer's end, and what each client heard."""

    seconds: float
    heard: Sequence[Heard]


class Server(Process):
    """`dialoop serve` or `llama-server` with the run's model. Raises PeerError where it does not come up."""

    def __init__(self, name: str, setting: Setting) -> None:
        super().__init__(name, setting.log(name))
        start = {"dialoop serve": self._dialoop, "llama-server": self._llama}[name]
        try:
            self.url = start(setting)
        except BaseException:
            if hasattr(self, "_process"):
                self.close()
            raise

    def _dialoop(self, setting: Setting) -> str:
        options = ["--port", "0", "--max-rows", str(setting.rows), "--max-model-len", str(setting.context)]
        command = [sys.executable, "-c", "from dialoop.cli import main; main()", "serve", str(setting.model)]
        home = {"DIALOOP_HOME": str(setting.model.with_name("home"))}
        self._start([*command, *options], {**setting.environment, **home})
        self.about = "dialoop serve"
        found = re.search(r"http://\S+", self._line().decode())
        assert found is not None
        return found[0]

    def _llama(self, setting: Setting) -> str:
        binary = os.environ.get("BENCH_LLAMA_SERVER", "")
        if not binary:
            raise PeerError("missing: set BENCH_LLAMA_SERVER to a llama-server (bench/README.md)")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        threads, rows = str(setting.threads), str(setting.rows)
        options = ["--port", str(port), "--threads", threads, "--threads-batch", threads, "--parallel", rows]
        # Prompts never come again: keeping them for later (--cache-ram) would only cost it time.
        more = ["--ctx-size", str(setting.rows * setting.context), "--cache-ram", "0", "--n-gpu-layers", "0"]
        command = [binary, "--model", str(gguf_of(setting.model, "bf16")), *options, *more]
        self._start(command, setting.environment, listen=False)
        self.about = "llama-server, bf16 weights"
        self._await_health(f"http://127.0.0.1:{port}/health")
        return f"http://127.0.0.1:{port}/v1"

    def _end(self) -> None:
        self._process.terminate()

    def _await_health(self, url: str) -> None:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise PeerError(self._last_words())
            try:
                urllib.request.urlopen(url, timeout=5).close()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise PeerError(f"not up within {PATIENCE:.0f} s")


def body(prompt: Prompt, tokens: int, model: str) -> dict[str, Any]:
    """The request that every server gets."""
    return {
        "model": model, "messages": list(prompt.messages), "temperature": 0, "max_tokens": tokens,
        "stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True,
    }  # fmt: skip


async def openai_wave(url: str, requests: Sequence[Mapping[str, Any]]) -> Wave:
    """Through `openai`, the client that applications use."""
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=PATIENCE) as client:
        return await _at_once([_through(client, request) for request in requests])


async def raw_wave(url: str, requests: Sequence[Mapping[str, Any]]) -> Wave:
    """Through sockets, whose lines are looked into only after the last: it costs next to nothing."""
    return await _at_once([_over_socket(url, request) for request in requests])


WAVES = {"openai": openai_wave, "raw": raw_wave}


async def _at_once(clients: Sequence[Coroutine[Any, Any, Heard]]) -> Wave:
    start = time.perf_counter()
    heard = await asyncio.gather(*clients)
    return Wave(time.perf_counter() - start, heard)


async def _through(client: Any, request: Mapping[str, Any]) -> Heard:
    start, seconds, usage = time.perf_counter(), list[float](), None
    known = {key: value for key, value in request.items() if key != "ignore_eos"}
    extra = {"ignore_eos": request["ignore_eos"]}
    try:
        async for chunk in await client.chat.completions.create(**known, extra_body=extra):
            if any(choice.delta.content for choice in chunk.choices):
                seconds.append(time.perf_counter() - start)
            usage = chunk.usage or usage
    except openai.OpenAIError as error:
        raise PeerError(f"the openai client: {error}") from error
    if usage is None or not seconds:
        raise PeerError("a stream ended without text, or without its usage")
    return Heard(tuple(seconds), usage.prompt_tokens, usage.completion_tokens)


async def _over_socket(url: str, request: Mapping[str, Any]) -> Heard:
    at = urlsplit(url)
    assert at.hostname is not None
    payload = json.dumps(request).encode()
    head = (
        f"POST {at.path}/chat/completions HTTP/1.1\r\nHost: {at.netloc}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
    )
    start, lines = time.perf_counter(), list[tuple[float, bytes]]()
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    try:
        writer.write(head.encode() + payload)
        while line := await reader.readline():
            if line.startswith(b"data: {"):
                lines.append((time.perf_counter() - start, line))
    finally:
        writer.close()
    return _heard(lines)


def _heard(lines: Sequence[tuple[float, bytes]]) -> Heard:
    seconds, usage = [], None
    for second, line in lines:
        event = json.loads(line.removeprefix(b"data: "))
        if any(choice["delta"].get("content") for choice in event.get("choices", ())):
            seconds.append(second)
        usage = event.get("usage") or usage
    if usage is None or not seconds:
        raise PeerError("a stream ended without text, or without its usage")
    return Heard(tuple(seconds), usage["prompt_tokens"], usage["completion_tokens"])


def http(bench: Bench) -> None:
    """16 clients that stream, through the openai client and through sockets; `dialoop` is without HTTP."""
    setting = bench.setting(CLIENTS)
    starts: dict[str, Start] = {
        "dialoop": partial(Live, "dialoop", CONTESTANTS["dialoop"], setting),
        **{name: partial(Server, name, setting) for name in ("dialoop serve", "llama-server")},
    }
    runs = bench.contest(starts, *(partial(waves, bench, client=client) for client in WAVES))
    figures = [f"tokens/s, {client}" for client in WAVES]
    print(medians(runs, figures), end="\n\n")
    served = {
        f"{name}, {client}": {what: found[f"{what}, {client}"] for what in DELAYS}
        for name, found in runs.items() if name != "dialoop" for client in WAVES
    }  # fmt: skip
    print(medians(served, DELAYS) + "\n\nMilliseconds.", end="\n\n")
    print(ratios(runs, "dialoop serve", figures), end="\n\n")
    print(bars(BARS.get(bench.given.model, ()), runs))


def waves(bench: Bench, peer: Process, client: str) -> Figures:
    """Tokens a second of waves of 16 requests at once, and the delays that the clients saw."""
    tokens, firsts, gaps = bench.given.tokens, list[float](), list[float]()

    def once() -> tuple[float]:
        prompts = bench.prompts.fresh(CLIENTS, PROMPT)
        if isinstance(peer, Live):
            return (peer.generate(prompts, tokens),)
        assert isinstance(peer, Server)
        requests = [body(prompt, tokens, bench.model.name) for prompt in prompts]
        wave = asyncio.run(WAVES[client](peer.url, requests))
        for heard in wave.heard:
            if (heard.prompt_tokens, heard.completion_tokens) != (PROMPT, tokens):
                raise PeerError(f"{PROMPT} + {tokens} tokens were asked for, its usage tells of {heard}")
            firsts.append(heard.seconds[0])
            gaps.extend(b - a for a, b in pairwise(heard.seconds))
        return (wave.seconds,)

    times, (seconds,) = bench.repeated(once)
    figures = {f"tokens/s, {client}": times * CLIENTS * tokens / seconds}
    if firsts:
        cuts = [quantiles(values, n=20) for values in (firsts, gaps)]
        found = [1e3 * cut[i] for cut in cuts for i in (9, 18)]
        figures |= {f"{what}, {client}": value for what, value in zip(DELAYS, found, strict=True)}
    return figures
