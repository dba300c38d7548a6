"""Answers to many prompts at once, for evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from dialoop.engine.row import Row, Vocabulary, room
from dialoop.engine.running import Running
from dialoop.errors import ContextLengthError
from dialoop.types import FinishReason, Sampling


@dataclass(frozen=True, slots=True)
class Generated:
    """An answer; token_ids end with the stop token where it stopped by one, text does not show it."""

    token_ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason


def generate(
    model: torch.nn.Module,
    tokenizer: Vocabulary,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    batch_size: int,
    max_tokens: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Generated]:
    """One answer a prompt, in the order of `prompts`, `batch_size` of them side by side.

    on_progress(done, all) follows every finished answer. Drawn answers depend on the seed and the
    prompt's position alone. Raises ContextLengthError before any work.
    """
    rows = _rows(model, tokenizer, prompts, sampling, max_tokens)
    was_training = model.training
    model.eval()
    try:
        texts = _run(model, rows, batch_size, on_progress or (lambda done, total: None))
    finally:
        model.train(was_training)
    return [Generated(tuple(r.tokens), texts[r.index], r.finish_reason or "length") for r in rows]


def _run(
    model: torch.nn.Module, rows: list[Row], batch_size: int, on_progress: Callable[[int, int], None]
) -> list[str]:
    waiting = sorted(rows, key=lambda row: len(row.prompt))
    texts, running, done = [""] * len(rows), Running(model), 0
    while done < len(rows):
        for row, text in running.advance(_admitted(waiting, len(running.rows), batch_size)):
            texts[row.index] += text
        finished = len(rows) - len(waiting) - len(running.rows)
        if finished > done:
            done = finished
            on_progress(done, len(rows))
    return texts


def _rows(
    model: torch.nn.Module,
    tokenizer: Vocabulary,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    max_tokens: int,
) -> list[Row]:
    context = context_of(model)
    for prompt in prompts:
        if len(prompt) > context:
            raise ContextLengthError(len(prompt), context)
    return [
        Row(prompt, sampling, i, vocabulary=tokenizer, limit=room(len(prompt), context, max_tokens))
        for i, prompt in enumerate(prompts)
    ]


def context_of(model: torch.nn.Module) -> int:
    """Positions that the model was made for, in tokens."""
    return int(model.config.max_position_embeddings)  # type: ignore[union-attr, arg-type]


def _admitted(waiting: list[Row], running: int, batch_size: int) -> list[Row]:
    """The longest waiting rows, once a quarter of the places is free: padding stays small, joins few."""
    free = batch_size - running
    if running and free < max(1, batch_size // 4):
        return []
    return [waiting.pop() for _ in range(min(free, len(waiting)))]
