"""The kernels of `training.cpp` as functions of tensors on the CPU, all float32 or all bf16."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_double, c_int, c_int64, c_void_p
from functools import cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from dialoop.models.native.build import TRAINING, library

TYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


class _Documents(ctypes.Structure):
    _fields_ = [
        ("starts", c_void_p), *((name, c_int64) for name in ("count", "heads", "key_heads", "size")),
        ("scale", c_double),
    ]  # fmt: skip

    @classmethod
    def of(cls, q: Tensor, k: Tensor, lengths: Sequence[int], scale: float) -> Any:
        starts = (c_int64 * (len(lengths) + 1))(0, *accumulate(lengths))
        (_, heads, size), key_heads = q.shape, k.shape[1]
        made = cls(ctypes.addressof(starts), len(lengths), heads, key_heads, size, scale)
        made.held = starts
        return ctypes.byref(made)


class _Coded(ctypes.Structure):
    _fields_ = [("codes", c_void_p), ("scales", c_void_p), ("rows", c_int64), ("columns", c_int64)]


class _Heads(ctypes.Structure):
    _fields_ = [("at", c_void_p), ("pitch", c_int64)]

    @classmethod
    def of(cls, x: Tensor) -> Any:
        """x: (T, heads, size), each token's in one piece."""
        return ctypes.byref(cls(x.data_ptr(), x.stride(0)))


_TAKEN: dict[str, list[Any]] = {
    "attend": [c_void_p] * 6,
    "attend_back": [c_void_p] * 10,
    "norm": [c_void_p, c_void_p, c_double, c_int64, c_int64, c_void_p, c_void_p],
    "norm_back": [*[c_void_p] * 4, c_double, c_void_p, c_int64, c_int64, c_void_p, c_void_p],
    "turn": [c_void_p, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_double],
    "gated": [c_void_p, c_int64, c_int64, c_void_p],
    "gated_back": [c_void_p, c_void_p, c_int64, c_int64, c_void_p],
}
"""And last how many threads."""
_MULTIPLY = [c_void_p, c_void_p, c_int64, c_int64, c_int, c_void_p, c_int64]


@cache
def _made() -> Any | None:
    return library(TRAINING)


def training(*tensors: Tensor) -> Training | None:
    """Those for tensors of one type, their last dimensions in whole vectors; None where torch's must do."""
    (dtype, *others), devices = {x.dtype for x in tensors}, {x.device.type for x in tensors}
    if others or dtype not in TYPES or devices != {"cpu"} or (made := _made()) is None:
        return None
    return None if any(x.shape[-1] % made.dialoop_lanes() for x in tensors) else _of(dtype)


def by_bytes(x: Tensor) -> Training | None:
    """Those that multiply `x` with matrices in int8; None where torch's must do."""
    own = training(x[..., :0]) if x.dtype == torch.float32 else None  # of any size
    return own if own is not None and own.bytes else None


@cache
def _of(dtype: torch.dtype) -> Training:
    return Training(_made(), dtype)


