"""What changes a row's logits before a temperature does: bias, bounds on the length, penalties."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from dialoop.types import Sampling


class Penalties:
    """One row's changes; it counts the tokens as they come, so that a step costs the same at any length.

    ends: tokens that would end the answer, kept out until it has `min_tokens`.
    bad: sequences of tokens whose last one never follows the others.
    """

    def __init__(
        self,
        sampling: Sampling,
        prompt: Sequence[int],
        ends: Collection[int],
        bad: Sequence[Sequence[int]] = (),
    ) -> None:
        self._sampling = sampling
        self._prompt = prompt
        self._ends = torch.tensor(sorted(ends), dtype=torch.long)
        self._bias_ids = torch.tensor([i for i, _ in sampling.logit_bias], dtype=torch.long)
        self._bias = torch.tensor([value for _, value in sampling.logit_bias])
        self._allowed = torch.tensor(sampling.allowed_token_ids, dtype=torch.long)
        self._bad = [(list(each[:-1]), each[-1]) for each in bad if each]
        self._answer: list[int] = []
        self._counts: Tensor | None = None
        self._seen: Tensor | None = None

    @classmethod
    def of(
        cls,
        sampling: Sampling,
        prompt: Sequence[int],
        ends: Collection[int],
        bad: Sequence[Sequence[int]] = (),
    ) -> Penalties | None:
        """None where the request asks for no change."""
        neutral = Sampling()
        names = (
            "logit_bias", "min_tokens", "repetition_penalty", "presence_penalty", "frequency_penalty",
            "allowed_token_ids",
        )  # fmt: skip
        asked = any(getattr(sampling, name) != getattr(neutral, name) for name in names)
        return cls(sampling, prompt, ends, bad) if asked or bad else None

    def add(self, token: int) -> None:
        """The row goes on with `token`."""
        self._answer.append(token)
        if self._counts is not None and self._seen is not None:
            self._counts[token] += 1
            self._seen[token] = True

    def apply(self, logits: Tensor) -> None:
        """Change one row's `logits`, (V,) float32, in place."""
        sampling = self._sampling
        if len(self._bias):
            logits[self._bias_ids.to(logits.device)] += self._bias.to(logits)
        if sampling.repetition_penalty != 1 or sampling.presence_penalty or sampling.frequency_penalty:
            self._penalise(logits)
        if len(self._answer) < sampling.min_tokens and len(self._ends):
            logits[self._ends.to(logits.device)] = -torch.inf
        if len(self._allowed):
            kept = logits[self._allowed.to(logits.device)]
            logits.fill_(-torch.inf)[self._allowed.to(logits.device)] = kept
        for before, last in self._bad:
            if self._answer[len(self._answer) - len(before) :] == before:
                logits[last] = -torch.inf

    def _penalise(self, logits: Tensor) -> None:
        counts, seen = self._history(logits)
        factor = self._sampling.repetition_penalty
        if factor != 1:
            logits.copy_(torch.where(seen, torch.where(logits > 0, logits / factor, logits * factor), logits))
        logits -= self._sampling.presence_penalty * (counts > 0) + self._sampling.frequency_penalty * counts

    def _history(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """How often each token stands in the answer, and whether it stands in the prompt or the answer."""
        if self._counts is None or self._seen is None:
            self._counts = torch.zeros(len(like), dtype=torch.int32, device=like.device)
            self._seen = torch.zeros(len(like), dtype=torch.bool, device=like.device)
            prompt, answer = (
                torch.tensor(ids, dtype=torch.long, device=like.device)
                for ids in (self._prompt, self._answer)
            )
            self._counts.index_add_(0, answer, torch.ones_like(answer, dtype=torch.int32))
            self._seen[prompt] = self._seen[answer] = True
        return self._counts, self._seen
