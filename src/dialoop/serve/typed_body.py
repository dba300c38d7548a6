"""JSON bodies as pydantic models: read strictly, described in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dialoop.errors import RequestError, echo, nearest
from dialoop.serve.wire import refusal

B = TypeVar("B", bound=BaseModel)


class ExpiresAfter(BaseModel):
    """How long a file is kept."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    anchor: Literal["created_at"]
    """Counted from when the file was made."""
    seconds: int = Field(ge=3600, le=2_592_000)
    """From an hour to 30 days."""


def parsed(model: type[B], body: Mapping[str, Any]) -> B:
    """The body as `model`; null means absent. Raises RequestError with the field at fault."""
    given = {name: value for name, value in body.items() if value is not None}
    known = {field.alias or name for name, field in model.model_fields.items()}
    for name in given.keys() - known:
        raise RequestError(f"unknown field {echo(name)}{nearest(name[:64], known)}", param=name[:64])
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise refusal(dict(error.errors(include_url=False)[0])) from None


def described(model: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra` of a route that reads `model`."""
    content = {"application/json": {"schema": inlined(model.model_json_schema())}}
    return {"requestBody": {"required": True, "content": content}}


def inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """`schema` with its own definitions put where it refers to them: in a document they would be lost."""
    definitions = schema.pop("$defs", {})

    def put(value: Any) -> Any:
        if isinstance(value, list):
            return [put(each) for each in value]
        if not isinstance(value, dict):
            return value
        name = str(value.get("$ref", "")).removeprefix("#/$defs/")
        found = {**definitions[name], **value} if name in definitions else value
        return {key: put(each) for key, each in found.items() if name not in definitions or key != "$ref"}

    return dict(put(schema))
