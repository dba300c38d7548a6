"""From an answer's text, as it comes, to what is said and what is called.

The pieces join to the same whatever way the text is cut. What turns out to be no call is said, to the letter;
around calls only white space is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from dialoop.chat.callstyle import CallStyle
from dialoop.types import CallDelta, Tool

_SPACE = re.compile(r"\s*")
_HEAD = re.compile(
    r'\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,'
    r'\s*"(?:arguments|parameters)"\s*:\s*(?=\{)'
)
_NAME = re.compile(r"([a-zA-Z0-9_.-]+)(?:\[CALL_ID\][a-zA-Z0-9]+)?(?:\[ARGS\])?\s*(?=\{)")
_NAME_SO_FAR = re.compile(r"[a-zA-Z0-9_.-]+(?:\[[A-Z_]*(?:\][a-zA-Z0-9]*(?:\[[A-Z_]*\]?)?)?)?\s*")


@dataclass(frozen=True, slots=True)
class Said:
    """Text that is no call."""

    text: str


Piece = Said | CallDelta


class CallParser:
    """Reads one answer to a request with `tools`.

    A call begins with a piece that has its id and name; its arguments follow as they are written.
    """

    def __init__(self, style: CallStyle, tools: Collection[Tool]) -> None:
        self._style = style
        self._tools = {tool.name: tool for tool in tools}
        self._read = self._between if style.bare else self._text
        self._raw = ""  # has come and was not read yet
        self._gap = ""  # was read as the syntax around a call, and is said where no call follows
        self._end = JsonEnd()
        self._after_call = self._listing = self._fenced = False
        self._out: list[Piece] = []
        self.calls = 0
        """That have begun."""

    def push(self, text: str) -> list[Piece]:
        """What is certain now."""
        return self._run(text, ended=False)

    def flush(self) -> list[Piece]:
        """What was held back when the answer ended; a call whose arguments had begun stays one."""
        return self._run("", ended=True)

    def _run(self, text: str, ended: bool) -> list[Piece]:
        self._raw += text
        while self._read(ended):
            pass
        out, self._out = self._out, []
        return out

    # Each of these reads on from `_raw` and tells whether there is more to read now.

    def _text(self, ended: bool) -> bool:
        """Said, up to an opener; white space before one is held back."""
        opener = self._style.opener
        at = -1 if opener is None else self._raw.find(opener)
        if at < 0:
            held = 0 if ended or opener is None else _held(self._raw, opener)
            self._say(self._take(len(self._raw) - held))
            return False
        self._say(self._take(len(self._raw[:at].rstrip())))
        self._after_call, self._read = False, self._between
        return True

    def _between(self, ended: bool) -> bool:
        """White space, openers, closers and commas, up to a call or to what is none."""
        space = _SPACE.match(self._raw)
        self._gap += self._take(space.end() if space else 0)
        syntax = self._syntax()
        if not ended and any(each.startswith(self._raw) and each != self._raw for each in syntax):
            return False
        for each in syntax:
            if self._raw.startswith(each):
                self._mark(each)
                return True
        if self._raw.startswith("{"):
            self._end, self._read = JsonEnd(), self._object
            return True
        return self._name(ended)

    def _syntax(self) -> list[str]:
        """What may stand here beside a call, the longest first."""
        style, known = self._style, [self._style.opener]
        if self._after_call:
            known += [style.closer, "]" if self._listing else "", "```" if self._fenced else ""]
            known += [",", ";"] if self._listing or style.bare else []
        else:
            known += ["["] if (style.listed or style.bare) and not self._listing else []
            known += ["```json", "```"] if style.opener is None and not self._fenced else []
        return sorted(filter(None, known), key=len, reverse=True)

    def _mark(self, syntax: str) -> None:
        self._gap += self._take(len(syntax))
        if syntax in (self._style.closer, "]") or (syntax == "```" and self._after_call):
            self._gap = ""
        self._listing = syntax == "[" or (self._listing and syntax != "]")
        self._fenced = syntax == "```json" or (syntax == "```" and not self._after_call) or self._fenced

    def _name(self, ended: bool) -> bool:
        """A call that is no JSON object, `name{...}`, or what is no call at all."""
        opener = self._style.opener
        if self._style.named and opener is not None and opener in self._gap:
            found = _NAME.match(self._raw)
            if found and found[1] in self._tools:
                self._begin(found[1])
                self._take(found.end())
                self._end, self._read = JsonEnd(), self._named_arguments
                return True
            if not ended and not found and (not self._raw or _NAME_SO_FAR.fullmatch(self._raw)):
                return False
        if not self._raw and not ended:
            return False
        return self._no_call()

    def _object(self, ended: bool) -> bool:
        """A JSON object that may be a call: known as one by its head, or else when it is whole."""
        head = _HEAD.match(self._raw)
        name = _string(head[1]) if head else None
        if head and name in self._tools and self._tools[name].kind == "function":
            self._begin(name)
            self._take(head.end())
            self._end, self._read = JsonEnd(), self._arguments
            return True
        size = self._end.find(self._raw)
        if size is None:
            return self._no_call() if ended else False
        call = _call_of(self._raw[:size])
        if call is None or call[0] not in self._tools:
            return self._no_call()
        self._take(size)
        self._begin(call[0])
        self._out.append(CallDelta(self.calls - 1, self._input(*call)))
        self._read = self._between
        return True

    def _input(self, name: str, arguments: Any) -> str:
        """Arguments as OpenAI tells them: JSON text, or the plain input of a custom tool."""
        if self._tools[name].kind == "custom" and isinstance(arguments, Mapping):
            given = arguments.get("input")
            return given if isinstance(given, str) else json.dumps(arguments, ensure_ascii=False)
        return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)

    def _arguments(self, ended: bool) -> bool:
        if not self._write_arguments():
            return False
        self._end, self._read = JsonEnd(depth=1), self._tail
        return True

    def _named_arguments(self, ended: bool) -> bool:
        if not self._write_arguments():
            return False
        self._read = self._between
        return True

    def _write_arguments(self) -> bool:
        """Whether they are whole."""
        size = self._end.find(self._raw)
        if text := self._take(len(self._raw) if size is None else size):
            self._out.append(CallDelta(self.calls - 1, text))
        self._end.forget(len(text))
        return size is not None

    def _tail(self, ended: bool) -> bool:
        """What a call's object holds after the arguments."""
        size = self._end.find(self._raw)
        taken = self._take(len(self._raw) if size is None else size)
        self._end.forget(len(taken))
        if size is not None:
            self._read = self._between
        return size is not None

    def _begin(self, name: str) -> None:
        self._gap, self._after_call = "", True
        kind = self._tools[name].kind
        self._out.append(CallDelta(self.calls, id=self._style.new_id(), name=name, kind=kind))
        self.calls += 1

    def _no_call(self) -> bool:
        """The syntax that was read is said, unless it is white space after the last call."""
        gap, self._gap = self._gap, ""
        opener = self._style.opener
        first = len(self._raw) if opener is None else self._raw.find(opener)
        stop = 1 if first == 0 else 0
        if gap.strip() or self._raw or not self._after_call:
            self._say(gap + self._take(stop))
        self._listing, self._read = False, self._text
        return bool(self._raw)

    def _say(self, text: str) -> None:
        if text:
            self._out.append(Said(text))

    def _take(self, count: int) -> str:
        taken, self._raw = self._raw[:count], self._raw[count:]
        return taken


