"""The layers of a small decoder compiled: what lies between two attentions becomes one C++ function.

It saves calls, not bytes: with a few million parameters a step is mostly the cost of some 150 calls. torch's
compiler (Inductor) writes the products too, which start in a microsecond where oneDNN's take twenty-five.
It takes a C++ compiler on the machine, and a copy of the weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch._inductor import config as inductor

from dialoop.errors import ModelError
from dialoop.models.lean_layers import Fused, Layer, Shape, attended, closed, layer_of, opened
from dialoop.models.steps import Step

MOST_ROWS = 64
"""Of a step that goes through compiled layers: longer ones are prompts, whose products outweigh the calls."""
MOST_PARAMETERS = 100_000_000
"""Of a model: with more, reading the weights outweighs the calls."""
OPTIONS = {
    "freezing": True, "max_autotune": True, "max_autotune_gemm_backends": "CPP",
    "autotune_num_choices_displayed": 0, "compile_threads": 1,
}  # fmt: skip


class Glue(nn.Module):
    """From one layer's attention to the next one's: of `closing`, None before the first, to `opening`, None
    after the last.
    """

    def __init__(self, closing: Layer | None, opening: Layer | None, shape: Shape) -> None:
        super().__init__()
        self._closing, self._opening, self._shape = closing, opening, shape
        fused = [] if closing is None else [closing.out, closing.gate_up, closing.down]
        fused += [] if opening is None else [opening.qkv]
        self._weights = nn.ModuleList(each.linear for each in fused if isinstance(each.linear, nn.Module))

    def forward(self, x: Tensor, seen: Tensor, turns: Tensor) -> tuple[Tensor, Tensor]:
        """x: (T, D), the stream.  seen: (T, H * size), what attention saw.  turns: (T, 1, half, 2).

        Returns the stream and the next heads of queries, keys and values, (T, H + 2 * H_kv, size).
        """
        if (layer := self._closing) is not None:
            x = x.clone()
            closed(layer, x, seen, _product)
        if (layer := self._opening) is None:
            return x, seen
        return x, opened(layer, self._shape, x, _product, partial(_turn, turns))


def _product(fused: Fused, x: Tensor) -> Tensor:
    return fused.linear(x)


def _turn(turns: Tensor, heads: Tensor) -> None:
    """Without complex numbers, which the compiler does not know. turns: (T, 1, half, 2)."""
    turning = heads[..., : 2 * turns.shape[-2]]
    pairs = turning.unflatten(-1, (-1, 2))  # type: ignore[no-untyped-call]
    a, b, cos, sin = pairs[..., 0], pairs[..., 1], turns[..., 0], turns[..., 1]
    turning.copy_(torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2))


class Compiled:
    """All layers of a decoder, their linear layers `Dense`. width: of the stream; dtype: of the products.

    Raises ModelError where this machine cannot compile.
    """

    def __init__(self, layers: Sequence[Layer], shape: Shape, width: int, dtype: torch.dtype) -> None:
        self._layers, self._shape, self._dtype = layers, shape, dtype
        pairs = zip([None, *layers], [*layers, None], strict=True)
        glue = [Glue(closing, opening, shape) for closing, opening in pairs]
        try:
            # As the whole process's settings for now: the tracer asks too whether weights are constants.
            with inductor.patch(OPTIONS), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's, about what it uses itself
                self._one = [_compiled(each, dynamic=False) for each in glue]
                self._many = [_compiled(each, dynamic=True) for each in glue]
                self._warm(width)
        except Exception as error:
            raise ModelError(
                f"the layers cannot be compiled here, leave --compile away or install a C++ compiler: {error}"
            ) from error

    @torch.no_grad()
    def _warm(self, width: int) -> None:
        """Compile for one row, and for any number of them."""
        shape = self._shape
        for rows, pieces in ((1, self._one), (16, self._many)):
            x = torch.zeros(rows, width)
            seen = torch.zeros(rows, shape.heads * shape.size, dtype=self._dtype)
            turns = torch.zeros(rows, 1, shape.turning // 2, 2)
            for glue in pieces:
                glue(x, seen, turns)

    def states(self, x: Tensor, turns: Tensor, step: Step) -> Tensor:
        """(T, D) after the last layer. x: (T, D), the embedded tokens; turns: (T, 1, half) complex."""
        real = torch.view_as_real(turns)
        first, *rest = self._one if len(x) == 1 else self._many
        x, heads = first(x, x.to(self._dtype), real)
        for layer, glue in zip(self._layers, rest, strict=True):
            x, heads = glue(x, attended(layer, self._shape, heads, step), real)
        return x


def _compiled(glue: Glue, *, dynamic: bool) -> Callable[..., Any]:
    """`glue` for any number of rows, or for one.

    Nothing is checked when it is called: whoever calls it gives what it was compiled for. It has code of its
    own, since the compiler keeps what it has made of a piece of code in one short list.
    """
    forward = FunctionType(Glue.forward.__code__.replace(), globals())
    return torch.compile(
        MethodType(forward, glue), dynamic=dynamic,
        options={"guard_filter_fn": torch.compiler.skip_all_guards_unsafe},
    )  # fmt: skip


def compile_layers(decoder: Any, shape: Shape, dtype: torch.dtype) -> Compiled:
    """Of a transformers decoder, the products in `dtype`. Raises ModelError where it cannot be done here."""
    layers = [layer_of(layer, i, shape, dtype) for i, layer in enumerate(decoder.layers)]
    return Compiled(layers, shape, decoder.embed_tokens.weight.shape[1], dtype)
