"""Arithmetic between matrix products as one kernel on CUDA: reading and writing is all it costs there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor

log = logging.getLogger(__name__)


def fused(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`function` of tensors, compiled by torch where the first of them is on CUDA; elsewhere as written.

    It stays as written too where this machine cannot compile, which is said once.
    """
    made: list[Callable[..., Tensor]] = []

    @wraps(function)
    def call(x: Tensor, *others: Tensor) -> Tensor:
        if not x.is_cuda:
            return function(x, *others)
        if not made:
            made.append(torch.compile(function, dynamic=True))
            try:
                return made[0](x, *others)
            except Exception as error:  # the compiler's own kinds, which depend on what is missing
                made[0] = function
                log.warning("%s runs uncompiled, and slower: %s", function.__name__, error)
        return made[0](x, *others)

    return call
