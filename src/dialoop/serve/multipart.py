"""Reading a multipart form: its one file goes to the disk as it comes, the fields are short."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from dialoop.errors import echo, nearest
from dialoop.serve.errors import HttpError

WRITE_BYTES = 1 << 20
FIELD_BYTES = 4096
OVERHEAD_BYTES = 64 << 10
"""What a form may have beside its file."""


@dataclass(frozen=True, slots=True)
class Form:
    """A form whose file was written to disk. filename: as the client calls it, without folders."""

    fields: Mapping[str, str]
    filename: str | None


async def read_form(
    request: Request,
    target: Path,
    *,
    file_field: str,
    fields: Collection[str] = (),
    max_bytes: int,
    seconds: float,
) -> Form:
    """Write the file of the form to `target` and give the rest.

    Raises HttpError: 400 (no such form, a field missing, twice or unknown), 408 (nothing came for `seconds`),
    413 (a file of more than `max_bytes`), 415 (no form).
    """
    boundary = _boundary(request, max_bytes)
    try:
        with await asyncio.to_thread(target.open, "xb") as file:
            reader = _Reader(file_field, fields, max_bytes)
            parser = MultipartParser(boundary, reader.callbacks)  # type: ignore[arg-type]
            async for chunk in _chunks(request, seconds):
                parser.write(chunk)
                if len(reader.waiting) >= WRITE_BYTES:
                    await asyncio.to_thread(reader.write_to, file)
            parser.finalize()
            await asyncio.to_thread(reader.write_to, file)
    except FormParserError:
        raise HttpError(400, "the body is no multipart form: send the parts of multipart/form-data") from None
    return reader.form()


def _boundary(request: Request, max_bytes: int) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or not 0 < len(options.get(b"boundary", b"")) <= 200:
        named = echo(kind.decode("latin-1"))
        raise HttpError(415, f"content-type is {named}: send multipart/form-data with a boundary")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > max_bytes + OVERHEAD_BYTES:
        raise _too_large(max_bytes)
    return options[b"boundary"]


async def _chunks(request: Request, seconds: float) -> AsyncIterator[bytes]:
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(seconds):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise HttpError(408, f"nothing came for {seconds:g} s: send the body faster") from None
        except ClientDisconnect:
            raise HttpError(400, "the body ended early: send all of it") from None
        yield chunk


def _too_large(max_bytes: int) -> HttpError:
    return HttpError(
        413, f"the file is longer than {max_bytes} bytes: send less, or raise --max-file-bytes", param="file"
    )


@dataclass(slots=True)
class _Reader:
    """Takes what the parser finds; holds the bytes of the file until they are written."""

    file_field: str
    known: Collection[str]
    max_bytes: int
    waiting: bytearray = field(default_factory=bytearray)
    _total: int = 0
    _overhead: int = 0
    _filename: str | None = None
    _seen: dict[str, bytearray] = field(default_factory=dict)
    _name: str = ""
    _header: bytearray = field(default_factory=bytearray)
    _value: bytearray = field(default_factory=bytearray)
    _disposition: bytes = b""
    _whole: bool = False

    @property
    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_end,
            "on_part_data": self._data,
            "on_end": self._end,
        }

    def write_to(self, file: IO[bytes]) -> None:
        file.write(self.waiting)
        self.waiting.clear()

    def form(self) -> Form:
        if not self._whole:
            raise HttpError(400, "the form ends before its last boundary: send all of it")
        if self.file_field not in self._seen:
            raise HttpError(400, f"{self.file_field} is missing: add the file", param=self.file_field)
        seen = {name: value for name, value in self._seen.items() if name != self.file_field}
        try:
            fields = {name: value.decode("utf-8") for name, value in seen.items()}
        except UnicodeDecodeError:
            raise HttpError(400, "a field of the form is not UTF-8: send it as UTF-8") from None
        return Form(fields, self._filename)

    def _begin(self) -> None:
        self._disposition = b""

    def _end(self) -> None:
        self._whole = True

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]
        self._count(end - start)

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._count(end - start)

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header, self._value = bytearray(), bytearray()

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name != self.file_field and name not in self.known:
            close = nearest(name[:64], [self.file_field, *self.known])
            raise HttpError(400, f"unknown field {echo(name)} in the form{close}", param=name[:64])
        if name in self._seen:
            raise HttpError(400, f"{name} came twice: send it once", param=name)
        self._name, self._seen[name] = name, bytearray()
        if name == self.file_field and b"filename" in options:
            self._filename = plain_filename(options[b"filename"].decode("utf-8", "replace"))

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._name != self.file_field:
            self._seen[self._name] += data[start:end]
            self._count(end - start)
            if len(self._seen[self._name]) > FIELD_BYTES:
                raise HttpError(
                    400, f"{self._name} is longer than {FIELD_BYTES} bytes: shorten it", param=self._name
                )
            return
        self._total += end - start
        if self._total > self.max_bytes:
            raise _too_large(self.max_bytes)
        self.waiting += data[start:end]

    def _count(self, size: int) -> None:
        self._overhead += size
        if self._overhead > OVERHEAD_BYTES:
            raise HttpError(400, "the form holds too much beside its file: leave out what is not needed")


def plain_filename(filename: str) -> str:
    """Without folders and control characters. Raises HttpError."""
    name = "".join(c for c in filename.replace("\\", "/").rpartition("/")[2] if c.isprintable())
    if not 0 < len(name) <= 255:
        raise HttpError(400, f"the file's name has {len(name)} characters: give it 1 to 255", param="file")
    return name
