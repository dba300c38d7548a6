"""The best of several answers."""

from __future__ import annotations

from dataclasses import replace

from dialoop.engine.row import Row
from dialoop.types import Delta


class Best:
    """Holds answers back until all are there, then gives the `n` of the highest log-probability a token."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._rows: list[Row] = []
        self._held: dict[int, list[Delta]] = {}

    def push(self, row: Row, delta: Delta) -> list[Delta]:
        """[] until the delta with the usage, then those of the best answers, best first."""
        self._held.setdefault(row.index, []).append(delta)
        if delta.finish_reason is not None:
            self._rows.append(row)
        if delta.usage is None:
            return []
        ranked = sorted(self._rows, key=lambda row: (-row.mean_logprob, row.index))[: self._n]
        said = [
            replace(each, index=place, usage=None)
            for place, row in enumerate(ranked)
            for each in self._held[row.index]
        ]
        return [*said[:-1], replace(said[-1], usage=delta.usage)]
