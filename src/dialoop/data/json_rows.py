"""JSON rows one by one: a line each, or the elements of a list that is never loaded whole."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from dialoop.data.text_io import MAX_ROW_BYTES, Reject, is_damaged

_SPACE = re.compile(r"[\s,]*")
_NEXT_ELEMENT = re.compile(r"[}\]][\s,]*(?=[{\[])")
_FIRST_KEY = re.compile(r'[\s,]*\{\s*"([^"\\]*)"')
_SCALAR = r'"[^"\\]*"|[\w.+-]+'
WRAPPER = re.compile(rf'\s*\{{(?:\s*"[^"\\]*"\s*:\s*(?:{_SCALAR})\s*,)*\s*"([^"\\]*)"\s*:\s*\[\s*(?=\{{)')
"""An object whose first list holds the rows, with nothing but scalars before it."""


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


DECODER = json.JSONDecoder(parse_constant=_no_constant)


def parse(text: str) -> Any:
    """One JSON value. Raises ValueError whose text is the reason, without content."""
    try:
        value = DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(_reason(error)) from error
    _check_text(text, value)
    return value


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} (column {error.colno})"
    return f"not JSON: {'nested too deeply' if isinstance(error, RecursionError) else error}"


def _check_text(text: str, value: Any) -> None:
    """Half of an escaped surrogate pair is legal JSON, but no text."""
    if is_damaged(text):
        raise ValueError("bytes that are not text in the file's encoding")
    if ("\\ud" in text or "\\uD" in text) and is_damaged(json.dumps(value, ensure_ascii=False)):
        raise ValueError("half of a surrogate pair, which is no character")


def line_rows(lines: Iterator[tuple[int, str]], reject: Reject) -> Iterator[tuple[int, Any]]:
    """(line, value) of each line that holds one JSON value; blank lines are no rows."""
    for number, text in lines:
        if not text or text.isspace():
            continue
        try:
            value = parse(text)
        except ValueError as error:
            reject(number, str(error))
            continue
        yield number, value


class Elements:
    """Iterates (line, value) over a list, a wrapped list, or values one after another.

    Holds one element and one chunk of text at a time. After an element that is not JSON it goes on at
    the next object with a key of those read before.
    """

    def __init__(self, pieces: Iterator[str], reject: Reject) -> None:
        self._pieces = pieces
        self._reject = reject
        self._text = ""
        self._at = 0
        self._line = 1
        self._ended = False
        self._lost = False
        self._keys: set[str] = set()

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        listed = self._enter()
        while char := self._peek():
            if listed and char == "]":
                self._leave()
                return
            line = self._line
            try:
                value = self._element()
            except ValueError as error:
                self._reject(line, str(error))
                continue
            if isinstance(value, dict):
                self._keys.update(value)
            yield line, value
        if listed and not self._lost:
            self._reject(self._line, "the file ends before its list does")

    def _enter(self) -> bool:
        """Step into the list; False where the values stand one after another."""
        if self._peek() == "[":
            self._advance(self._at + 1)
            return True
        if (wrapper := WRAPPER.match(self._text, self._at)) and _holds_rows(self._text, wrapper.end()):
            self._advance(wrapper.end())
            return True
        return False

    def _leave(self) -> None:
        self._advance(self._at + 1)
        if self._peek() == "}":
            self._advance(self._at + 1)
        if self._peek():
            self._reject(self._line, "what follows the end of the list is not read")

    def _more(self) -> bool:
        """Drop what has been read and at least double what is held; False at the end of the file."""
        parts = [self._text[self._at :]]
        self._at = 0
        wanted = len(parts[0]) + 1
        while wanted > 0 and (piece := next(self._pieces, None)) is not None:
            parts.append(piece)
            wanted -= len(piece)
        self._text = "".join(parts)
        self._ended = wanted > 0
        return len(parts) > 1

    def _advance(self, to: int) -> None:
        self._line += self._text.count("\n", self._at, to)
        self._at = to

    def _peek(self) -> str:
        """The next character that is neither space nor comma, "" at the end."""
        while True:
            space = _SPACE.match(self._text, self._at)
            self._advance(space.end() if space else self._at)
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended or not self._more():
                return ""

    def _element(self) -> Any:
        """The value at the cursor. Raises ValueError with the cursor after what cannot be used."""
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                if self._may_go_on(error) and self._more():
                    continue
                raise ValueError(self._skip_broken(error)) from error
            if end == len(self._text) and not self._ended and self._more():
                continue
            text = self._text[self._at : end]
            self._advance(end)
            _check_text(text, value)
            return value

    def _may_go_on(self, error: Exception) -> bool:
        """Whether the error may come from text that has not been read yet."""
        held = len(self._text) - self._at
        if self._ended or held > MAX_ROW_BYTES or not isinstance(error, json.JSONDecodeError):
            return False
        return error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - 16

    def _skip_broken(self, error: Exception) -> str:
        """Move to the next element that can be read; the reason why this one cannot."""
        reason = _reason(error) if len(self._text) - self._at <= MAX_ROW_BYTES else "longer than 64 MiB"
        first = _FIRST_KEY.match(self._text, self._at)
        keys = self._keys | ({first.group(1)} if first else set())
        search = self._bracket_before(error.pos) if isinstance(error, json.JSONDecodeError) else self._at
        while True:
            found = _NEXT_ELEMENT.search(self._text, search)
            if found is None:
                self._advance(max(self._at, len(self._text) - 1024))
                search = self._at
                if self._ended or not self._more():
                    self._advance(len(self._text))
                    self._lost = True
                    return reason + "; no further row was found after it"
                search = self._at
            elif self._starts_row(found.end(), keys):
                self._advance(found.end())
                return reason
            elif self._ended or len(self._text) - found.end() > MAX_ROW_BYTES:
                search = found.end()
            else:
                search = self._retry(found.start(), found.end())

    def _bracket_before(self, position: int) -> int:
        """Where the last thing closed before `position`: a missing bracket shows in the next row only."""
        return max(self._at, *(self._text.rfind(mark, self._at, position) for mark in "}]"))

    def _retry(self, start: int, position: int) -> int:
        """Where to search on after no row starts at `position`: at `start` again where it was cut there."""
        try:
            DECODER.raw_decode(self._text, position)
        except (ValueError, RecursionError) as error:
            if self._may_go_on(error):
                self._advance(start)
                self._more()
                return self._at
        return position

    def _starts_row(self, position: int, keys: set[str]) -> bool:
        try:
            value, _ = DECODER.raw_decode(self._text, position)
        except (ValueError, RecursionError):
            return False
        return isinstance(value, dict) and not keys.isdisjoint(value)


def _holds_rows(text: str, position: int) -> bool:
    """Whether the list at `position` holds rows, not the turns of one conversation."""
    head = text[position : position + 4096]
    return not re.match(r'\{\s*"(?:role|from|content|value|human|user)"', head)
