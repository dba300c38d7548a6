"""Sequences that decode side by side over one left-padded key-value cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache


class Batch:
    """Rows of different lengths; they join and leave between steps without changing each other.

    model: a causal language model of transformers (or a PEFT wrapper) with full attention.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        self._device = next(model.parameters()).device
        self._cache: Any = None
        self._lengths: list[int] = []

    def __len__(self) -> int:
        return len(self._lengths)

    @torch.inference_mode()
    def join(self, prompts: Sequence[Sequence[int]], copies: Sequence[int]) -> torch.Tensor:
        """Read each prompt once and append `copies` rows of it.

        Returns their next-token logits, (sum of copies, V).
        """
        width = max(len(prompt) for prompt in prompts)
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
        fresh = DynamicCache()
        logits = self._forward(ids, [len(prompt) for prompt in prompts], fresh)
        rows = torch.tensor([row for row, n in enumerate(copies) for _ in range(n)], device=self._device)
        fresh.batch_select_indices(rows)
        self._merge(fresh, [len(prompts[row]) for row in rows.tolist()])
        return logits[rows]

    @torch.inference_mode()
    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        """Append one token to every row. Returns the next-token logits, (B, V)."""
        self._lengths = [length + 1 for length in self._lengths]
        return self._forward(torch.tensor(tokens)[:, None], self._lengths, self._cache)

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        """Let go of all rows but these, in this order, and of the padding that no row needs."""
        if list(rows) == list(range(len(self))):
            return
        self._lengths = [self._lengths[row] for row in rows]
        if not rows:
            self._cache = None
            return
        longest = max(self._lengths)
        index = torch.tensor(rows, device=self._device)
        for layer in self._cache.layers:
            layer.keys = layer.keys[index, :, -longest:]
            layer.values = layer.values[index, :, -longest:]

    def _forward(self, ids: torch.Tensor, lengths: Sequence[int], cache: Any) -> torch.Tensor:
        """ids: (B, T), the last T tokens of rows that then have `lengths`. Returns (B, V) of the last one."""
        width = ids.shape[1] + cache.get_seq_length()
        ends = torch.tensor(lengths)[:, None]
        mask = torch.arange(width)[None] >= width - ends
        positions = (torch.arange(ids.shape[1])[None] + ends - ids.shape[1]).clamp(min=0)
        output = self._model(
            input_ids=ids.to(self._device),
            attention_mask=mask.long().to(self._device),
            position_ids=positions.to(self._device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits

    def _merge(self, fresh: Any, lengths: list[int]) -> None:
        if self._cache is None:
            self._cache = fresh
        else:
            for ours, theirs in zip(self._cache.layers, fresh.layers, strict=True):
                ours.keys = _stack(ours.keys, theirs.keys)
                ours.values = _stack(ours.values, theirs.values)
        self._lengths += lengths


def _stack(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """(A, H, S, D) and (B, H, T, D), padded on the left to max(S, T), as one (A + B, H, max, D)."""
    width = max(first.shape[2], second.shape[2])
    padded = [torch.nn.functional.pad(part, (0, 0, width - part.shape[2], 0)) for part in (first, second)]
    return torch.cat(padded)
