"""Linear layers for answering, their weights packed once in the order that the processor reads them.

Where the processor is fast at multiplying bf16, activations between such layers are bf16 too; elsewhere on a
CPU they are float32, and only the weights take fewer bits. Each row of a batch is computed as it would be
alone, but for the last bits of a float32 sum.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from dialoop.models.layers import take_place
from dialoop.models.load import default_dtype
from dialoop.models.native.kernels import LARGEST_HALF, Weights, kernels
from dialoop.models.processor import has
from dialoop.types import Precision

Packing = Precision | torch.dtype
"""How weights are kept; a type = in it and in their plain order, for a compiler to pack."""


class Linear(Protocol):
    """(N, in) -> (N, out), both of `dtype`; what comes in another is converted."""

    dtype: torch.dtype

    def __call__(self, x: Tensor, /) -> Tensor: ...


def pack(weight: Tensor, bias: Tensor | None, precision: Packing | None) -> Linear:
    """The fastest layer that keeps to `precision` here. weight: (out, in); bias: (out,).

    Packed weights are copies; None = no copy, they are widened to float32 at each call, slowly. Where the
    processor has no such arithmetic, the next more exact one is taken.
    """
    if isinstance(precision, torch.dtype):
        return Dense(weight, bias, precision)
    if weight.device.type != "cpu":
        return Dense(weight, bias, weight.dtype)
    if precision is None:
        return _Widened([(weight.detach(), bias)])
    bias = None if bias is None else bias.detach().float()
    if precision == "int8":
        if has("amx_int8") and _has_mkldnn():
            return _OnednnInt8(weight, bias)
        if (own := kernels()) is not None and own.bytes:
            scales, levels = _levels(weight)
            return Weights(own, levels, bias, scales)
        if _has_fbgemm():
            return _FbgemmInt8(weight, bias, 127 if has("avx512_vnni") else 63)
    if precision != "float32":
        if default_dtype("cpu") == torch.bfloat16:
            return _Bfloat16(weight, bias)
        if float(weight.detach().abs().max()) <= LARGEST_HALF:
            if (own := kernels()) is not None:
                return Weights(own, weight, bias)
            if _has_fbgemm():
                return _Half(weight, bias)
    return _Float32(weight, bias) if _has_mkldnn() else Dense(weight, bias, torch.float32)


def _has_fbgemm() -> bool:
    return "fbgemm" in torch.backends.quantized.supported_engines


def _has_mkldnn() -> bool:
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


class Dense(nn.Module):
    """Weights in their plain order; a module, so that a compiler knows them as constants."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.weight = nn.Parameter(weight.detach().to(dtype), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach().to(dtype), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x.to(self.dtype), self.weight, self.bias)


class _Widened:
    """Layers side by side whose weights stay where they are. order: which of their outputs stands where."""

    dtype = torch.float32

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor | None]], order: Tensor | None = None) -> None:
        self._layers, self._order = layers, order

    def __call__(self, x: Tensor) -> Tensor:
        parts = [
            functional.linear(x, weight.float(), None if bias is None else bias.float())
            for weight, bias in self._layers
        ]
        y = torch.cat(parts, dim=-1)
        return y if self._order is None else y[:, self._order]


class _Mkldnn:
    """oneDNN's own order of the weights; it is chosen for batches of about BATCH rows."""

    BATCH = 16
    dtype = torch.float32

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        dense = weight.detach().to(self.dtype)
        self._packed = torch.ops.mkldnn._reorder_linear_weight(dense, self.BATCH)
        self._bias = None if bias is None else bias.to(self.dtype)

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(
            x.to(self.dtype), self._packed, self._bias, "none", [], ""
        )
        return y


class _Float32(_Mkldnn):
    """float32 weights."""


class _Bfloat16(_Mkldnn):
    """bf16 weights and products; sums in float32."""

    dtype = torch.bfloat16


