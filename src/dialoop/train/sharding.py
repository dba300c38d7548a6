"""A model whose layers are shared out over the processes (FSDP2): each holds a part of every weight, with its
gradient and moments, and all of a layer for as long as that is computed.

What lies outside the layers, such as embeddings and the head, is held whole by each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from dialoop.models.layers import layers_of
from dialoop.train.world import device_kind, world


class Shards:
    """Shares the layers of `model` out, in the processes that have joined; `gather` puts them back.

    weights: those that are trained, by name; `self.weights` are the same as they are from now on.
    """

    def __init__(self, model: nn.Module, weights: Mapping[str, Parameter]) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(device_kind(), (world().size,))
        _, layers = layers_of(model)
        names = {id(weight): name for name, weight in weights.items()}
        self._places = [
            (module, name, weight)
            for layer in layers
            for module in layer.modules()
            for name, weight in module.named_parameters(recurse=False)
        ]
        for layer in layers:
            # The loop divides by what an update is worth: gradients are summed, never averaged.
            shared = fully_shard(layer, mesh=mesh, reshard_after_forward=True)
            shared.set_gradient_divide_factor(1.0)
            shared.set_force_sum_reduction_for_comms(True)
        self.weights = dict(weights)
        for module, name, weight in self._places:
            if id(weight) in names:
                self.weights[names[id(weight)]] = _held(module, name)
            weight.data = weight.new_empty(0)

    def gather(self) -> None:
        """The weights where they were before, whole; in all processes together."""
        for module, name, weight in self._places:
            weight.data = _held(module, name).full_tensor()
            module._parameters[name] = weight


def _held(module: nn.Module, name: str) -> Any:
    return module._parameters[name]


def is_shared(weight: Tensor) -> bool:
    """Whether a process holds a part of it only."""
    return hasattr(weight, "to_local")


def local(weight: Tensor) -> Tensor:
    """What this process holds of it: the same memory."""
    held: Any = weight.detach()
    return held.to_local() if is_shared(held) else held  # type: ignore[no-any-return]


def whole(part: Tensor, like: Tensor) -> Tensor:
    """All of a tensor of which each process holds a part, as it does of `like`; by all together."""
    from torch.distributed.tensor import DTensor

    shared: Any = like
    made: Any = DTensor.from_local(
        part, shared.device_mesh, shared.placements, shape=shared.shape, stride=shared.stride()
    )
    gathered: Tensor = made.full_tensor()
    return gathered


def part(full: Tensor, like: Tensor) -> Tensor:
    """What this process holds of a whole tensor, where it is shared out as `like`."""
    here = world()
    chunks = torch.chunk(full, here.size, 0)
    return chunks[here.rank] if here.rank < len(chunks) else full[:0]
