"""A line of numbers as a small chart of dots, for terminals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of a Braille character by row and column."""
BRAILLE = 0x2800


def braille(values: Sequence[float], width: int, height: int) -> list[str]:
    """`height` lines of `width` characters, the greatest value at the top; two columns a character.

    Longer series are averaged, values that are not finite are left out.
    """
    columns = _columns([value for value in values if math.isfinite(value)], 2 * width)
    if not columns:
        return []
    low, high = min(columns), max(columns)
    cells = [[0] * width for _ in range(height)]
    for x, value in enumerate(columns):
        up = (value - low) / (high - low) if high > low else 0.0
        y = round((1 - up) * (4 * height - 1))
        cells[y // 4][x // 2] |= DOTS[y % 4][x % 2]
    return ["".join(chr(BRAILLE + cell) for cell in row) for row in cells]


def _columns(values: Sequence[float], most: int) -> list[float]:
    """At most `most` means of neighbours."""
    count = min(most, len(values))
    edges = [len(values) * i // count for i in range(count + 1)] if count else []
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
