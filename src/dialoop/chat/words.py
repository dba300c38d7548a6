"""Tools in words, for models whose template has no place for them: the same in training and in serving.

The words are those of dialoop-base's own template, and calls are written in Hermes style.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

from dialoop.chat.callstyle import HERMES
from dialoop.chat.template import ChatTemplate, template_message, template_tool
from dialoop.types import Conversation, Message, Tool


def in_words(conversation: Conversation, template: ChatTemplate, *, system: bool) -> Conversation:
    """`conversation` with what the template cannot show of tools, calls and their results as plain text.

    system: the template takes a system turn. Each run of results becomes one user turn.
    """
    messages = conversation.messages
    if not template.shows("tool_calls") and any(m.tool_calls or m.role == "tool" for m in messages):
        messages = tuple(_turns(messages))
    if conversation.tools and not template.shows("tools"):
        messages = _announced(messages, tool_words(conversation.tools), system)
        return replace(conversation, messages=messages, tools=())
    return conversation if messages is conversation.messages else replace(conversation, messages=messages)


def tool_words(tools: Sequence[Tool]) -> str:
    """What a system turn says of the tools."""
    listed = "\n".join(json.dumps(template_tool(tool), ensure_ascii=False) for tool in tools)
    return (
        f"# Tools\n\nYou may call these functions, given as JSON:\n<tools>\n{listed}\n</tools>\n\n"
        f'To call one, answer with\n{HERMES.opener}\n{{"name": name, "arguments": object}}\n{HERMES.closer}'
    )


def _announced(messages: tuple[Message, ...], words: str, system: bool) -> tuple[Message, ...]:
    """In the system turn, in one put before the others, or where none is taken before the first message."""
    first = messages[0] if messages else None
    if first is not None and first.role in ("system", "developer"):
        return (replace(first, content=f"{first.content}\n\n{words}"), *messages[1:])
    if first is not None and not system:
        return (replace(first, content=f"{words}\n\n{first.content}"), *messages[1:])
    return (Message("system", words), *messages)


def _turns(messages: Sequence[Message]) -> Iterator[Message]:
    results: list[str] = []
    for message in messages:
        if results and message.role != "tool":
            yield Message("user", "\n".join(results))
            results = []
        if message.role == "tool":
            results.append(f"<tool_response>\n{message.content}\n</tool_response>")
        else:
            yield _with_calls(message)
    if results:
        yield Message("user", "\n".join(results))


def _with_calls(message: Message) -> Message:
    calls = [
        f"{HERMES.opener}\n{json.dumps(each['function'], ensure_ascii=False)}\n{HERMES.closer}"
        for each in template_message(message).get("tool_calls", ())
    ]
    said = [message.content] if message.content else []
    return replace(message, content="\n".join([*said, *calls]), tool_calls=()) if calls else message
