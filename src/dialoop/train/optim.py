"""AdamW, and Muon for hidden matrices, over fp32 masters of the trained weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import Parameter

from dialoop.config import OptimSettings
from dialoop.train.muon import Muon
from dialoop.train.sharding import is_shared, local, part, whole
from dialoop.train.world import world


class Optimizer:
    """Weights in bf16 keep an fp32 master; their gradients are summed in fp32 between updates.

    Of weights that processes share out, masters and moments are of the part that is here.

    muon: names of the matrices that Muon updates; AdamW takes the rest.  ema: decay of a running mean of the
    weights, which is judged and kept in their place; 0 = none.
    """

    def __init__(
        self,
        weights: Mapping[str, Parameter],
        settings: OptimSettings,
        *,
        muon: frozenset[str] = frozenset(),
        ema: float = 0.0,
    ) -> None:
        self.weights = dict(weights)
        self.clip = settings.clip
        self.masters = {name: _master(weight) for name, weight in self.weights.items()}
        self._decay = ema
        self._means = {n: m.detach().clone() for n, m in self.masters.items()} if ema else {}
        for name, weight in self.weights.items():
            if self.masters[name] is not weight:
                weight.register_post_accumulate_grad_hook(_move_gradient(self.masters[name]))  # type: ignore[no-untyped-call]
        self._shared = {name for name, weight in self.weights.items() if is_shared(weight)}
        self._optimizers = self._build(settings, muon)

    @property
    def shares(self) -> bool:
        """Whether each process holds a part of some weights only."""
        return bool(self._shared)

    @property
    def alone(self) -> list[Parameter]:
        """Masters whose gradients nobody sums over the processes but the loop."""
        return [master for name, master in self.masters.items() if name not in self._shared]

    def _build(self, settings: OptimSettings, muon: frozenset[str]) -> list[torch.optim.Optimizer]:
        matrices = [m for n, m in self.masters.items() if n not in muon and m.ndim >= 2]
        vectors = [m for n, m in self.masters.items() if n not in muon and m.ndim < 2]
        groups = [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        built: list[torch.optim.Optimizer] = [
            torch.optim.AdamW([g for g in groups if g["params"]], betas=settings.betas, fused=True)
        ]
        if muon:
            hidden = [self.masters[name] for name in sorted(muon)]
            built.append(Muon(hidden, settings.weight_decay))
        return built

    def step(self, rate: float, scale: float) -> float:
        """One update at `rate`, gradients multiplied by `scale` first. Returns their norm before clipping."""
        gradients = [m.grad for m in self.masters.values() if m.grad is not None]
        torch._foreach_mul_(gradients, scale)
        norm = self._clipped()
        if not math.isfinite(norm):
            self.clear()
            return norm
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        self.clear()
        self._copy_back()
        for name, mean in self._means.items():
            mean.lerp_(self.masters[name].detach(), 1 - self._decay)
        return norm

    def _clipped(self) -> float:
        """Clip the gradients by their norm, over all processes, which it returns."""
        if not self._shared:
            return float(torch.nn.utils.clip_grad_norm_(self.masters.values(), self.clip))
        squares = {name: float(m.grad.norm()) ** 2 for name, m in self.masters.items() if m.grad is not None}
        (apart,) = world().total(sum(each for name, each in squares.items() if name in self._shared))
        norm = math.sqrt(apart + sum(each for name, each in squares.items() if name not in self._shared))
        total = torch.tensor(norm)
        torch.nn.utils.clip_grads_with_norm_(self.masters.values(), self.clip, total)
        return norm

    def held(self) -> dict[str, Tensor]:
        """What would be written now, named as in `state`: the masters, or their running means."""
        return {f"master.{name}": weight.detach() for name, weight in (self._means or self.masters).items()}

    def kept(self) -> dict[str, Tensor]:
        """Copies of what is `held`."""
        return {name: weight.clone() for name, weight in self.held().items()}

    @torch.no_grad()
    def put_back(self, held: Mapping[str, Tensor]) -> None:
        """Weights become what was `held` once; moments stay. Nothing is copied on the way."""
        for name, master in self.masters.items():
            master.copy_(held[f"master.{name}"])
        self._copy_back()

    @contextmanager
    @torch.no_grad()
    def judged(self) -> Iterator[None]:
        """While it lasts, the weights are what would be written."""
        before = {name: local(self.weights[name]).clone() for name in self._means}
        for name, mean in self._means.items():
            local(self.weights[name]).copy_(mean)
        try:
            yield
        finally:
            for name, weight in before.items():
                local(self.weights[name]).copy_(weight)

    def clear(self) -> None:
        """Forget the gradients, those of weights with a master too."""
        for weight in (*self.masters.values(), *self.weights.values()):
            weight.grad = None

    @torch.no_grad()
    def _copy_back(self) -> None:
        for name, weight in self.weights.items():
            if self.masters[name] is not weight:
                local(weight).copy_(self.masters[name])

    def state(self) -> dict[str, Tensor]:
        """Masters, their running means and moments by name: all that a resumed run needs."""
        state = {f"master.{name}": master.detach() for name, master in self.masters.items()}
        state |= {f"mean.{name}": mean for name, mean in self._means.items()}
        for optimizer in self._optimizers:
            for name, master in self.masters.items():
                for key, value in optimizer.state.get(master, {}).items():
                    state[f"{key}.{name}"] = torch.as_tensor(value)
        return state

    def gathered(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors named as in `state`, or behind further words, whole; by all processes together."""
        return {key: whole(x, weight) if (weight := self._parted(key, x)) is not None else x
                for key, x in state.items()}  # fmt: skip

    def scattered(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What this process holds of such tensors."""
        return {key: part(x, weight) if (weight := self._parted(key, x)) is not None else x
                for key, x in state.items()}  # fmt: skip

    def _parted(self, key: str, tensor: Tensor) -> Tensor | None:
        """The weight that a tensor of a state is shared out with."""
        name = key.removeprefix("best.").partition(".")[2]
        return self.weights[name] if name in self._shared and tensor.ndim else None

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        moments: dict[str, dict[str, Tensor]] = {name: {} for name in self.masters}
        for key, value in state.items():
            kind, _, name = key.partition(".")
            moments[name][kind] = value.to(self.masters[name].device, copy=True)
        names = {master: name for name, master in self.masters.items()}
        for name, master in self.masters.items():
            master.copy_(moments[name].pop("master"))
            if self._means:
                self._means[name].copy_(moments[name].pop("mean"))
        self._copy_back()
        for optimizer in self._optimizers:
            for master in (master for group in optimizer.param_groups for master in group["params"]):
                if kept := moments[names[master]]:
                    optimizer.state[master] = kept


def _master(weight: Parameter) -> Parameter:
    if is_shared(weight):
        return Parameter(local(weight).float())
    return weight if weight.dtype == torch.float32 else Parameter(weight.detach().float())


def _move_gradient(master: Parameter) -> object:
    def move(weight: Tensor) -> None:
        if weight.grad is None:
            return
        gradient = local(weight.grad)
        master.grad = gradient.float() if master.grad is None else master.grad.add_(gradient)
        weight.grad = None

    return move


def warm_decay(step: int, steps: int, settings: OptimSettings) -> float:
    """The learning rate of update `step` of `steps`: linear warm-up, then the schedule's decay."""
    warm = math.ceil(settings.warmup * steps)
    if step < warm:
        return settings.learning_rate * (step + 1) / warm
    gone = (step - warm) / max(steps - warm, 1)
    falls = {"cosine": 0.5 * (1 + math.cos(math.pi * gone)), "linear": 1 - gone, "constant": 1.0}
    return settings.learning_rate * (settings.final + (1 - settings.final) * falls[settings.schedule])
