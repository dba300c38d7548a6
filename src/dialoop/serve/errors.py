"""Errors in OpenAI's shape: `{"error": {message, type, param, code}}`, whatever went wrong."""

from __future__ import annotations

import errno
import logging
import traceback
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dialoop.errors import (
    ContentFilterError,
    ContextLengthError,
    DialoopError,
    EngineDownError,
    OverloadedError,
    QuotaError,
    RenderError,
    RequestError,
    UnknownModelError,
    UnknownRecordError,
    UnsupportedError,
    echo,
)

log = logging.getLogger("dialoop.serve")

_CODES: dict[type[DialoopError], tuple[int, str | None]] = {
    UnknownModelError: (404, "model_not_found"),
    ContextLengthError: (400, "context_length_exceeded"),
    UnsupportedError: (400, "unsupported"),
    ContentFilterError: (400, "content_filter"),
    OverloadedError: (429, "rate_limit_exceeded"),
    QuotaError: (429, "insufficient_quota"),
    EngineDownError: (503, "engine_down"),
}
_HTTP: dict[int, str] = {
    404: "no such route: see /openapi.json for those that there are",
    405: "this route does not take that method: see /openapi.json",
}


class HttpError(Exception):
    """An answer that is not a 2xx."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The error object."""
        kind = self.code if self.code == "insufficient_quota" else _kind(self.status)
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The error as an HTTP response."""
        return JSONResponse(self.body, self.status, self.headers)


def http_error(error: Exception) -> HttpError:
    """What a client is told about `error`; anything unforeseen is a 500 that tells nothing of it."""
    if isinstance(error, HttpError):
        return error
    if isinstance(error, RequestError):
        status, code = _CODES.get(type(error), (400, None))
        answer = HttpError(status, str(error), param=error.param, code=code)
        if isinstance(error, OverloadedError | EngineDownError | QuotaError):
            answer.headers["retry-after"] = str(error.retry_after)
        if isinstance(error, QuotaError):
            # OpenAI's clients try a 429 again unless they are told not to.
            answer.headers["x-should-retry"] = "false"
        return answer
    if isinstance(error, UnknownRecordError):
        return HttpError(404, str(error), param="id")
    if _no_room(error):
        return HttpError(507, "the server's disk takes no more: delete files, then try again")
    if isinstance(error, RenderError):
        return HttpError(400, str(error), param="messages")
    if isinstance(error, RecursionError):
        return HttpError(400, "the body is nested too deeply: send a flatter one")
    _log(error)
    return HttpError(500, "the server failed to answer: its log says where; try again")


def _no_room(error: BaseException | None) -> bool:
    """Whether a full disk is behind `error`, of a file or of SQLite's."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            return True
        if getattr(error, "sqlite_errorname", None) == "SQLITE_FULL":
            return True
        error = error.__cause__
    return False


def _query_error(problem: Mapping[str, Any]) -> HttpError:
    """What is wrong with a path or query parameter."""
    name = str(problem["loc"][1])[:64]
    wanted = "no such parameter" if problem["type"] == "extra_forbidden" else str(problem["msg"]).lower()
    return HttpError(400, f"{name} = {echo(problem['input'])}: {wanted}: see /openapi.json", param=name)


def _kind(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    if status >= 500:
        return "server_error"
    return "authentication_error" if status == 401 else "invalid_request_error"


def _log(error: Exception) -> None:
    """The places in the code, without the message: it may hold what a user wrote.

    An error of another process has its places there as a note.
    """
    places = [*traceback.format_tb(error.__traceback__), *getattr(error, "__notes__", ())]
    log.error("unforeseen %s\n%s", type(error).__name__, "".join(places))


def install(app: FastAPI) -> None:
    """Answer every kind of error of `app` in the one shape."""

    async def refused(request: Request, error: Exception) -> JSONResponse:
        return http_error(error).response()

    async def routed(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        message = _HTTP.get(error.status_code, "the request was refused: see /openapi.json")
        return HttpError(error.status_code, message, headers=error.headers).response()

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return _query_error(error.errors()[0]).response()

    app.add_exception_handler(HttpError, refused)
    app.add_exception_handler(DialoopError, refused)
    app.add_exception_handler(HTTPException, routed)
    app.add_exception_handler(RequestValidationError, invalid)


class CatchAll:
    """Answers what no handler foresaw, so that nothing with a traceback's message reaches a log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if scope["type"] != "http":
                raise
            answer = http_error(error)
            if not started:
                await answer.response()(scope, receive, send)
