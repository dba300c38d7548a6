"""The kernels of `kernels.cpp` as functions of tensors, which are float32 and on the CPU unless told."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_double, c_int, c_int64, c_void_p
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from dialoop.models.native.build import ANSWERING, library

LARGEST_HALF = 65504.0
Norm = tuple[Tensor, float]
"""A root mean square norm: its weight times the root of its size, and the least length that it divides by."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a decoder's layers. tanh: whether the gate is GELU by tanh, else it is SiLU."""

    width: int
    heads: int
    key_heads: int
    size: int
    turning: int
    inner: int
    tanh: bool


class _Weights(ctypes.Structure):
    _fields_ = [
        ("panels", c_void_p), ("bias", c_void_p), ("scales", c_void_p), ("excess", c_void_p),
        ("inputs", c_int64), ("outputs", c_int64),
    ]  # fmt: skip


class _Shape(ctypes.Structure):
    _fields_ = [(name, c_int64) for name in Shape.__slots__]


class _Norm(ctypes.Structure):
    _fields_ = [("weight", c_void_p), ("floor", c_double)]


class _Layer(ctypes.Structure):
    _fields_ = [
        *((name, _Norm) for name in ("before", "heads", "after_attention", "before_mlp", "after_mlp")),
        *((name, c_void_p) for name in ("qkv", "out", "gate_up", "down")),
    ]


class _Lanes(ctypes.Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("lanes", "places", "stops")),
        *((name, c_int64) for name in ("heads", "key_heads", "size", "capacity", "half", "window")),
        ("scale", c_double), ("cap", c_double),
    ]  # fmt: skip


_TAKEN = {
    "multiply": [c_void_p, c_void_p, c_int64, c_void_p, c_int],
    "open": [c_void_p, c_void_p, c_void_p, c_void_p, c_int64, c_void_p, c_int],
    "close": [c_void_p, c_void_p, c_void_p, c_void_p, c_int64, c_int],
    "decode": [c_void_p] * 4 + [c_int64, c_void_p, c_void_p, c_void_p, c_int64, c_int],
    "attend": [c_void_p, c_void_p, c_int64, c_void_p, c_int64, c_int64, c_void_p, c_int],
}


@cache
def kernels() -> Kernels | None:
    """None where this machine cannot make them."""
    made = library(ANSWERING)
    return None if made is None else Kernels(made)


def attending(heads: Tensor) -> Kernels | None:
    """Those that attend to and with such heads, (..., size); None = torch does."""
    own = kernels() if heads.dtype == torch.float32 and heads.device.type == "cpu" else None
    return own if own is not None and heads.shape[-1] % own.lanes == 0 else None