class Training:
    """Of one type. bytes: whether the processor sums products of 8-bit numbers."""

    def __init__(self, made: Any, dtype: torch.dtype) -> None:
        self.dtype, self.bytes = dtype, bool(made.dialoop_has_bytes())
        self._functions = {name: getattr(made, f"dialoop_{name}_{TYPES[dtype]}") for name in _TAKEN}
        for name, function in self._functions.items():
            function.argtypes, function.restype = [*_TAKEN[name], c_int], None
        if self.bytes:
            made.dialoop_multiply.argtypes, made.dialoop_multiply.restype = [*_MULTIPLY, c_int], None
            self._functions["multiply"] = made.dialoop_multiply

    def _run(self, name: str, *told: Any) -> None:
        """told: a tensor stands for where its numbers are."""
        given = [each.data_ptr() if isinstance(each, Tensor) else each for each in told]
        self._functions[name](*given, torch.get_num_threads())

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], scale: float
    ) -> tuple[Tensor, Tensor]:
        """Causal attention inside documents: what is seen, (T, H, D), and the logs of the sums, (H, T)."""
        q, k, v = map(_rows, (q, k, v))
        out, logs = q.new_empty(q.shape), torch.empty(q.shape[1], q.shape[0])
        self._run("attend", _Documents.of(q, k, lengths, scale), *map(_Heads.of, (q, k, v, out)), logs)
        return out, logs

    def attend_back(
        self, grad: Tensor, seen: Sequence[Tensor], lengths: Sequence[int], scale: float,
        into: tuple[Tensor, Tensor, Tensor],
    ) -> None:  # fmt: skip
        """Write the gradients of q, k and v `into` these. seen: q, k, v, and what `attend` gave."""
        grad, q, k, v = map(_rows, (grad, *seen[:3]))
        out, logs = seen[3:]
        heads = map(_Heads.of, (grad, q, k, v, out))
        self._run("attend_back", _Documents.of(q, k, lengths, scale), *heads, logs, *map(_Heads.of, into))

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """Root mean square norm of rows, (N, D), and their mean squares, (N,) fp32."""
        x = x.contiguous()
        y, squares = torch.empty_like(x), torch.empty(len(x))
        self._run("norm", x, weight, eps, *x.shape, y, squares)
        return y, squares

    def norm_back(
        self, grad: Tensor, x: Tensor, weight: Tensor, squares: Tensor, eps: float, past: Tensor | None,
        *, trained: bool,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """The gradients of x, with `past` added if given, and, if it is `trained`, of the weight, fp32."""
        grad, x, past = grad.contiguous(), x.contiguous(), None if past is None else past.contiguous()
        dx, dweight = torch.empty_like(x), torch.empty(x.shape[1]) if trained else None
        self._run("norm_back", grad, x, weight, squares, eps, past, *x.shape, dx, dweight)
        return dx, dweight

    def turn(self, x: Tensor, cos: Tensor, sin: Tensor, *, back: bool = False) -> None:
        """Rotary positions in place, the halves of a head together.

        x: (T, H, D), of each token in one piece; cos, sin: (T, 1, D), the two halves of sin of opposite sign.
        """
        self._run("turn", _Heads.of(x), cos, sin, *x.shape, -1.0 if back else 1.0)

    def gated(self, both: Tensor) -> Tensor:
        """silu(gate) * up, (N, I). both: (N, 2 I), gate before up."""
        y = both.new_empty(both.shape[0], both.shape[1] // 2)
        self._run("gated", both, *y.shape, y)
        return y

    def gated_back(self, grad: Tensor, both: Tensor) -> Tensor:
        """The gradient of `both`, (N, 2 I). grad: (N, I)."""
        dboth = torch.empty_like(both)
        self._run("gated_back", grad.contiguous(), both, *grad.shape, dboth)
        return dboth

    def multiply(self, x: Tensor, codes: Tensor, scales: Tensor, *, back: bool = False) -> Tensor:
        """x Mᵀ, or with `back` x M, float32; each 64 numbers of a row of x in 255 levels of their own.

        x: (N, columns), with `back` (N, rows); codes: (rows, columns) int8; scales: (rows,) float32.
        """
        x = x if x.stride(1) == 1 else x.contiguous()
        y = x.new_empty(len(x), codes.shape[1] if back else len(codes))
        matrix = _Coded(codes.data_ptr(), scales.data_ptr(), *codes.shape)
        self._run("multiply", ctypes.byref(matrix), x, x.stride(0), len(x), back, y, y.stride(0))
        return y


def _rows(x: Tensor) -> Tensor:
    """The same, each token's heads in one piece. x: (T, heads, size)."""
    return x if x.stride(2) == 1 and x.stride(1) == x.shape[2] else x.contiguous()
