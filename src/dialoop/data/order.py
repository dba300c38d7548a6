"""The order, presence and length of a conversation's turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from dialoop.data.contrast import Ordered, on_each_side
from dialoop.types import Conversation, Message


@on_each_side
def in_order(conversation: Conversation) -> Ordered:
    """Same-role neighbours merged, leading assistant turns dropped; None for a tool turn without a call."""
    messages, changes = conversation.messages, []
    led = _without_leading_assistant(messages)
    if led is not messages:
        changes.append("leading assistant turn")
    merged = _merged(led)
    if merged is not led:
        changes.append("merged turns of one role")
    if not _tools_answer_calls(merged):
        return None, ("tool turn without a call",)
    return (replace(conversation, messages=tuple(merged)) if changes else conversation), tuple(changes)


def _without_leading_assistant(messages: Sequence[Message]) -> Sequence[Message]:
    first = next((i for i, m in enumerate(messages) if m.role not in ("system", "developer")), len(messages))
    end = first
    while end < len(messages) and messages[end].role == "assistant" and not messages[end].tool_calls:
        end += 1
    # A conversation of assistant turns alone has no question: the next step removes it whole.
    return messages if end in (first, len(messages)) else (*messages[:first], *messages[end:])


def _merged(messages: Sequence[Message]) -> Sequence[Message]:
    if not any(_mergeable(a, b) for a, b in pairwise(messages)):
        return messages
    turns = [messages[0]]
    for message in messages[1:]:
        if _mergeable(turns[-1], message):
            turns[-1] = _joined(turns[-1], message)
        else:
            turns.append(message)
    return turns


def _mergeable(a: Message, b: Message) -> bool:
    """Turns of other names, weights or tool calls say something that a merged turn could not."""
    if a.role != b.role or a.role == "tool":
        return False
    return a.name == b.name and a.weight == b.weight and not a.tool_calls and not b.tool_calls


def _joined(a: Message, b: Message) -> Message:
    reasoning = "\n".join(text for text in (a.reasoning, b.reasoning) if text) or None
    return replace(a, content="\n".join(t for t in (a.content, b.content) if t), reasoning=reasoning)


def _tools_answer_calls(messages: Sequence[Message]) -> bool:
    """Whether every tool turn follows a call, with the id of one when it names an id."""
    open_ids: set[str] | None = None
    for message in messages:
        if message.role == "assistant" and message.tool_calls:
            open_ids = {call.id for call in message.tool_calls}
        elif message.role == "tool":
            if open_ids is None or (message.tool_call_id and message.tool_call_id not in open_ids):
                return False
        else:
            open_ids = None
    return True


@on_each_side
def in_bounds(conversation: Conversation, max_chars: int, max_turns: int) -> Ordered:
    """Without empty turns; None where a turn is too long, turns are too many, or one side is missing."""
    messages = conversation.messages
    full = tuple(m for m in messages if m.content.strip() or m.tool_calls or m.role == "tool")
    changed = len(full) < len(messages)
    if changed:
        full = tuple(_merged(full))
    reason = _unusable(full, max_chars, max_turns)
    if reason:
        return None, (reason,)
    return (replace(conversation, messages=full), ("empty turn",)) if changed else (conversation, ())


def _unusable(messages: Sequence[Message], max_chars: int, max_turns: int) -> str | None:
    roles = {message.role for message in messages}
    if "user" not in roles:
        return "no user turn"
    if "assistant" not in roles:
        return "no assistant turn"
    if len(messages) > max_turns:
        return "too many turns"
    return "turn too long" if any(len(m.content) > max_chars for m in messages) else None