class _Half:
    """fp16 weights, widened as they are read: products and sums in float32.

    They hold a bf16 weight exactly down to 2^-14, and within 2^-25 below.
    """

    dtype = torch.float32

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._packed = torch.ops.quantized.linear_prepack_fp16(weight.detach().float(), bias)

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.quantized.linear_dynamic_fp16(x, self._packed)
        return y


class _OnednnInt8:
    """int8 weights with a scale for each row out, int8 inputs with a scale for each row in; sums in int32.

    For AMX: elsewhere oneDNN multiplies two signed numbers by its reference, a thousand times slower.
    """

    dtype = torch.float32

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        scales, levels = _levels(weight)
        self._packed = torch.ops.onednn.qlinear_prepack(levels, None)
        self._scales, self._zeros = scales, torch.zeros(len(scales), dtype=torch.int32)
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        steps = _largest(x).mul_(1 / 127)
        inputs = (x / steps).round_().to(torch.int8)
        y: Tensor = torch.ops.onednn.qlinear_pointwise(
            inputs, 1.0, 0, self._packed, self._scales, self._zeros, None, 1.0, 0, self.dtype, "none", [], ""
        )
        y *= steps
        return y if self._bias is None else y.add_(self._bias)


class _FbgemmInt8:
    """The same by fbgemm. most: levels of inputs on each side of 0.

    127 where products are summed in 32 bits at once; without AVX512-VNNI two of them are summed in 16 bits
    first, and of 63 none overflows.
    """

    dtype = torch.float32

    def __init__(self, weight: Tensor, bias: Tensor | None, most: int) -> None:
        scales, levels = _levels(weight)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.quantize_per_tensor", category=UserWarning)
            zeros = torch.zeros(len(scales), dtype=torch.long)
            quantized = torch._make_per_channel_quantized_tensor(levels, scales.double(), zeros, 0)
            self._packed = torch.ops.quantized.linear_prepack(quantized, None)
        self._bias = bias
        self._inputs = 1 / most, most + 1

    def __call__(self, x: Tensor) -> Tensor:
        largest = _largest(x)
        y: Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            x / largest, *self._inputs, self._packed
        )
        y *= largest
        return y if self._bias is None else y.add_(self._bias)


def _levels(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Of each row out its scale, (out,) float32, and its numbers in int8, (out, in)."""
    dense = weight.detach().float()
    scales = (dense.abs().amax(1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
    return scales, (dense / scales[:, None]).round_().to(torch.int8)


def _largest(x: Tensor) -> Tensor:
    """(N, 1): of each row its largest number, without its sign; above zero."""
    largest: Tensor = torch.linalg.vector_norm(x, torch.inf, dim=-1, keepdim=True)
    return largest.clamp_min_(torch.finfo(torch.float32).tiny)


class PackedLinear(nn.Module):
    """Takes the place of an `nn.Linear` in a model that runs through transformers."""

    def __init__(self, linear: nn.Linear, precision: Precision) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._linear = pack(linear.weight, linear.bias, precision)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), of the type of `x`."""
        y = self._linear(x.reshape(-1, self.in_features)).view(*x.shape[:-1], self.out_features)
        return y.to(x.dtype)


def pack_in_place(model: nn.Module, precision: Precision) -> None:
    """Give every linear layer of `model` packed weights, and all else float32. On a CPU.

    What hangs on a layer, such as an adapter, hangs on the packed one.
    """
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                take_place(module, name, child, PackedLinear(child, precision))
    model.float()


def fuse(linears: Sequence[nn.Linear], precision: Packing | None, order: Tensor | None = None) -> Linear:
    """One layer whose output is those of `linears` side by side; output i is their output order[i]."""
    if precision is None:
        return _Widened([(linear.weight, linear.bias) for linear in linears], order)
    weight = torch.cat([linear.weight.detach() for linear in linears])
    biases = [x.weight.new_zeros(x.out_features) if x.bias is None else x.bias.detach() for x in linears]
    bias = torch.cat(biases) if any(x.bias is not None for x in linears) else None
    if order is not None:
        weight, bias = weight[order], None if bias is None else bias[order]
    return pack(weight, bias, precision)
