"""The C allocator's habits, set once by long computing processes."""

from __future__ import annotations

import ctypes
import sys

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
