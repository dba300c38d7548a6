"""The tree of errors that dialoop raises on purpose.

Every message says what came, what was wanted and how to mend it.

    DialoopError
    ├── ConfigError        a recipe, setting or override that cannot be used
    ├── DataError          a file or row of data that cannot be read
    │   └── RejectsError   too many rows of a run were rejected
    ├── RenderError        a conversation that a chat template cannot express
    ├── ModelError         a model directory that is missing, broken or of another kind
    ├── TrainError         a run that cannot start, go on or be resumed
    ├── EvalError          a metric or report that cannot be computed
    ├── StoreError         the store under the home directory
    │   └── UnknownRecordError
    └── RequestError       a request that an engine refuses
        ├── UnknownModelError
        ├── ContextLengthError
        ├── OverloadedError
        ├── QuotaError
        ├── EngineDownError
        ├── ContentFilterError
        └── UnsupportedError
"""

from __future__ import annotations

import copyreg
import difflib
from collections.abc import Iterable
from typing import Any

ECHO_LIMIT = 64


def echo(value: object) -> str:
    """`value` as an error may repeat it: scalars of at most 64 characters, never content."""
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, str):
        return repr(value) if len(value) <= ECHO_LIMIT else f"a string of {len(value)} characters"
    if isinstance(value, list | tuple | set | dict):
        return f"a {type(value).__name__} of {len(value)} items"
    return f"a {type(value).__name__}"


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest of `known`, or the sorted list of them."""
    choices = sorted(known)
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(choices)}" if choices else ""


class DialoopError(Exception):
    """Anything that a user can mend."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as it is, without its constructor: errors cross processes."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class ConfigError(DialoopError):
    """A recipe, setting or override that cannot be used."""


class DataError(DialoopError):
    """A file or row of data that cannot be read."""


class RejectsError(DataError):
    """More rows were rejected than the run allows; what was good has been written."""


class RenderError(DialoopError):
    """A conversation that a chat template cannot express."""


class ModelError(DialoopError):
    """A model directory that is missing, broken or of another kind."""


class TrainError(DialoopError):
    """A run that cannot start, go on or be resumed."""


class EvalError(DialoopError):
    """A metric or report that cannot be computed."""


class StoreError(DialoopError):
    """The store under the home directory is missing, damaged or refuses a change."""


class UnknownRecordError(StoreError):
    """The store keeps no such file, job or the like, or it is another project's."""

    def __init__(self, noun: str, record_id: str) -> None:
        super().__init__(f"no {noun} {echo(record_id)} here: check the id, or list them")
        self.noun = noun


class RequestError(DialoopError):
    """A request that an engine refuses; `param` names the field of the request at fault."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class UnknownModelError(RequestError):
    """No model of that name is served."""

    def __init__(self, name: str, known: Iterable[str], *, param: str = "model") -> None:
        listed = ", ".join(sorted(known)) or "none"
        super().__init__(f"model {echo(name)} is not served here; served: {listed}", param=param)


class ContextLengthError(RequestError):
    """The prompt, or a text to embed, does not fit the model's context."""

    def __init__(
        self, prompt_tokens: int, limit: int, *, what: str = "the prompt", param: str = "messages"
    ) -> None:
        super().__init__(
            f"{what} has {prompt_tokens} tokens, the model's context holds {limit}: "
            f"shorten the {param} or serve a model with a longer context",
            param=param,
        )
        self.prompt_tokens = prompt_tokens
        self.limit = limit


class OverloadedError(RequestError):
    """The engine takes no more work for now; try again after `retry_after` seconds."""

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class QuotaError(RequestError):
    """A key has used up its budget, which is full again after `retry_after` seconds."""

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class EngineDownError(RequestError):
    """What computes has ended or does not answer; it may be there again after `retry_after` seconds."""

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ContentFilterError(RequestError):
    """What was asked falls into categories that this server blocks."""

    def __init__(self, categories: Iterable[str], *, param: str) -> None:
        found = ", ".join(categories)
        super().__init__(
            f"{param} is blocked by this server's filter ({found}): ask something else", param=param
        )


class UnsupportedError(RequestError):
    """The engine does not implement what was asked for."""