class Kernels:
    """width: rows out of a panel of weights.  lanes: numbers of a vector.  bytes: int8 is multiplied too."""

    def __init__(self, made: Any) -> None:
        self.width, self.lanes, has_bytes = (
            int(getattr(made, f"dialoop_{name}")()) for name in ("width", "lanes", "has_bytes")
        )
        self.bytes = bool(has_bytes)
        for name, taken in _TAKEN.items():
            function = getattr(made, f"dialoop_{name}")
            function.argtypes, function.restype = taken, None
        self.open, self.close, self.decode = made.dialoop_open, made.dialoop_close, made.dialoop_decode
        self._multiply, self._attend = made.dialoop_multiply, made.dialoop_attend

    def multiply(self, weights: Weights, x: Tensor) -> Tensor:
        """(N, in) -> (N, out)."""
        x = x.float().contiguous()
        y = torch.empty(x.shape[0], weights.outputs)
        self._multiply(weights.address, x.data_ptr(), x.shape[0], y.data_ptr(), torch.get_num_threads())
        return y

    def attend(
        self, lanes: Tensor, places: Tensor, stops: Tensor, query: Tensor, pairs: Tensor,
        *, scale: float, window: int | None, cap: float | None,
    ) -> Tensor:  # fmt: skip
        """What new tokens see, (N, H, size), once all their pairs are written to their lanes.

        lanes: (count, 2 * H_kv, capacity, size), float32 or fp16, the size a multiple of `self.lanes`.
        places, stops: (N,) int64, of each token its lane and how many tokens of that it sees, with itself.
        query: (N, H, size); pairs: (N, 2 * H_kv, size).
        """
        query, pairs = _rows(query), _rows(pairs)
        count, heads, size = query.shape
        out = torch.empty(count, heads, size)
        told = _Lanes(
            lanes.data_ptr(), places.data_ptr(), stops.data_ptr(), heads, pairs.shape[1] // 2, size,
            lanes.shape[2], lanes.dtype == torch.half, window or 0, scale, cap or 0.0,
        )  # fmt: skip
        self._attend(
            ctypes.byref(told), query.data_ptr(), query.stride(0), pairs.data_ptr(), pairs.stride(0), count,
            out.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        return out


def _rows(x: Tensor) -> Tensor:
    """The same, each row in one piece. x: (N, heads, size)."""
    return x if x.stride(2) == 1 and x.stride(1) == x.shape[2] else x.contiguous()


class Weights:
    """A linear layer's as the kernels read them. weight: (out, in) that fp16 holds; bias: (out,).

    scales: (out,), of weights in int8: what one is worth.
    """

    dtype = torch.float32

    def __init__(
        self, kernels: Kernels, weight: Tensor, bias: Tensor | None, scales: Tensor | None = None
    ) -> None:
        self.outputs, inputs = weight.shape
        more, together = -self.outputs % kernels.width, 1 if scales is None else 4
        weight = weight.detach().half() if scales is None else weight
        bias = torch.zeros(self.outputs) if bias is None else bias.detach().float()
        weight = functional.pad(weight, (0, -inputs % together, 0, more))
        panels = weight.view(-1, kernels.width, weight.shape[1] // together, together)
        excess = None if scales is None else weight.sum(1, dtype=torch.int32).mul_(128)
        scales = None if scales is None else functional.pad(scales, (0, more))
        self._held = panels.transpose(1, 2).contiguous(), functional.pad(bias, (0, more)), scales, excess
        self._told = _Weights(
            *(None if x is None else x.data_ptr() for x in self._held), inputs, self.outputs
        )
        self.address = ctypes.addressof(self._told)
        self.kernels = kernels

    def __call__(self, x: Tensor) -> Tensor:
        """(N, in) -> (N, out)."""
        return self.kernels.multiply(self, x)


class Layer:
    """A decoder's layer. norms: before, of heads, after the attention, before the mlp and after it.

    products: queries, keys and values; out of the attention; gate and up; down.  scale, window, cap: of its
    attention.
    """

    def __init__(
        self, shape: Shape, norms: Sequence[Norm | None], products: Sequence[Weights],
        *, scale: float, window: int | None, cap: float | None,
    ) -> None:  # fmt: skip
        self.kernels = products[0].kernels
        self.lanes = _Lanes(
            heads=shape.heads, key_heads=shape.key_heads, size=shape.size, window=window or 0, scale=scale,
            cap=cap or 0.0,
        )  # fmt: skip
        self._heads, self._size = shape.heads + 2 * shape.key_heads, shape.size
        self._held = norms, products
        self._shape = _Shape(*(getattr(shape, name) for name in Shape.__slots__))
        told = [_Norm(None, 0.0) if each is None else _Norm(each[0].data_ptr(), each[1]) for each in norms]
        self._layer = _Layer(*told, *(each.address for each in products))
        self.address, self.shape = ctypes.addressof(self._layer), ctypes.addressof(self._shape)

    def open(self, x: Tensor, turns: Tensor) -> Tensor:
        """What comes before the attention: (N, H + 2 * H_kv, size).

        x: (N, D), turns: (N, 1, turning / 2) complex64; both contiguous.
        """
        rows, threads = x.shape[0], torch.get_num_threads()
        heads = torch.empty(rows, self._heads, self._size)
        told = x.data_ptr(), turns.data_ptr(), rows, heads.data_ptr(), threads
        self.kernels.open(self.address, self.shape, *told)
        return heads

    def close(self, x: Tensor, seen: Tensor) -> None:
        """What comes after it: `x`, (N, D), becomes the layer's output. seen: (N, H * size), contiguous."""
        rows, threads = x.shape[0], torch.get_num_threads()
        self.kernels.close(self.address, self.shape, x.data_ptr(), seen.data_ptr(), rows, threads)


class Stack:
    """All layers of a decoder, for tokens that have lanes."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._held = layers
        self._count = len(layers)
        self._layers = (c_void_p * self._count)(*(layer.address for layer in layers))
        self._blocks = (c_void_p * self._count)()
        self._lanes = (_Lanes * self._count)(*(layer.lanes for layer in layers))

    def decode(
        self, x: Tensor, turns: Tensor, lanes: Sequence[Tensor], blocks: Sequence[Tensor], places: Tensor,
        stops: Tensor, slots: Tensor,
    ) -> None:  # fmt: skip
        """`x`, (N, D), becomes what the last layer gives. turns: (N, 1, turning / 2) complex64.

        lanes, places, stops: as for `Kernels.attend`, the lanes of each layer.  blocks: of each layer,
        (.., 2 * H_kv, size), the new pairs go there too.  slots: (N,) int64, where to.
        """
        first = self._held[0]
        for i, (told, held) in enumerate(zip(self._lanes, lanes, strict=True)):
            told.lanes, told.capacity, told.half = held.data_ptr(), held.shape[2], held.dtype == torch.half
            told.places, told.stops = places.data_ptr(), stops.data_ptr()
            self._blocks[i] = blocks[i].data_ptr()
        first.kernels.decode(
            self._layers, first.shape, self._lanes, self._blocks, self._count, slots.data_ptr(),
            x.data_ptr(), turns.data_ptr(), x.shape[0], torch.get_num_threads(),
        )  # fmt: skip
