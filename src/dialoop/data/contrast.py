"""Preferences in the shape of conversations, so that both are cleaned and split by the same steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps

from dialoop.types import Conversation, Preference

Ordered = tuple[Conversation | None, tuple[str, ...]]
"""What a step leaves of a conversation, None where it goes, and its reasons."""


@dataclass(frozen=True, slots=True)
class Contrast(Conversation):
    """Its last two messages are answers to the same history: the chosen one, then the rejected one."""

    @classmethod
    def of(cls, preference: Preference) -> Contrast:
        history = preference.history
        messages = (*history.messages, preference.chosen, preference.rejected)
        return cls(messages, history.tools, history.metadata)

    @property
    def preference(self) -> Preference:
        """The same as the rest of the program knows it."""
        *history, chosen, rejected = self.messages
        return Preference(Conversation(tuple(history), self.tools, self.metadata), chosen, rejected)


def supervised(conversation: Conversation) -> Conversation:
    """What there is to imitate: of a contrast the history with the chosen answer."""
    return conversation.preference.conversation if isinstance(conversation, Contrast) else conversation


def on_each_side(step: Callable[..., Ordered]) -> Callable[..., Ordered]:
    """`step`, which looks at a whole dialogue, for contrasts too: at both of theirs."""

    @wraps(step)
    def stepped(conversation: Conversation, *bounds: int) -> Ordered:
        if not isinstance(conversation, Contrast):
            return step(conversation, *bounds)
        pair = conversation.preference
        return _rejoined(conversation, *(step(each, *bounds) for each in (pair.conversation, pair.other)))

    return stepped


def _rejoined(contrast: Contrast, chosen: Ordered, rejected: Ordered) -> Ordered:
    reasons = tuple(dict.fromkeys((*chosen[1], *rejected[1])))
    first, second = chosen[0], rejected[0]
    if not reasons or first is None or second is None:
        return (None if reasons else contrast), reasons
    history = first.messages[:-1]
    answers = first.messages[-1], second.messages[-1]
    if history != second.messages[:-1] or any(answer.role != "assistant" for answer in answers):
        return None, ("an answer is empty",)
    return replace(contrast, messages=(*history, *answers)), reasons
