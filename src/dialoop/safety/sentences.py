"""Parts a text that comes in pieces into sentences, the same ones whatever the pieces."""

from __future__ import annotations

LONGEST = 200
"""Characters of a sentence; a longer one is cut, after a space where its second half has one."""
_ENDS = frozenset("。！？；…\n!?;")
_CLOSERS = frozenset("\"'”’」』）)]}.")


class Sentences:
    """One text."""

    def __init__(self) -> None:
        self._held = ""
        self.begin = 0
        """Where the sentence begins that has not ended, in characters of the text."""

    def push(self, text: str, *, last: bool = False) -> list[tuple[int, str]]:
        """The sentences that are whole now, and where each begins; last: nothing more comes."""
        self._held += text
        found: list[tuple[int, str]] = []
        while end := _end(self._held) or (len(self._held) if last else 0):
            found.append((self.begin, self._held[:end]))
            self._held, self.begin = self._held[end:], self.begin + end
        return found


def sentences(text: str) -> list[tuple[int, str]]:
    """Those of a whole text, and where each begins."""
    return Sentences().push(text, last=True)


def _end(text: str) -> int:
    """Where the first sentence ends, once the character after it is known; 0 = not yet."""
    ending = False
    for place, character in enumerate(text[:LONGEST]):
        if ending and character not in _ENDS and character not in _CLOSERS:
            return place
        point = character == "." and text[place + 1 : place + 2].isspace()
        ending = ending or character in _ENDS or point
    if len(text) <= LONGEST:
        return 0
    space = text.rfind(" ", LONGEST // 2, LONGEST)
    return space + 1 if space > 0 else LONGEST
