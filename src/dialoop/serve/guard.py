"""Who may come in: a key and its scopes, a Host header, and no faster than agreed."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dialoop.access.account import Account, charged_to
from dialoop.access.caller import Caller
from dialoop.access.keyring import Keyring
from dialoop.access.ledger import Ledger
from dialoop.access.scopes import covers
from dialoop.errors import OverloadedError
from dialoop.serve.caller import answering
from dialoop.serve.errors import HttpError, http_error
from dialoop.serve.routes import OPEN_PATHS, asks_a_model, scopes_for

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(frozen=True, slots=True)
class Locks:
    """What opens a server.

    api_key: one that may do everything, None = none.  keyring, ledger: of a store, None = without one.
    hosts: accepted Host names without port where no key is asked for, None = any; they stop web pages that
    rebind their name to loopback.  project: of those who come in without a key of the store.
    """

    api_key: str | None = None
    hosts: Collection[str] | None = None
    project: str = ""
    keyring: Keyring | None = None
    ledger: Ledger | None = None

    async def locked(self) -> bool:
        """Whether a key is asked for."""
        return self.api_key is not None or (self.keyring is not None and await self.keyring.locked())


class Guard:
    """Refuses before any route is looked up; only OPEN_PATHS need no key."""

    def __init__(self, app: ASGIApp, *, locks: Locks) -> None:
        self._app = app
        self._locks = locks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        caller, account = await self._enter(scope)
        scope.setdefault("state", {})["caller"] = caller

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start" and account is not None:
                MutableHeaders(scope=message).update(account.headers())
            await send(message)

        with charged_to(account), answering(caller, scope["state"].get("request_id", "")):
            if account is not None and asks_a_model(scope.get("method", ""), scope["path"]):
                try:
                    account.count_request()
                except OverloadedError as error:
                    await http_error(error).response()(scope, receive, counted)
                    return
            await self._app(scope, receive, counted)

    async def _enter(self, scope: Scope) -> tuple[Caller, Account | None]:
        """Raises HttpError."""
        headers, locks = Headers(scope=scope), self._locks
        everything = Caller(locks.project)
        locked = await locks.locked()
        if not locked and locks.hosts is not None:
            _check_host(headers.get("host", ""), locks.hosts)
        if not locked or scope["path"] in OPEN_PATHS:
            return everything, None
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        secret = secret.strip() if scheme.lower() == "bearer" else ""
        if locks.api_key is not None and secrets.compare_digest(secret.encode(), locks.api_key.encode()):
            return everything, None
        return await self._by_key(secret, scope)

    async def _by_key(self, secret: str, scope: Scope) -> tuple[Caller, Account | None]:
        keyring, ledger = self._locks.keyring, self._locks.ledger
        key = None if keyring is None else await keyring.find(secret)
        if key is None or ledger is None:
            raise HttpError(
                401,
                "no valid API key came with the request: send the header `Authorization: Bearer KEY`",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )
        needed = scopes_for(scope.get("method", "GET"), scope["path"])
        if not covers(key.scopes, needed):
            raise HttpError(
                403,
                f"this route needs a key for {' and '.join(sorted(needed))}, and this one is for "
                f"{', '.join(key.scopes)}: make another with dialoop keys create --scopes",
                code="insufficient_permissions",
            )
        return Caller(key.project_id, key.id, frozenset(key.scopes)), await ledger.account(key)


def _check_host(host: str, hosts: Collection[str]) -> None:
    """Raises HttpError."""
    if _without_port(host).lower() not in hosts:
        raise HttpError(
            403,
            "this Host is not served: call the server localhost, or start it with --host and a key",
            code="host_not_allowed",
        )


def _without_port(host: str) -> str:
    """`[::1]:80` and `name:80` without the port."""
    bracket = host.find("]")
    return host[: bracket + 1] if bracket >= 0 else host.partition(":")[0]
