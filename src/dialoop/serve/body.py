"""Reading a JSON body: bounded, strict, and never repeated in an error."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from fastapi import Request
from starlette.requests import ClientDisconnect

from dialoop.errors import echo
from dialoop.serve.errors import HttpError


async def read_json(request: Request, *, max_bytes: int, seconds: float) -> dict[str, Any]:
    """The body as a JSON object.

    Raises HttpError: 400 (not one unambiguous JSON object in UTF-8), 408 (slower than `seconds`),
    413 (more than `max_bytes`), 415 (another type or a compressed body).
    """
    _check_headers(request)
    return parse_object(await read_body(request, max_bytes=max_bytes, seconds=seconds))


async def read_body(request: Request, *, max_bytes: int, seconds: float) -> bytes:
    """The body. Raises HttpError: 400 (cut off), 408 (slower than `seconds`), 413 (more than `max_bytes`)."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > max_bytes:
        raise _too_large(max_bytes)
    try:
        async with asyncio.timeout(seconds):
            return await _read(request, max_bytes)
    except TimeoutError:
        raise HttpError(408, f"the body took longer than {seconds:g} s: send it faster") from None
    except ClientDisconnect:
        raise HttpError(400, "the body ended early: send all of it") from None


def _check_headers(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HttpError(415, f"content-type is {echo(kind)}: send application/json")
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise HttpError(415, f"content-encoding is {echo(encoding)}: send the body uncompressed")


async def _read(request: Request, max_bytes: int) -> bytes:
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > max_bytes:
            raise _too_large(max_bytes)
    return bytes(raw)


def _too_large(max_bytes: int) -> HttpError:
    return HttpError(413, f"the body is longer than {max_bytes} bytes: send less, or raise --max-body-bytes")


def parse_object(raw: bytes) -> dict[str, Any]:
    """The one JSON object in `raw`. Raises HttpError(400) for anything else."""
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_unique)
        if b"\\u" in raw:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise HttpError(400, f"the body is not UTF-8 (byte {error.start}): send JSON in UTF-8") from None
    except UnicodeEncodeError:
        raise HttpError(400, "the body holds half a surrogate pair: escape whole characters") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise HttpError(400, f"the body is not JSON ({where}: {error.msg}): send a JSON object") from None
    except RecursionError:
        raise HttpError(400, "the body is nested too deeply: send a flatter JSON object") from None
    except ValueError as error:
        raise HttpError(400, f"the body is not usable JSON ({str(error)[:80]}): send a JSON object") from None
    if not isinstance(value, dict):
        raise HttpError(400, f"the body is {echo(value)}: send a JSON object")
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("an object names the same field twice")
    return value
