"""A real server on a loopback port."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dialoop.serve.app import make_app
from dialoop.serve.server import Server, bind, url_of
from dialoop.types import Engine


@contextmanager
def serving(engine: Engine, **options: object) -> Iterator[str]:
    """The base URL of `engine` served by uvicorn; the socket listens from the start."""
    listening = bind("127.0.0.1", 0)
    server = Server(make_app(engine, **options))  # type: ignore[arg-type]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield url_of(listening)
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
