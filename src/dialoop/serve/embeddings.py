"""POST /v1/embeddings."""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema
from starlette.responses import Response

from dialoop.errors import RequestError, UnsupportedError, echo
from dialoop.serve.body import read_json
from dialoop.serve.connection import ClientGoneError, while_connected
from dialoop.serve.wire import refusal
from dialoop.types import Embed, Embedded, Engine

MAX_TEXTS = 2048
"""Of one request, as at OpenAI."""
_IDS = {"type": "array", "items": {"type": "integer"}, "minItems": 1}
_INPUT = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": MAX_TEXTS},
        _IDS,
        {"type": "array", "items": _IDS, "maxItems": MAX_TEXTS},
    ]
}


class EmbeddingBody(BaseModel):
    """The body of POST /v1/embeddings; null means absent."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    model: str
    """A served model: see /v1/models."""
    input: Annotated[Any, WithJsonSchema(_INPUT)]
    """A text, texts, or the token ids of one or of several."""
    encoding_format: Literal["float", "base64"] = "float"
    """Numbers, or their little-endian float32 bytes."""
    dimensions: int | None = Field(None, ge=1)
    """Cut the vectors to so many numbers; only for models that were trained to be cut."""
    user: str | None = None
    """Hint: an end user's id; not used."""


@dataclass(frozen=True, slots=True)
class ParsedEmbedding:
    """An embedding request, read."""

    model: str
    texts: Sequence[str | Sequence[int]]
    base64: bool
    dimensions: int | None


def parse_embedding(body: Mapping[str, Any]) -> ParsedEmbedding:
    """The request in `body`. Raises RequestError with the field at fault."""
    try:
        asked = EmbeddingBody.model_validate({name: v for name, v in body.items() if v is not None})
    except ValidationError as error:
        raise refusal(dict(error.errors(include_url=False)[0])) from None
    return ParsedEmbedding(
        asked.model, _texts(asked.input), asked.encoding_format == "base64", asked.dimensions
    )


def _texts(given: Any) -> Sequence[str | Sequence[int]]:
    if isinstance(given, str) or _are_ids(given):
        return [given]
    if (
        isinstance(given, list)
        and given
        and (all(isinstance(x, str) for x in given) or all(map(_are_ids, given)))
    ):
        if len(given) > MAX_TEXTS:
            raise RequestError(
                f"input has {len(given)} texts, expected at most {MAX_TEXTS}: send them in several requests",
                param="input",
            )
        return given
    raise RequestError(
        f"input = {echo(given)}: expected a text, texts, or the token ids of one or of several", param="input"
    )


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(each) is int for each in value)


def embedding_to_openai(found: Embedded, asked: ParsedEmbedding) -> dict[str, Any]:
    """The body of the response."""
    write = _base64 if asked.base64 else list
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": i, "embedding": write(vector)}
            for i, vector in enumerate(found.vectors)
        ],
        "model": asked.model,
        "usage": {"prompt_tokens": found.prompt_tokens, "total_tokens": found.prompt_tokens},
    }


def _base64(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def embedding_routes(engine: Engine, *, max_body_bytes: int, body_seconds: float) -> APIRouter:
    """The embedding route over `engine`, which may not embed at all."""
    router = APIRouter()
    schema = {"application/json": {"schema": EmbeddingBody.model_json_schema()}}

    @router.post(
        "/v1/embeddings",
        openapi_extra={"requestBody": {"required": True, "content": schema}},
        response_class=JSONResponse,
    )
    async def create_embeddings(request: Request) -> Response:
        """Texts as vectors of length 1."""
        asked = parse_embedding(await read_json(request, max_bytes=max_body_bytes, seconds=body_seconds))
        if not isinstance(engine, Embed):
            raise UnsupportedError("this engine does not embed: serve a model with one that does")
        work = engine.embed(asked.model, asked.texts, dimensions=asked.dimensions)
        try:
            found = await while_connected(request.receive, work)
        except ClientGoneError:
            return Response(status_code=499)
        return await asyncio.to_thread(lambda: JSONResponse(embedding_to_openai(found, asked)))

    return router
