"""Several processes that train one model together (data parallel): each computes a share of every update, and
gradients are summed before the step, so that all take the same one.

`torchrun --no-python --nproc-per-node 2 dialoop tune RECIPE` is all it takes. The first process writes; the
others read its checkpoints, so they must see the same run directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed
from torch.nn import Parameter

T = TypeVar("T")
PATIENCE = timedelta(hours=24)
"""The first process scores the model while the others wait."""


@dataclass(frozen=True, slots=True)
class World:
    """One process among `size`."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    @property
    def halvings(self) -> int:
        """How often a batch is halved so that each process gets a part of it."""
        return (self.size - 1).bit_length()

    def share(self, pieces: Sequence[T]) -> Sequence[T]:
        """What this process computes."""
        return pieces[self.rank :: self.size]

    def total(self, *values: float) -> tuple[float, ...]:
        """The sums over all processes."""
        if self.size == 1:
            return values
        summed = torch.tensor(values, dtype=torch.float64, device=device_kind())
        distributed.all_reduce(summed)
        return tuple(summed.tolist())

    def any(self, flag: bool) -> bool:
        """Whether it is so in any process."""
        return self.total(float(flag))[0] > 0

    def told(self, value: float) -> float:
        """The first process's value, in all."""
        return self.total(value if self.leads else 0.0)[0]

    def each(self, value: T) -> list[T]:
        """What every process has for `value`, the first process's first."""
        if self.size == 1:
            return [value]
        found: list[T] = [value] * self.size
        distributed.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        """Until all are here."""
        self.total(0.0)

    def sum_gradients(self, weights: Iterable[Parameter]) -> None:
        """Add up the gradients of all processes; weights without one anywhere stay without."""
        if self.size == 1:
            return
        listed = list(weights)
        present = torch.tensor([float(weight.grad is not None) for weight in listed], device=device_kind())
        distributed.all_reduce(present)
        for weight, count in zip(listed, present.tolist(), strict=True):
            if count:
                weight.grad = _summed(torch.zeros_like(weight) if weight.grad is None else weight.grad)


def _summed(gradient: Tensor) -> Tensor:
    distributed.all_reduce(gradient)
    return gradient


def device_kind() -> str:
    """Where what the processes tell each other lies."""
    return "cuda" if distributed.get_backend() == "nccl" else "cpu"


def world() -> World:
    """This process among those that have joined."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return World()
    return World(distributed.get_rank(), distributed.get_world_size())


def _this_life() -> dict[str, Any]:
    """Where processes that torchrun has started again meet, as arguments of torch's.

    They would meet in a store that outlives them, and take the addresses that the fallen ones left there.
    How often they were started is known alike to all on one machine alone.
    """
    if os.environ.get("GROUP_WORLD_SIZE") != "1":
        return {}
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]
    from torch.distributed.rendezvous import rendezvous

    store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
    life = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return {"store": PrefixStore(f"life {life}", store), "rank": rank, "world_size": size}


@contextmanager
def joined() -> Iterator[World]:
    """Join the processes that torchrun started, for the length of the block; alone where there are none."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE, **_this_life())
    try:
        yield world()
    finally:
        distributed.destroy_process_group()
