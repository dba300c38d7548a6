"""The process around the app: its socket, its signals and its end."""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from dialoop.errors import ConfigError
from dialoop.serve.guard import LOOPBACK_HOSTS

SIGNALS = (signal.SIGINT, signal.SIGTERM)


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


def hosts_for(host: str, api_key: str | None) -> frozenset[str] | None:
    """Host names to accept. Raises ConfigError where everyone would be let in without a key."""
    if is_loopback(host):
        return LOOPBACK_HOSTS if api_key is None else None
    if api_key is None:
        raise ConfigError(
            f"--host {host} without a key would serve everyone who can reach it: "
            f"add --api-key, or keep to 127.0.0.1"
        )
    return None


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
    """Ends on SIGINT or SIGTERM once open streams have finished, with exit code 0; a second SIGINT is abrupt.

    grace: seconds that open streams get.
    """

    def __init__(self, app: FastAPI, *, grace: float = 25.0) -> None:
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
