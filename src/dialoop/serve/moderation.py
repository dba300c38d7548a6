"""POST /v1/moderations, and chats through the filter."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, ValidationError, WithJsonSchema

from dialoop.errors import RequestError, UnknownModelError, UnsupportedError
from dialoop.safety.categories import CATEGORIES, Action
from dialoop.safety.moderated import Decision, Record
from dialoop.safety.policy import Judgement, Policy
from dialoop.serve.body import read_json
from dialoop.serve.caller import here
from dialoop.serve.wire import refusal
from dialoop.store.identity import new_id
from dialoop.store.registry import Store

MODEL = "dialoop-lists"
"""What answers: word lists, no network; a classifier's name is added. OpenAI's own names mean it too."""
ALIASES = (MODEL, "omni-moderation-latest", "omni-moderation-2024-09-26", "text-moderation-latest",
           "text-moderation-stable")  # fmt: skip
SCORES: Mapping[Action, float] = {"block": 1.0, "mask": 0.75, "flag": 0.5}
"""A list is sure of what it finds; the score tells what its rule asks for."""
MAX_TEXTS = 1024


class TextPart(BaseModel):
    """A text."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    type: Literal["text"]
    """Names the part."""
    text: str
    """What to look at."""


class ModerationBody(BaseModel):
    """The body of POST /v1/moderations."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    input: Annotated[
        Any,
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string"},
                    {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MAX_TEXTS},
                    {
                        "type": "array",
                        "items": TextPart.model_json_schema(),
                        "minItems": 1,
                        "maxItems": MAX_TEXTS,
                    },
                ]
            }
        ),
    ]
    """A text, texts (a result each), or parts of one message (one result for all). Parts are text only."""
    model: str = MODEL
    """Accepted for OpenAI's clients: the names of its moderation models mean ours."""


def moderation_routes(policy: Policy, *, max_body_bytes: int, body_seconds: float) -> APIRouter:
    """The route over `policy`."""
    router = APIRouter()
    schema = {"application/json": {"schema": ModerationBody.model_json_schema()}}

    @router.post(
        "/v1/moderations",
        openapi_extra={"requestBody": {"required": True, "content": schema}},
        response_class=JSONResponse,
    )
    async def create_moderation(request: Request) -> JSONResponse:
        """Which categories texts fall into, by the word lists of this server and perhaps its classifier."""
        body = await read_json(request, max_bytes=max_body_bytes, seconds=body_seconds)
        texts = parse_moderation(body)
        results = await results_of(policy, texts)
        return JSONResponse({"id": new_id("modr"), "model": answering(policy), "results": results})

    return router


def parse_moderation(body: Mapping[str, Any]) -> list[list[str]]:
    """For each result the texts that it is about. Raises RequestError."""
    try:
        asked = ModerationBody.model_validate({name: v for name, v in body.items() if v is not None})
    except ValidationError as error:
        raise refusal(dict(error.errors(include_url=False)[0]), ModerationBody) from None
    if asked.model not in ALIASES:
        raise UnknownModelError(asked.model, ALIASES)
    given = asked.input
    if isinstance(given, str):
        return [[given]]
    if not isinstance(given, list) or not 0 < len(given) <= MAX_TEXTS:
        raise RequestError(f"input: expected a text, or 1 to {MAX_TEXTS} texts or parts", param="input")
    if all(isinstance(each, str) for each in given):
        return [[each] for each in given]
    return [[_part(each, i) for i, each in enumerate(given)]]


def _part(part: Any, index: int) -> str:
    if isinstance(part, dict) and part.get("type") == "image_url":
        raise UnsupportedError(
            f"input[{index}] is an image: this server's filter reads text only, leave it out", param="input"
        )
    try:
        return TextPart.model_validate(part).text
    except ValidationError:
        raise RequestError(
            f"input[{index}]: expected {{type: text, text}}, as the other parts", param="input"
        ) from None


def answering(policy: Policy) -> str:
    """The model's name in an answer: what looked at the texts."""
    return MODEL if policy.classifier is None else f"{MODEL}+{policy.classifier.model}"


async def results_of(policy: Policy, texts: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Results in OpenAI's shape, each for all of its texts together. Raises as the classifier's engine."""
    judged = iter(await policy.judge([text for each in texts for text in each]))
    return [result([next(judged) for _ in each]) for each in texts]


def result(judged: Sequence[Judgement]) -> dict[str, Any]:
    """The 13 categories: which of them were found, and how sure that is.

    What a list finds scores what its rule asks for; a classifier's probability counts where it is higher.
    """
    found: dict[str, bool] = dict.fromkeys(CATEGORIES, False)
    scores: dict[str, float] = dict.fromkeys(CATEGORIES, 0.0)
    for each in judged:
        for name, probability in each.probabilities.items():
            scores[name] = max(scores[name], probability)
        for find in each.finds:
            found[find.category] = True
            if not find.read:
                scores[find.category] = max(scores[find.category], SCORES[find.action])
    return {
        "flagged": any(found.values()),
        "categories": found,
        "category_scores": scores,
        "category_applied_input_types": {name: ["text"] for name in CATEGORIES},
    }


def recorder(store: Store | None) -> Record | None:
    """Keeps decisions in the store, for the project and the request that are being answered."""
    if store is None:
        return None

    async def record(decisions: Sequence[Decision]) -> None:
        caller, request_id = here()
        rows = [{**asdict(each), "request_id": request_id} for each in decisions]
        await asyncio.to_thread(store.of(caller.project).moderation.add, rows)

    return record
