"""What an update does when memory ends: its batches are halved, and that is remembered for a resumed run.

Halving changes the order of sums, and so the last bits of the weights: a run that is taken up again from an
earlier checkpoint must halve from the same update on, whether or not memory ends there again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch

_ALLOCATOR = ("can't allocate memory", "not enough memory", "out of memory")
"""In the RuntimeErrors of torch's allocators."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _ALLOCATOR)


class Halvings:
    """How often batches are halved, from which update on; durable before it takes effect.

    writes: False in processes beside the one that writes the run.
    """

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self._path, self._writes = path, writes
        self._from: list[tuple[int, int]] = []
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:
                    break
                self._from.append((row["step"], row["halvings"]))

    def at(self, step: int) -> int:
        """For the update after `step` others."""
        return max((times for first, times in self._from if first <= step), default=0)

    def more(self, step: int) -> int:
        """Once more, from the update after `step` others on."""
        times = self.at(step) + 1
        if self._writes:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, "halvings": times}) + "\n")
                file.flush()
                os.fsync(file.fileno())
        self._from.append((step, times))
        return times
