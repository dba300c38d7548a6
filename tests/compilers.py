"""The processors for which kernels can be compiled and run on this machine."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

from dialoop.models.native import build
from dialoop.models.processor import has

COMPILER = next(filter(shutil.which, build.COMPILERS), "")
TARGETS = [build.NATIVE]
if platform.machine() == "x86_64" and has("avx2"):
    TARGETS.append(("-march=x86-64-v3",))
    if "avx_vnni" in Path("/proc/cpuinfo").read_text():
        TARGETS.append(("-march=x86-64-v3", "-mavxvnni"))
