"""Fill a template line: inline choices `<a|b>` first, then slots `{pool}`, `{pool2}`, `{pool:filter}`."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence

CHOICE = re.compile(r"<([^<>]*)>")
SLOT = re.compile(r"\{([a-z_]+)(\d*)(?::([a-z]+))?\}")


def _article(text: str) -> str:
    return ("an " if text[:1].lower() in "aeiou" else "a ") + text


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


FILTERS: Mapping[str, Callable[[str], str]] = {
    "a": _article,
    "cap": _capital,
    "acap": lambda text: _capital(_article(text)),
    "upper": str.upper,
    "lower": str.lower,
    "spell": lambda text: "-".join(text.replace(" ", "").upper()),
    "spaced": lambda text: " ".join(text.replace(" ", "")),
    "commas": lambda text: "、".join(text),
    "first": lambda text: text[0].upper(),
    "last": lambda text: text[-1].upper(),
    "size": lambda text: str(len(text)),
}


class Slots:
    """The values drawn for one conversation; a slot keeps its value, numbered twins always differ."""

    def __init__(
        self, pools: Mapping[str, Sequence[str]], rng: random.Random, fixed: Mapping[str, str]
    ) -> None:
        self._pools = pools
        self._rng = rng
        self._values = dict(fixed)

    def fill(self, template: str) -> str:
        """Return the line with every choice made and every slot filled; KeyError on an unknown pool."""
        chosen = CHOICE.sub(lambda found: self._rng.choice(found[1].split("|")), template)
        return SLOT.sub(self._value, chosen)

    def _value(self, found: re.Match[str]) -> str:
        pool, number, name = found[1], found[2], found[3]
        text = self._values.get(pool + number)
        if text is None:
            text = self._values[pool + number] = self._draw(pool)
        return FILTERS[name](text) if name else text

    def _draw(self, pool: str) -> str:
        taken = {text for key, text in self._values.items() if key.rstrip("0123456789") == pool}
        while (text := self._rng.choice(self._pools[pool])) in taken:
            continue
        return text
