"""A real server on a loopback port."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dialoop.serve.app import make_app
from dialoop.serve.server import Server, bind, url_of
from dialoop.types import Engine

WAIT = 240
"""Seconds that a command's server may take to end."""


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


@contextmanager
def commanded(home: Path, *arguments: str, **environment: str) -> Iterator[str]:
    """The base URL, with /v1, of `dialoop serve ARGUMENTS` on a home, ended as a service manager would."""
    code = "from dialoop.cli import main; main()"
    command = [sys.executable, "-c", code, "--home", str(home), "serve", *arguments, "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().split(" on ")[1].strip()
        finally:
            process.terminate()
            assert process.wait(WAIT) == 0