class JsonEnd:
    """Finds where a JSON value in brackets ends, in a text that grows."""

    _OUTSIDE = re.compile(r'["{}\[\]]')
    _INSIDE = re.compile(r'["\\]')

    def __init__(self, depth: int = 0) -> None:
        self._depth = depth
        self._place = 0
        self._inside = False

    def find(self, text: str) -> int | None:
        """The length of the value that `text` begins with; None while its end has not come."""
        while True:
            found = (self._INSIDE if self._inside else self._OUTSIDE).search(text, self._place)
            if found is None:
                self._place = max(self._place, len(text))
                return None
            self._place = found.end()
            if found[0] == "\\":
                self._place += 1
            elif found[0] == '"':
                self._inside = not self._inside
            else:
                self._depth += 1 if found[0] in "{[" else -1
                if self._depth == 0:
                    return self._place

    def forget(self, count: int) -> None:
        """The text has lost so many characters at its beginning."""
        self._place -= count


def _held(text: str, opener: str) -> int:
    """Length of the end of `text` that may become white space and an opener."""
    for size in range(min(len(opener) - 1, len(text)), 0, -1):
        if opener.startswith(text[-size:]):
            return len(text) - len(text[: len(text) - size].rstrip())
    return len(text) - len(text.rstrip())


def _string(literal: str) -> str:
    try:
        return str(json.loads(literal))
    except ValueError:
        return ""


def _call_of(text: str) -> tuple[str, Any] | None:
    """Name and arguments of a JSON object that is a call."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    inner = value.get("function")
    call = inner if isinstance(inner, Mapping) else value
    name = call.get("name")
    arguments = next((call[key] for key in ("arguments", "parameters") if key in call), None)
    if not isinstance(name, str) or not isinstance(arguments, Mapping | str):
        return None
    return name, arguments
