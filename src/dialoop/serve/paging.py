"""Lists in OpenAI's shape: the query that asks for a page, and the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from dialoop.serve.typed_body import inlined
from dialoop.store.pages import Page, Window

T = TypeVar("T")


class ListQuery(BaseModel):
    """The query of a list, `Annotated[ListQuery, Query()]` in a route; subclasses add filters and bounds."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    limit: int = Field(20, ge=1, le=100)
    """Most objects to give."""
    after: str | None = Field(None, max_length=128)
    """The id of the last object of the page before."""
    order: Literal["asc", "desc"] = "desc"
    """By time of making."""

    @property
    def window(self) -> Window:
        """What the store understands."""
        return Window(self.limit, self.after, self.order == "desc")


def page_to_openai(page: Page[T], write: Callable[[T], Mapping[str, Any]]) -> dict[str, Any]:
    """The body of a list."""
    data = [dict(write(item)) for item in page.items]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": page.has_more,
    }


def list_schema(item: type[BaseModel], description: str = "A page.") -> dict[int | str, dict[str, Any]]:
    """`responses` of a route that gives a list, for the OpenAPI document."""
    one_id = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    properties = {
        "object": {"const": "list"},
        "data": {"type": "array", "items": inlined(item.model_json_schema())},
        "first_id": one_id,
        "last_id": one_id,
        "has_more": {"type": "boolean"},
    }
    schema = {"type": "object", "required": list(properties), "properties": properties}
    return {200: {"description": description, "content": {"application/json": {"schema": schema}}}}
