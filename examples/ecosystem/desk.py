"""What the examples ask: a shop's service desk, with a form to fill in and a tool to call."""

# No annotations as text here: LlamaIndex reads those of a tool where their names are unknown.
from typing import Literal

from pydantic import BaseModel

QUESTION = "Where is my order A48213?"
TEXTS = ["Where is my order?", "我的订单在哪里？"]


class Ticket(BaseModel):
    """What a customer wants."""

    topic: Literal["order", "return", "other"]
    urgent: bool


def days_left(order: Literal["A48213", "B10042"]) -> int:
    """Days until an order arrives."""
    return {"A48213": 2, "B10042": 5}[order]
