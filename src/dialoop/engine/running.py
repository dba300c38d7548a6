"""The rows that a model decodes now, and the step that moves them all by one token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import torch

from dialoop.engine.batch import Batch
from dialoop.engine.row import Row
from dialoop.engine.sampler import choose


class Running:
    """Rows join at any step and leave when they have finished or are dropped."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._batch = Batch(model)
        self.rows: list[Row] = []

    def advance(self, joining: Sequence[Row]) -> list[tuple[Row, str]]:
        """One token for every row, the joining ones included; returns each with its new text."""
        logits = [self._batch.step([row.tokens[-1] for row in self.rows])] if self.rows else []
        if joining:
            # Neighbours that hold the very same prompt are answers to one request: it is read once.
            prompts = [list(rows) for _, rows in groupby(joining, key=lambda row: id(row.prompt))]
            logits.append(self._batch.join([rows[0].prompt for rows in prompts], [len(r) for r in prompts]))
        rows = [*self.rows, *joining]
        if not rows:
            return []
        choices = choose(torch.cat(logits), rows)
        said = [(row, row.accept(choice)) for row, choice in zip(rows, choices, strict=True)]
        self.rows = rows
        self.drop(lambda row: row.finish_reason is not None)
        return said

    def drop(self, gone: Callable[[Row], bool]) -> None:
        """Let go of rows and of their memory."""
        left = [i for i, row in enumerate(self.rows) if not gone(row)]
        self._batch.keep(left)
        self.rows = [self.rows[i] for i in left]
