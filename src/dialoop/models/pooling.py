"""From the hidden states of texts to one vector each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dialoop.models.embedding import Pooling


def pool(hidden: Tensor, lengths: Sequence[int], pooling: Pooling) -> Tensor:
    """hidden: (T, D), the texts one after the other; returns (len(lengths), D) float32."""
    ends = torch.tensor(lengths, device=hidden.device).cumsum(0)
    if pooling == "last":
        return hidden[ends - 1].float()
    starts = ends - torch.tensor(lengths, device=hidden.device)
    if pooling == "cls":
        return hidden[starts].float()
    parts = hidden.float().split(list(lengths))  # type: ignore[no-untyped-call]
    return torch.stack([part.mean(0) for part in parts])


def finish(vectors: Tensor, dimensions: int | None, normalize: bool) -> Tensor:
    """(N, D) -> (N, dimensions or D), of length 1 where wanted; a vector of zeros stays one."""
    vectors = vectors[:, :dimensions]
    return torch.nn.functional.normalize(vectors, dim=-1) if normalize else vectors
