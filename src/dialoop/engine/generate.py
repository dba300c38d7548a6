"""Answers to many prompts at once, for evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from dialoop.engine.detokenize import Vocabulary
from dialoop.engine.row import Row, room
from dialoop.engine.running import Running, StepError
from dialoop.errors import ContextLengthError
from dialoop.models.opening import opening_ids
from dialoop.types import FinishReason, Sampling

STEP_TOKENS = 2048


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
    on_answer: Callable[[int, Generated], None] | None = None,
) -> list[Generated]:
    """One answer a prompt, in the order of `prompts`, `batch_size` of them side by side.

    on_progress(done, all) follows every finished answer, on_answer(position of its prompt, answer) tells
    of it. Drawn answers depend on the seed and the prompt's position alone. Raises ContextLengthError
    before any work.
    """
    rows = _rows(model, tokenizer, prompts, sampling, max_tokens)
    was_training = model.training
    model.eval()
    try:
        found: dict[int, Generated] = {}
        for index, answer in _run(model, rows, batch_size):
            found[index] = answer
            if on_answer is not None:
                on_answer(index, answer)
            if on_progress is not None:
                on_progress(len(found), len(rows))
    finally:
        model.train(was_training)
    return [found[i] for i in range(len(rows))]


def _run(model: torch.nn.Module, rows: list[Row], batch_size: int) -> Iterator[tuple[int, Generated]]:
    """Each answer with its prompt's position, as it ends."""
    longest = max((len(row.prompt) + row.limit for row in rows), default=0)
    running = Running(
        model,
        max_rows=batch_size,
        step_tokens=STEP_TOKENS,
        context=longest,
        cache_tokens=batch_size * longest,
    )
    texts, left = [""] * len(rows), set(range(len(rows)))
    for row in rows:
        running.add(row)
    try:
        while left:
            for row, text in running.advance():
                texts[row.index] += text
            for ended in sorted(left - {row.index for row in running.rows}):
                row = rows[ended]
                left.discard(ended)
                yield ended, Generated(tuple(row.tokens), texts[ended], row.finish_reason or "length")
    except StepError as error:
        raise error.reason from None


def _rows(
    model: torch.nn.Module,
    tokenizer: Vocabulary,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    max_tokens: int,
) -> list[Row]:
    context, opening = context_of(model), opening_ids(model)
    for prompt in prompts:
        if len(prompt) > context:
            raise ContextLengthError(len(prompt), context)
    return [
        Row(
            prompt, sampling, i, vocabulary=tokenizer, limit=room(len(prompt), context, max_tokens),
            opening=opening,
        )
        for i, prompt in enumerate(prompts)
    ]  # fmt: skip


def context_of(model: torch.nn.Module) -> int:
    """Positions that a text may take, in tokens: those that the model was made for, less a soft prompt's."""
    return int(model.config.max_position_embeddings) - len(opening_ids(model))  # type: ignore[union-attr, arg-type]
