"""Several streams as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

T = TypeVar("T")


async def merged(
    streams: Sequence[AsyncGenerator[T, None]], *, width: int
) -> AsyncGenerator[tuple[int, T], None]:
    """What `streams` give, as it comes, each with its stream's number; at most `width` run side by side.

    The first error ends all of them.
    """
    queue: asyncio.Queue[tuple[int, T] | BaseException | None] = asyncio.Queue(width)
    places = asyncio.Semaphore(width)

    async def run(number: int, stream: AsyncGenerator[T, None]) -> None:
        async with places, aclosing(stream):
            try:
                async for each in stream:
                    await queue.put((number, each))
                await queue.put(None)
            except Exception as error:
                await queue.put(error)

    tasks = [asyncio.create_task(run(number, stream)) for number, stream in enumerate(streams)]
    try:
        left = len(tasks)
        while left:
            got = await queue.get()
            if isinstance(got, BaseException):
                raise got
            if got is None:
                left -= 1
            else:
                yield got
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
