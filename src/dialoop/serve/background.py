"""Work that goes on beside the requests for as long as the server runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any

from dialoop.serve.errors import http_error

Work = Callable[[], Coroutine[Any, Any, None]]
RESTART_SECONDS = 5.0


@asynccontextmanager
async def working(works: Iterable[Work]) -> AsyncGenerator[None, None]:
    """Run all of `works`; at the end they are cancelled and waited for. One that fails is begun again."""
    tasks = [asyncio.create_task(_kept_going(work)) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _kept_going(work: Work) -> None:
    while True:
        try:
            return await work()
        except Exception as error:
            http_error(error)  # logs it
            await asyncio.sleep(RESTART_SECONDS)
