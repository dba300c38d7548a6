"""Compiles the kernels for this machine's processor, once: the library is kept in the user's cache."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

log = logging.getLogger("dialoop.engine")

ANSWERING, TRAINING = (Path(__file__).with_name(f"{name}.cpp") for name in ("kernels", "training"))
"""And the headers beside them."""
FLAGS = ("-std=c++17", "-O3", "-pthread", "-shared", "-fPIC", "-w")
BESIDE_TORCH = ("-fopenmp",)
"""Of training, where GNU's compiler makes it: torch's threads do its work too."""
NATIVE = ("-march=native",)
COMPILERS = ("c++", "g++", "clang++")
SECONDS = 120


@cache
def library(source: Path) -> ctypes.CDLL | None:
    """The kernels; None, and the log says why, where this machine cannot make them."""
    compiler, what = _compiler(), "answering" if source == ANSWERING else "training"
    if compiler is None:
        log.warning("no C++ compiler: %s is slower than it could be, install g++ or clang++", what)
        return None
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dialoop"
    try:
        return ctypes.CDLL(str(compiled(compiler, folder, source)))
    except (OSError, subprocess.SubprocessError) as error:
        told = (getattr(error, "stderr", None) or str(error)).strip()
        log.warning("%s cannot make the kernels, %s is slower without: %s", compiler, what, told[-500:])
        return None


def _compiler() -> str | None:
    return os.environ.get("CXX") or next(filter(shutil.which, COMPILERS), None)


def with_brief_waits(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` for a process that answers through the kernels, on Linux; needs no torch.

    GNU's OpenMP, which torch brings, lets a thread wait awake for some ten milliseconds for more work. The
    kernels have threads of their own, and beside another process's work a step took up to twenty times as
    long for want of processors. What is set already stays, and where bf16 products are torch's, all does.
    """
    try:
        processor = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:
        return dict(environment)
    by_torch = "amx_bf16" in processor or ("avx512_bf16" in processor and "GenuineIntel" not in processor)
    return dict(environment) if by_torch or not _compiler() else {"GOMP_SPINCOUNT": "1000", **environment}


def compiled(compiler: str, folder: Path, source: Path = ANSWERING, target: tuple[str, ...] = NATIVE) -> Path:
    """The library of `source` in `folder`, made now where it is not there. Raises OSError or SubprocessError.

    target: the compiler's options that name a processor.
    """
    import torch

    version = subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, timeout=SECONDS, check=True
    )
    processor = sorted(torch.cpu.get_capabilities().items())
    gnu = source == TRAINING and "Free Software Foundation" in version.stdout
    flags = (*FLAGS, *(BESIDE_TORCH if gnu else ()), *target)
    sources = [file.read_text() for file in sorted((source, *source.parent.glob("*.h")))]
    made_of = (sources, compiler, version.stdout, flags, processor)
    file = folder / f"{source.stem}-{hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]}.so"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        log.info("compiling kernels for this processor into %s", file)
        with tempfile.TemporaryDirectory(dir=folder) as aside:
            made = Path(aside, file.name)
            command = [compiler, *flags, str(source), "-o", str(made)]
            subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
            made.replace(file)
    return file
