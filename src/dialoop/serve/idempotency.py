"""Idempotency-Key: the same request twice is done once, and answered alike."""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dialoop.serve.caller import caller_of
from dialoop.serve.errors import HttpError
from dialoop.serve.fingerprint import Fingerprint
from dialoop.store.replies import KeptReply, Replies

LONGEST_KEY = 255
LONGEST_REPLY = 4 * 2**20
"""Bytes of an answer that is kept."""


class Idempotency:
    """Keeps the answers of 2xx to POSTs that name a key, for a day, by project; others may be tried again.

    replies: a project's kept answers.  max_bytes, seconds: as for `Fingerprint`.
    """

    def __init__(
        self, app: ASGIApp, *, replies: Callable[[str], Replies], max_bytes: int, seconds: float
    ) -> None:
        self._app, self._replies = app, replies
        self._bounds = max_bytes, seconds
        self._busy: set[tuple[str, str]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = Headers(scope=scope).get("idempotency-key") if scope["type"] == "http" else None
        if key is None or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        if not 1 <= len(key) <= LONGEST_KEY or not key.isprintable():
            raise HttpError(
                400, f"the Idempotency-Key has {len(key)} characters: send 1 to {LONGEST_KEY} printable ones"
            )
        await self._once(key, Request(scope, receive), send)

    async def _once(self, key: str, request: Request, send: Send) -> None:
        place = caller_of(request).project, key
        replies = self._replies(place[0])
        if place in self._busy:
            raise HttpError(
                409, "a request with this Idempotency-Key is being answered: wait for it, and try again",
                code="idempotency_key_in_use", headers={"retry-after": "1"},
            )  # fmt: skip
        self._busy.add(place)
        max_bytes, seconds = self._bounds
        asked = Fingerprint(request, max_bytes=max_bytes, seconds=seconds)
        try:
            if kept := await to_thread(replies.find, key):
                await _again(kept, await asked.whole())(request.scope, request.receive, send)
                return
            copy = Copy(send)
            await self._app(request.scope, asked.receive, copy.send)
            if copy.whole:
                await to_thread(replies.keep, copy.reply(key, await asked.whole()))
                await copy.flush()
        finally:
            self._busy.discard(place)


class Copy:
    """Passes a response on and remembers it; the last of it waits until it is kept."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._kind = ""
        self._body: bytearray | None = bytearray()
        self._last: Message | None = None
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self._kind = (
                message["status"],
                Headers(raw=message["headers"]).get("content-type", ""),
            )
            if self._kind.startswith("text/event-stream"):
                self._body = None
        else:
            self._add(message.get("body", b""))
            if not message.get("more_body") and 200 <= self.status < 300:
                self._last = message
                return
        await self._send(message)

    @property
    def whole(self) -> bool:
        """Whether all of a good answer has come, and its end is held back."""
        return self._last is not None

    async def flush(self) -> None:
        """Send what was held back."""
        assert self._last is not None
        await self._send(self._last)

    def reply(self, key: str, fingerprint: str) -> KeptReply:
        """What was sent."""
        body = None if self._body is None else bytes(self._body)
        return KeptReply(key, fingerprint, self.status, self._kind, body)

    def _add(self, data: bytes) -> None:
        if self._body is not None:
            self._body += data
            if len(self._body) > LONGEST_REPLY:
                self._body = None


def _again(kept: KeptReply, fingerprint: str) -> Response:
    """The answer once more. Raises HttpError."""
    if kept.fingerprint != fingerprint:
        raise HttpError(
            400, "this Idempotency-Key came with another request before: use a new one for each request",
            code="idempotency_key_reused",
        )  # fmt: skip
    if kept.body is None:
        raise HttpError(
            409, "the request with this Idempotency-Key was done, and its answer was streamed or too long to "
            "be kept: use a new key to have it done again",
            code="idempotency_key_used", headers={"x-should-retry": "false"},
        )  # fmt: skip
    answer = Response(kept.body, kept.status, media_type=None)
    MutableHeaders(raw=answer.raw_headers).update(
        {"content-type": kept.media_type, "idempotent-replayed": "true"}
    )
    return answer
