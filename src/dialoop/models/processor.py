"""What the processor is fast at, and what it must have done once."""

from __future__ import annotations

from functools import cache

import torch


@cache
def has(instructions: str) -> bool:
    """Whether the CPU has them, as torch calls them: `amx_bf16`, `avx512_vnni`."""
    return bool(torch.cpu.get_capabilities().get(instructions))


@cache
def multiplies_bf16() -> bool:
    """Whether the CPU multiplies bf16 faster than float32: AMX, and AMD's AVX512-BF16.

    Intel's AVX512-BF16 alone has 60 % of float32's rate; elsewhere bf16 is emulated.
    """
    intel = str(torch.cpu.get_capabilities().get("cpu_name")).startswith("Intel")
    return has("amx_bf16") or (has("avx512_bf16") and not intel)


MKL_FUNCTIONS = (
    "acos", "asin", "atan", "cos", "erf", "erfc", "erfinv", "exp", "expm1", "lgamma", "log", "log10", "log1p",
    "log2", "sin", "sqrt", "tan", "tanh",
)  # fmt: skip


def settle_functions() -> None:
    """Call every elementwise function that torch takes from MKL once, from one thread.

    A function's very first call may come from several threads: then one of them can take a kernel that is
    wrong by 1e-4 (pytorch issue 188792), and a run that is resumed is not the run that it was.
    """
    for dtype in (torch.float32, torch.float64):
        for name in MKL_FUNCTIONS:
            getattr(torch, name)(torch.full((1,), 0.5, dtype=dtype))


settle_functions()
