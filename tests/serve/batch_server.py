"""A server to be killed: `python batch_server.py HOME ASKED ANSWERS`, which prints its URL.

It writes what it is asked to the file ASKED, and answers nothing more after so many ANSWERS.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

from dialoop.backends.echo import EchoEngine, last_user_turn
from dialoop.serve.app import make_app
from dialoop.serve.server import Server, bind, url_of
from dialoop.store.registry import Store
from dialoop.types import ChatRequest, Delta


class Tiring(EchoEngine):
    """Writes down what it is asked."""

    def __init__(self, asked: Path, answers: int) -> None:
        super().__init__()
        self._asked, self._left = asked, answers

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        with self._asked.open("a") as file:
            file.write(last_user_turn(request.conversation) + "\n")
        self._left -= 1
        if self._left < 0:
            await asyncio.get_running_loop().create_future()
        async for delta in super().chat(request):
            yield delta


if __name__ == "__main__":
    home, asked, answers = sys.argv[1:]
    with bind("127.0.0.1", 0) as listening:
        engine = Tiring(Path(asked), int(answers))
        app = make_app(engine, store=Store.open(Path(home)))
        print(url_of(listening), flush=True)
        Server(app).run(sockets=[listening])
