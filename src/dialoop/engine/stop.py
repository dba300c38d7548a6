"""Stop strings that may begin in one token and end in another."""

from __future__ import annotations

from collections.abc import Sequence


class StopScanner:
    """Lets text through until a stop string is complete, and holds back only what may become one.

    Of several stops the one that is complete first wins, the longest of those that end together.
    keep: the stop string is let through too.
    """

    def __init__(self, stops: Sequence[str], *, keep: bool = False) -> None:
        self._keep = keep
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """The text that is certain, and whether a stop string was met; it ends there."""
        held = self._held + text
        found = [(held.find(stop) + len(stop), held.find(stop)) for stop in self._stops if stop in held]
        if found:
            self._held = ""
            end, start = min(found)
            return held[: end if self._keep else start], True
        keep = self._beginning(held)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep], False

    def flush(self) -> str:
        """What was held back for a stop string that never came."""
        held, self._held = self._held, ""
        return held

    def _beginning(self, text: str) -> int:
        """Length of the longest end of `text` that begins a stop string."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for size in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-size:]) for stop in self._stops):
                return size
        return 0
