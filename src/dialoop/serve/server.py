"""The process around the app: its socket, its signals and its end."""

from __future__ import annotations

import ipaddress
import logging
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from fastapi import FastAPI

from dialoop.errors import ConfigError, echo
from dialoop.serve.admission import Doors
from dialoop.serve.guard import LOOPBACK_HOSTS

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ORIGIN = re.compile(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(?::\d{1,5})?")


def bind(host: str, port: int) -> socket.socket:
    """A socket listening on `host`; port 0 takes a free one. Raises ConfigError where it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(2048)
    except (OSError, OverflowError) as error:
        listening.close()
        reason = error.strerror if isinstance(error, OSError) else None
        mend = "stop what listens there, or choose another with --port and --host"
        raise ConfigError(
            f"{host}:{port} cannot be used ({(reason or str(error)).lower()}): {mend}"
        ) from None
    return listening


def hosts_for(host: str, keyed: bool) -> frozenset[str]:
    """Host names to accept without a key. Raises ConfigError where everyone would be let in."""
    if is_loopback(host):
        return LOOPBACK_HOSTS
    if not keyed:
        raise ConfigError(
            f"--host {host} without a key would serve everyone who can reach it: make one with "
            f"dialoop keys create, add --api-key, or keep to 127.0.0.1"
        )
    return frozenset()


def check_origins(origins: list[str], keyed: bool) -> None:
    """Raises ConfigError for what is no origin, and where every web page would be let in."""
    for origin in origins:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ConfigError(
                f"--cors-origin {echo(origin)} is no origin: give scheme, host and port alone, "
                f"such as https://chat.example.org"
            )
    if "*" in origins and not keyed:
        raise ConfigError(
            "--cors-origin '*' without a key would serve every web page that is opened here: "
            "name the pages' origins, or make a key with dialoop keys create"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def url_of(listening: socket.socket) -> str:
    """The base URL of a listening socket."""
    host, port = listening.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


class Server(uvicorn.Server):
    """Ends on SIGINT or SIGTERM once open requests are answered, with exit code 0; a second SIGINT is abrupt.

    Meanwhile it listens still, takes no new work, and `/ready` says so.  grace: seconds that open requests
    get; those of clients that have stopped reading are broken off after it.
    """

    def __init__(self, app: FastAPI, *, grace: float = 18.0) -> None:
        self._doors: Doors = app.state.doors
        self._grace = grace
        self._draining_since = 0.0
        super().__init__(
            uvicorn.Config(
                app,
                log_level=logging.WARNING,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=int(grace),
                lifespan="on",
            )
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains."""
        if self._doors.draining:
            self.should_exit = True
            super().handle_exit(sig, frame)
            return
        self._draining_since = time.monotonic()
        self._doors.draining = True

    async def on_tick(self, counter: int) -> bool:
        """As uvicorn's; when all is answered, or time is up, the listening ends too."""
        if self._doors.draining and not self.should_exit:
            late = time.monotonic() - self._draining_since > self._grace
            self.should_exit = late or not self.server_state.tasks
            if late:
                self.config.timeout_graceful_shutdown = 1
        return await super().on_tick(counter)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's own, without raising the signal once more after a clean end."""
        try:
            before = {number: signal.signal(number, self.handle_exit) for number in SIGNALS}
        except ValueError:  # signals reach the main thread only
            yield
            return
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
