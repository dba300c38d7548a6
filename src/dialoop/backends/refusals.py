"""What an upstream's refusal means to whoever asked us."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from dialoop.errors import (
    ContextLengthError,
    DialoopError,
    EngineDownError,
    OverloadedError,
    RequestError,
    UnknownModelError,
)

LONGEST = 200
MISCONFIGURED_SECONDS = 60
"""What a client is told to wait where only the operator can help; the official ones retry below 120."""
# Ours and llama.cpp's; OpenAI's and vLLM's, which name the context first.
_PROMPT_FIRST = re.compile(r"(\d+) tokens.{0,80}?context (?:holds|size) \(?(\d+)", re.S)
_CONTEXT_FIRST = re.compile(
    r"maximum context length is (\d+) tokens.{0,200}?"
    r"(?:resulted in|contains(?: at least)?|prompt has|messages has) (\d+)",
    re.S,
)


def refusal(name: str, status: int, headers: Mapping[str, str], raw: bytes, *, model: str) -> DialoopError:
    """The error for an answer that is no 2xx. name: the upstream's.  model: as it calls what was asked."""
    fields = _fields(raw)
    message = _line(fields.get("message"))
    if status == 429:
        wait = retry_after(headers) or 1
        return OverloadedError(f"upstream {name} takes no more requests for now", retry_after=wait)
    if status in (401, 403):
        return EngineDownError(
            f"upstream {name} does not let this server in (HTTP {status}): its key is to be set by whoever "
            f"runs this server",
            retry_after=MISCONFIGURED_SECONDS,
        )
    if status == 408 or status >= 500:
        wait = retry_after(headers) or 1
        return EngineDownError(f"upstream {name} failed (HTTP {status})", retry_after=wait)
    if status < 400:
        return EngineDownError(f"upstream {name} points elsewhere (HTTP {status}): its URL is to be mended")
    if status == 404 and "model" in message:
        return UnknownModelError(model, ())
    if status in (404, 405):
        return EngineDownError(
            f"upstream {name} has no such route (HTTP {status}): its URL is to be mended, it ends in /v1",
            retry_after=MISCONFIGURED_SECONDS,
        )
    numbers = context_numbers(fields)
    if numbers is not None:
        return ContextLengthError(*numbers)
    param = fields.get("param")
    return RequestError(
        f"upstream {name} refused the request (HTTP {status}): {message or 'it does not say why'}",
        param=param[:64] if isinstance(param, str) else None,
    )


def context_numbers(fields: Mapping[str, Any]) -> tuple[int, int] | None:
    """(tokens of the prompt, tokens that the context holds), where that was the reason."""
    told = (fields.get("n_prompt_tokens"), fields.get("n_ctx"))
    if isinstance(told[0], int) and isinstance(told[1], int):
        return told[0], told[1]
    message = str(fields.get("message", ""))[:2000]
    if found := _PROMPT_FIRST.search(message):
        return int(found[1]), int(found[2])
    if found := _CONTEXT_FIRST.search(message):
        return int(found[2]), int(found[1])
    return None


def retry_after(headers: Mapping[str, str]) -> int | None:
    """Whole seconds of `Retry-After`, a number or a date; None where there is none that makes sense."""
    told = headers.get("retry-after", "").strip()
    try:
        seconds = float(told)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(told) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return min(math.ceil(seconds), 3600) if 0 < seconds < math.inf else None


def _fields(raw: bytes) -> Mapping[str, Any]:
    """The error object, in whichever of the shapes that servers send."""
    try:
        body = json.loads(raw)
    except ValueError:
        return {}
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, dict):
        return {"message": error.get("detail"), **error}
    return {"message": error}


def _line(message: object) -> str:
    """An upstream's words on one bounded line."""
    return " ".join(message.split())[:LONGEST] if isinstance(message, str) else ""
