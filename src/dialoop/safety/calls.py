"""The calls of one answer on their way out: each is held until it is whole, then its arguments are read.

A call is of use only once it is whole, and only then can its JSON be masked and stay JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dialoop.safety.policy import Policy, masked
from dialoop.safety.scan import Find
from dialoop.types import CallDelta, TokenLogprob, ToolCall, calls_of_pieces

_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")


@dataclass(frozen=True, slots=True)
class PassedCall:
    """A whole call as it may be made. found: what was decided, and the words it is about.

    blocked: it may not be made, nor anything after it.
    """

    index: int
    pieces: tuple[CallDelta, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    found: tuple[tuple[Find, str], ...] = ()
    blocked: bool = False


class CallFilter:
    """Holds one call at a time."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._held: list[CallDelta] = []
        self._told: tuple[TokenLogprob, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether a call is not whole yet."""
        return bool(self._held)

    async def push(self, pieces: Sequence[CallDelta], logprobs: Sequence[TokenLogprob]) -> list[PassedCall]:
        """The calls that are whole because the next has begun. logprobs: of the tokens of `pieces`."""
        passed: list[PassedCall] = []
        for piece in pieces:
            if self._held and piece.index != self._held[0].index:
                passed += await self.end()
            self._held.append(piece)
        self._told += tuple(logprobs)
        return passed

    async def end(self) -> list[PassedCall]:
        """The call that is held, now that nothing more of it comes."""
        if not self._held:
            return []
        held, told, self._held, self._told = self._held, self._told, [], ()
        (call,) = calls_of_pieces(held)
        seen, found = await screened(self._policy, call)
        index, words = held[0].index, tuple(found)
        if any(find.action == "block" for find, _ in found):
            return [PassedCall(index, found=words, blocked=True)]
        if seen == call.arguments:
            return [PassedCall(index, tuple(held), told, words)]
        return [PassedCall(index, (replace(held[0], arguments=seen),), found=words)]


async def screened(policy: Policy, call: ToolCall) -> tuple[str, list[tuple[Find, str]]]:
    """The arguments as they may be sent, and what was found in them."""
    texts = texts_of(call)
    judged = [each.finds for each in await policy.judge(texts)]
    pairs = list(zip(texts, judged, strict=True))
    found = [(find, text[find.start : find.end]) for text, finds in pairs for find in finds]
    seen = iter([masked(text, finds) for text, finds in pairs])
    return rewritten(call, lambda _: next(seen)), found


def texts_of(call: ToolCall) -> list[str]:
    """What the arguments say."""
    texts: list[str] = []

    def look(text: str) -> str:
        texts.append(text)
        return text

    rewritten(call, look)
    return texts


def rewritten(call: ToolCall, look: Callable[[str], str]) -> str:
    """The arguments with `look` in place of each text; to the letter as they were where that changes none.

    Of JSON the texts are its strings, not the names of fields, which are the tool's. What is no JSON, such as
    the input of a custom tool or a call that was cut short, is one text.
    """
    try:
        value = json.loads(call.arguments) if call.kind == "function" else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict | list):
        plain = _unescaped(call.arguments) if call.kind == "function" else call.arguments
        seen = look(plain)
        return call.arguments if seen == plain else seen
    changed = _each_string(value, look)
    return call.arguments if changed == value else json.dumps(changed, ensure_ascii=False)


def _each_string(value: Any, look: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return look(value)
    if isinstance(value, dict):
        return {name: _each_string(each, look) for name, each in value.items()}
    if isinstance(value, list):
        return [_each_string(each, look) for each in value]
    return value


def _unescaped(text: str) -> str:
    """Half a JSON text with its \\u escapes undone."""
    plain = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
