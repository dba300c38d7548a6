"""What makes a request the same as another, taken while its body passes by: no body is held for it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request
from starlette.types import Message

from dialoop.serve.errors import HttpError


class Fingerprint:
    """Of a request's path, query and body. Read the body through `receive`, then ask for the `whole`.

    A form counts by its parts: their boundary is drawn anew whenever a client sends it again.
    max_bytes, seconds: a longer body, and one of which nothing came for so long, is given up.
    """

    def __init__(self, request: Request, *, max_bytes: int, seconds: float) -> None:
        self._receive, self._left, self._seconds = request.receive, max_bytes, seconds
        self._digest = hashlib.sha256(f"{request.scope['path']}\n{request.url.query}\n".encode())
        self._ended = False
        self._take = self._reader(request.headers.get("content-type", ""))

    async def receive(self) -> Message:
        """The next message of the request."""
        message = await self._receive()
        if message["type"] == "http.request":
            self._take(message.get("body", b""))
            self._left -= len(message.get("body", b""))
            self._ended = not message.get("more_body")
        else:
            self._ended = True
        return message

    async def whole(self) -> str:
        """The fingerprint, once what nobody has read of the body has come. Raises HttpError: 408, 413."""
        while not self._ended:
            if self._left < 0:
                raise HttpError(413, "the body is longer than any that is taken: send less")
            try:
                async with asyncio.timeout(self._seconds):
                    await self.receive()
            except TimeoutError:
                raise HttpError(408, f"nothing came for {self._seconds:g} s: send the body faster") from None
        return self._digest.hexdigest()

    def _reader(self, content_type: str) -> Callable[[bytes], object]:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not 0 < len(boundary) <= 200:
            return self._digest.update
        parser = MultipartParser(boundary, self._callbacks())  # type: ignore[arg-type]

        def read(data: bytes) -> None:
            try:
                parser.write(data)
            except FormParserError:  # the route refuses it, so that nothing is kept
                self._take = self._digest.update

        return read

    def _callbacks(self) -> dict[str, object]:
        def mark(sign: bytes) -> Callable[[], None]:
            return lambda: self._digest.update(sign)

        def add(data: bytes, start: int, end: int) -> None:
            self._digest.update(memoryview(data)[start:end])

        return {
            "on_part_begin": mark(b"\0part\0"),
            "on_header_field": add,
            "on_header_value": add,
            "on_header_end": mark(b"\0header\0"),
            "on_headers_finished": mark(b"\0body\0"),
            "on_part_data": add,
        }
