"""Requests to a trial: an arm answers, the same one for the same user; and what users think of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from dialoop.config.trials import ArmSettings, TrialSettings, subject_of
from dialoop.errors import RequestError, echo, nearest
from dialoop.serve.body import read_json
from dialoop.serve.caller import caller_of
from dialoop.serve.typed_body import described, parsed
from dialoop.store.registry import Store

R = TypeVar("R", bound=Response)
HEADER = "x-dialoop-arm"
"""TRIAL/ARM of an answer."""
_USER = ("safety_identifier", "user")


@dataclass(frozen=True, slots=True)
class Trials:
    """The server's trials by name."""

    settings: Mapping[str, TrialSettings]

    def placed(self, body: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, str]]:
        """The body of a dialogue as its arm answers it, and the headers that tell of it; others are left as
        they are.

        Raises RequestError where both the request and the arm bring a prompt.
        """
        name, trial = self._asked(body)
        if trial is None:
            return body, {}
        arm = _arm(name, trial, body)
        placed, told = {**body, "model": arm.model}, {HEADER: f"{name}/{arm.name}"}
        if arm.prompt is None:
            return placed, told
        if body.get("prompt") is not None:
            raise RequestError(
                f"prompt came, and the trial {name} brings its own: leave it out", param="prompt"
            )
        return {**placed, "prompt": {"id": arm.prompt}}, told

    def placed_text(self, body: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, str]]:
        """As `placed`, of a text that is to go on, which no prompt can be put around.

        Raises RequestError where an arm of the trial brings one, whichever arm the user has.
        """
        name, trial = self._asked(body)
        if trial is None:
            return body, {}
        prompted = next((arm for arm in trial.arms if arm.prompt is not None), None)
        if prompted is not None:
            raise RequestError(
                f"model = {name!r} is a trial whose arm {prompted.name} puts a prompt around messages, and a "
                f"text has none: send messages to /v1/chat/completions, or ask a trial of models alone",
                param="model",
            )
        arm = _arm(name, trial, body)
        return {**body, "model": arm.model}, {HEADER: f"{name}/{arm.name}"}

    def _asked(self, body: Mapping[str, Any]) -> tuple[str, TrialSettings | None]:
        name = body.get("model")
        return str(name), self.settings.get(name) if isinstance(name, str) else None


def _arm(name: str, trial: TrialSettings, body: Mapping[str, Any]) -> ArmSettings:
    """That of the user, or the first where nobody is named."""
    user = next((body[key] for key in _USER if isinstance(body.get(key), str) and body[key]), None)
    return trial.arms[0] if user is None else trial.arm_of(name, subject_of(name, user))


def with_headers(response: R, headers: Mapping[str, str]) -> R:
    """The response, which has not begun."""
    response.headers.update(headers)
    return response


class FeedbackBody(BaseModel):
    """The body of POST /v1/feedback."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    value: Annotated[float, Field(allow_inf_nan=False, strict=False)]
    """What is thought of it, such as 1 and 0 for a thumb up and down, or a grade."""
    name: str = Field("rating", min_length=1, max_length=64)
    """What was rated."""
    target: str | None = Field(None, max_length=128)
    """The id of the completion or response."""
    trial: str | None = Field(None, max_length=64)
    """The trial that answered; with it goes the user."""
    user: str | None = Field(None, min_length=1, max_length=512)
    """As in the request that was answered; a pseudonym of it is kept."""
    comment: str | None = Field(None, max_length=4000)
    """In words."""


def feedback_routes(trials: Trials, store: Store, *, max_body_bytes: int, body_seconds: float) -> APIRouter:
    """The route for what users think of answers."""
    router = APIRouter()

    @router.post("/v1/feedback", openapi_extra=described(FeedbackBody))
    async def create_feedback(request: Request) -> dict[str, Any]:
        """Keep a rating of an answer."""
        body = await read_json(request, max_bytes=max_body_bytes, seconds=body_seconds)
        asked = parsed(FeedbackBody, body)
        of_trial = _of_trial(trials, asked)
        into = store.of(caller_of(request).project).ratings
        made = await asyncio.to_thread(
            into.add, asked.name, asked.value, target=asked.target, comment=asked.comment, **of_trial
        )
        return {
            "id": made.id, "object": "feedback", "created_at": made.created // 1_000_000, "name": made.name,
            "value": made.value, "target": made.target, "trial": made.trial, "arm": made.arm,
        }  # fmt: skip

    return router


def _of_trial(trials: Trials, asked: FeedbackBody) -> dict[str, str]:
    """Which arm the user has. Raises RequestError."""
    if asked.trial is None:
        return {}
    trial = trials.settings.get(asked.trial)
    if trial is None:
        near = nearest(asked.trial, trials.settings)
        raise RequestError(f"there is no trial {echo(asked.trial)}{near}", param="trial")
    if asked.user is None:
        raise RequestError(
            "trial came without user: send the user of the request that was answered", param="user"
        )
    subject = subject_of(asked.trial, asked.user)
    arm = trial.arm_of(asked.trial, subject)
    return {"trial": asked.trial, "plan": trial.plan, "arm": arm.name, "subject": subject}
