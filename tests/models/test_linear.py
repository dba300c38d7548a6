"""Packed linear layers against plain products of the same weights."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dialoop.models import linear
from dialoop.models.linear import PackedLinear, fuse, pack
from dialoop.models.load import default_dtype
from dialoop.types import Precision

ROUNDING = 2**-8 if default_dtype("cpu") == torch.bfloat16 else 1e-6
"""Of a number between 16-bit layers: they speak bf16 where the processor multiplies it."""
TOLERANCES: dict[Precision, float] = {"float32": 1e-6, "half": ROUNDING, "int8": 0.03}


@pytest.fixture(scope="module", params=[True, False], ids=["own kernels", "torch's"], autouse=True)
def _kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    """With the kernels in C++, where they can be made here, and as on a machine without a compiler."""
    with pytest.MonkeyPatch.context() as patch:
        if not request.param:
            patch.setattr(linear, "kernels", lambda: None)
        yield


def layer(inputs: int, outputs: int, bias: bool) -> nn.Linear:
    """Its weights are such as a bf16 file holds."""
    torch.manual_seed(inputs)
    made = nn.Linear(inputs, outputs, bias=bias)
    with torch.no_grad():
        made.weight.copy_(made.weight.bfloat16().float())
    return made


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("bias", [False, True])
@torch.inference_mode()
def test_a_packed_layer_computes_what_the_plain_one_does(precision: Precision, bias: bool) -> None:
    for rows, inputs, outputs in ((1, 64, 96), (5, 320, 40), (70, 33, 17)):
        plain = layer(inputs, outputs, bias)
        x = torch.randn(rows, inputs)
        wanted = plain(x)
        error = (pack(plain.weight, plain.bias, precision)(x) - wanted).norm() / wanted.norm()
        assert error <= TOLERANCES[precision]


@pytest.mark.parametrize("precision", TOLERANCES)
@settings(max_examples=25, deadline=None)
@given(rows=st.integers(2, 40), seed=st.integers(0, 99))
def test_a_row_comes_out_as_it_would_alone(precision: Precision, rows: int, seed: int) -> None:
    packed = pack(layer(48, 64, True).weight, None, precision)
    x = torch.randn(rows, 48, generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        alone = torch.cat([packed(x[i : i + 1]) for i in range(rows)])
        torch.testing.assert_close(packed(x), alone, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_rows_of_nothing_and_weights_of_nothing_give_the_bias() -> None:
    plain = layer(16, 8, True)
    plain.weight[3] = 0
    for precision in TOLERANCES:
        out = pack(plain.weight, plain.bias, precision)(torch.zeros(2, 16)).float()
        torch.testing.assert_close(out, plain.bias.expand(2, -1), rtol=ROUNDING, atol=0)
        assert pack(plain.weight, None, precision)(torch.randn(1, 16))[0, 3] == 0


@torch.inference_mode()
def test_weights_too_large_for_16_bits_stay_exact() -> None:
    weight = torch.tensor([[1e5, -2e5]])
    got = pack(weight, None, "half")(torch.ones(1, 2)).float()
    torch.testing.assert_close(got, torch.tensor([[-1e5]]), rtol=2 * ROUNDING, atol=0)


@pytest.mark.parametrize("rows", [1, 20])
@torch.inference_mode()
def test_sums_of_the_largest_numbers_do_not_overflow(rows: int) -> None:
    """Products of two 8-bit numbers that are added up in 16 bits would."""
    packed = pack(torch.ones(16, 512), None, "int8")
    for sign in (1.0, -1.0):
        wanted = torch.full((rows, 16), sign * 512)
        torch.testing.assert_close(packed(sign * torch.ones(rows, 512)), wanted, rtol=1e-3, atol=0)


@torch.inference_mode()
def test_fused_layers_stand_side_by_side() -> None:
    first, second = layer(24, 8, True), layer(24, 12, False)
    x = torch.randn(3, 24)
    wanted = torch.cat([first(x), second(x)], dim=1)
    torch.testing.assert_close(fuse([first, second], "float32")(x), wanted)


@torch.inference_mode()
def test_a_packed_layer_takes_the_place_of_a_plain_one() -> None:
    plain = layer(24, 8, True)
    x = torch.randn(2, 3, 24)
    torch.testing.assert_close(PackedLinear(plain, "half")(x), plain(x), atol=10 * ROUNDING, rtol=ROUNDING)
