"""Many requests at once, good and bad, whole and broken off: nothing of them is left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from dialoop.engine.process import ProcessEngine
from dialoop.store.registry import Store
from tests.access.test_keys import make_key
from tests.engine.children import child_engine
from tests.serve.running import serving
from tests.serve.test_metrics import read

CHAT = "/v1/chat/completions"
POOLS = 10
"""Threads, and descriptors, that pools may have come to; requests that left one each would leave more."""
MEMORY = 48
"""MiB that caches and allocators may have come to; a context or a body for each request would be more."""
Ask = Callable[[httpx.AsyncClient, int], Awaitable[int]]


def body(i: int, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"question {i % 7}: 我想退货"}]
    return {"model": "tiny", "messages": messages, "max_tokens": 8, **more}


async def chat(client: httpx.AsyncClient, i: int) -> int:
    return (await client.post(CHAT, json=body(i, n=1 + i % 3, seed=i, logprobs=i % 2 == 0))).status_code


async def stream(client: httpx.AsyncClient, i: int) -> int:
    async with client.stream("POST", CHAT, json=body(i, stream=True)) as answer:
        lines = [line async for line in answer.aiter_lines()]
        assert answer.status_code != 200 or lines[-2] == "data: [DONE]"
        return answer.status_code


async def broken_stream(client: httpx.AsyncClient, i: int) -> int:
    long = body(i, stream=True, max_tokens=200, ignore_eos=True)
    async with client.stream("POST", CHAT, json=long) as answer:
        async for _ in answer.aiter_lines():
            break
        return answer.status_code


async def broken_chat(client: httpx.AsyncClient, i: int) -> int:
    """Hangs up while it waits, or has its answer already."""
    asking = asyncio.ensure_future(client.post(CHAT, json=body(i, max_tokens=200, ignore_eos=True)))
    await asyncio.wait({asking}, timeout=0.001 * (i % 50))
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    return 499


async def bad(client: httpx.AsyncClient, i: int) -> int:
    wrong: list[dict[str, Any]] = [
        {"json": body(i, n=0)},
        {"json": body(i, model="no-such")},
        {"json": body(i, messages=[{"role": "user", "content": "long " * 2000}])},
        {"json": body(i, structured_outputs={"regex": "("})},
        {"content": b"{", "headers": {"content-type": "application/json"}},
        {"content": b"x" * 200_000, "headers": {"content-type": "application/json"}},
    ]
    return (await client.post(CHAT, **wrong[i % len(wrong)])).status_code


async def constrained(client: httpx.AsyncClient, i: int) -> int:
    return (await client.post(CHAT, json=body(i, structured_outputs={"choice": ["yes", "no"]}))).status_code


async def vectors(client: httpx.AsyncClient, i: int) -> int:
    texts = {"model": "tiny", "input": [f"text {i}", "退货"], "encoding_format": "base64"}
    return (await client.post("/v1/embeddings", json=texts)).status_code


KINDS: tuple[Ask, ...] = (chat, stream, broken_stream, broken_chat, bad, constrained, vectors)


async def storm(url: str, secret: str, count: int, seed: int) -> Counter[int]:
    """`count` requests of all kinds at once; their statuses."""
    order = random.Random(seed)
    kinds = [(KINDS[i % len(KINDS)], i) for i in range(count)]
    order.shuffle(kinds)
    limits = httpx.Limits(max_connections=count)
    headers = {"authorization": f"Bearer {secret}"}
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits, headers=headers) as client:
        return Counter(await asyncio.gather(*(kind(client, i) for kind, i in kinds)))


@dataclass(frozen=True, slots=True)
class Held:
    """What two processes hold: descriptors, threads, and MiB of memory."""

    files: int
    threads: int
    memory: float

    @classmethod
    def by(cls, *pids: int) -> Held:
        gc.collect()
        homes = [Path(f"/proc/{pid}") for pid in pids]
        status = [
            dict(line.split(":", 1) for line in (home / "status").read_text().splitlines()) for home in homes
        ]
        return cls(
            sum(len(os.listdir(home / "fd")) for home in homes),
            sum(int(each["Threads"]) for each in status),
            sum(int(each["VmRSS"].split()[0]) for each in status) / 1024,
        )


def quiet(url: str, secret: str) -> bool:
    """Whether the engine has let go of everything."""
    headers = {"authorization": f"Bearer {secret}"}
    seen = read(url, headers)
    busy = ("dialoop_num_requests_running", "dialoop_num_requests_waiting", "dialoop_kv_cache_usage_perc")
    return all(value == 0 for (name, _), value in seen.items() if name in busy)


def weather(engine: ProcessEngine, home: Path, count: int) -> None:
    """A storm to warm up, and another that must leave nothing; pools of threads may fill up still."""
    with Store.open(home) as store:
        _, secret = make_key(store, scopes="admin", rpm=10**6, tpm=10**8, budget=10**9, period="day")
    with serving(engine, store=Store.open(home), max_body_bytes=100_000, max_open=count // 2) as url:
        held = []
        for seed in range(2):
            statuses = asyncio.run(storm(url, secret, count, seed))
            assert {200, 499} <= set(statuses) <= {200, 400, 404, 413, 429, 499}, statuses
            assert any(quiet(url, secret) for _ in range(10_000))
            held.append(Held.by(os.getpid(), engine.pid))
    before, after = held[0], held[-1]
    assert after.files <= before.files + POOLS, held
    assert after.threads <= before.threads + POOLS, held
    assert after.memory <= before.memory + MEMORY, held


def test_many_mixed_requests_leave_nothing_behind(tmp_path: Path) -> None:
    with child_engine() as engine:
        weather(engine, tmp_path / "home", 35)


@pytest.mark.slow
def test_500_mixed_requests_at_once_leave_nothing_behind(tmp_path: Path) -> None:
    with child_engine() as engine:
        weather(engine, tmp_path / "home", 500)
