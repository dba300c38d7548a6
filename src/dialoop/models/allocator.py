"""The C allocator's habits, set once by long computing processes."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Let glibc reuse large freed blocks instead of returning them to the system; True where it did.

    Otherwise every activation of a step is mapped, zeroed by the kernel and unmapped anew: measured at up
    to half of the time of a matrix product whose output is 30 MB (bench/train.py).
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    habits = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 2**28))
    return all(mallopt(name, value) for name, value in habits)


def in_huge_pages(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` for a process whose large blocks lie in huge pages, where Linux grants them on request.

    Weights and keys are read from end to end in each step: with fewer pages, fewer look-ups of them wait for
    memory (a tenth of a decoding step of the model B of bench/serve.py). What is set already stays.
    """
    return {"THP_MEM_ALLOC_ENABLE": "1", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", **environment}
