"""From an answer's text, as it comes, to what is thought first and what is said."""

from __future__ import annotations

OPEN, CLOSE = "<think>", "</think>"


class ThinkParser:
    """Splits one answer. inside: the prompt has opened the thoughts.

    White space around the thoughts is left out; an answer without any is said to the letter.
    """

    def __init__(self, *, inside: bool = False) -> None:
        self.inside = inside
        self._done = False
        self._held = ""
        self._begun = False  # something of the present part has come that is no white space

    def push(self, text: str) -> tuple[str, str]:
        """What is certainly thought, and what is certainly said."""
        self._held += text
        thought = ""
        if not self._done and not self.inside:
            found = self._held.lstrip()
            if OPEN.startswith(found[: len(OPEN)]) and len(found) < len(OPEN):
                return "", ""
            self.inside = found.startswith(OPEN)
            self._done = not self.inside
            self._begun = self._done
            self._held = found[len(OPEN) :] if self.inside else self._held
        if self.inside:
            thought = self._think()
        return thought, "" if self.inside else self._say()

    def flush(self) -> tuple[str, str]:
        """What was held back when the answer ended."""
        held, self._held = self._held, ""
        if self.inside:
            return held.rstrip() if self._begun else held.strip(), ""
        return "", held if not self._done or self._begun else ""

    def _think(self) -> str:
        at = self._held.find(CLOSE)
        if at >= 0:
            thought, self._held = self._held[:at].rstrip(), self._held[at + len(CLOSE) :]
            thought = thought if self._begun else thought.lstrip()
            self.inside, self._done, self._begun = False, True, False
            return thought
        most = min(len(CLOSE) - 1, len(self._held))
        size = next((n for n in range(most, 0, -1) if self._held.endswith(CLOSE[:n])), 0)
        sure = self._held[: len(self._held) - size].rstrip()
        self._held = self._held[len(sure) :]
        return self._first(sure)

    def _say(self) -> str:
        text, self._held = self._held, ""
        return self._first(text)

    def _first(self, text: str) -> str:
        """`text` without the white space that a part begins with."""
        text = text if self._begun else text.lstrip()
        self._begun = self._begun or bool(text)
        return text
