"""POST /tokenize and /detokenize, in vLLM's shape."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field, WithJsonSchema

from dialoop.errors import RequestError, UnsupportedError
from dialoop.serve.bodies import Body, add_route
from dialoop.serve.fields import MAX_TOKENS
from dialoop.serve.wire import parse_chat
from dialoop.types import Tokenize, Tokenized


class TokenizeBody(Body):
    """The body of POST /tokenize: a prompt, or a chat."""

    model: str
    """A served model: see /v1/models."""
    prompt: str | None = None
    """A text. Control tokens that it spells are such."""
    messages: Annotated[list[Any], WithJsonSchema({"type": "array", "items": {"type": "object"}})] | None = (
        None
    )
    """A chat instead, made into a prompt as /v1/chat/completions makes it."""
    tools: Annotated[list[Any], WithJsonSchema({"type": "array", "items": {"type": "object"}})] | None = None
    """Of the chat."""
    add_generation_prompt: bool | None = None
    """Of the chat."""
    continue_final_message: bool = False
    """Of the chat."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Of the chat."""
    add_special_tokens: bool | None = None
    """Of a prompt: put those around it that the tokenizer puts around every text. Absent = true."""
    return_token_strs: bool = False
    """Tell what each token is written as in the vocabulary."""


class DetokenizeBody(Body):
    """The body of POST /detokenize."""

    model: str
    """A served model: see /v1/models."""
    tokens: list[Annotated[int, Field(ge=0, le=MAX_TOKENS)]]
    """Token ids."""


def token_routes(engine: object, **bounds: Any) -> APIRouter:
    """The routes over `engine`, which may have no tokens at all. bounds: as for `add_route`."""
    router = APIRouter()

    async def tokenize(asked: TokenizeBody) -> dict[str, Any]:
        """The token ids of a text or of a chat."""
        framed = asked.add_special_tokens is not False
        found = await _tokenizer(engine).tokenize(asked.model, _text(asked), framed=framed)
        return tokenized_to_vllm(found, asked)

    async def detokenize(asked: DetokenizeBody) -> dict[str, Any]:
        """The text of token ids, special tokens included."""
        return {"prompt": await _tokenizer(engine).detokenize(asked.model, asked.tokens)}

    add_route(router, ("/tokenize",), TokenizeBody, tokenize, **bounds)
    add_route(router, ("/detokenize",), DetokenizeBody, detokenize, **bounds)
    return router


def _tokenizer(engine: object) -> Tokenize:
    if not isinstance(engine, Tokenize):
        raise UnsupportedError("this engine has no tokens to tell: serve a model with one that does")
    return engine


def _text(asked: TokenizeBody) -> Any:
    if (asked.prompt is None) == (asked.messages is None):
        raise RequestError("expected either a prompt or messages: send one of them", param="prompt")
    if asked.prompt is not None:
        return asked.prompt
    if asked.add_special_tokens:
        raise RequestError(
            "add_special_tokens came with messages, whose template writes them: leave it out",
            param="add_special_tokens",
        )
    chat = asked.model_dump(
        include={
            "model",
            "messages",
            "tools",
            "add_generation_prompt",
            "continue_final_message",
            "chat_template_kwargs",
        }
    )
    return parse_chat(chat).request


def tokenized_to_vllm(found: Tokenized, asked: TokenizeBody) -> dict[str, Any]:
    """vLLM's body."""
    return {
        "count": len(found.ids),
        "max_model_len": found.context,
        "tokens": list(found.ids),
        "token_strs": list(found.pieces) if asked.return_token_strs else None,
    }
