"""What the processor is fast at."""

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
