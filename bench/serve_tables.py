"""What bench/serve.py prints: machine, contestants, medians, ratios and bars, losses like wins."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from base_page import table
from serve_peers import Contest, Runs

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8")
IDLE = 0.02
"""Share of a processor that a contestant may use while it waits, before it is printed bold."""


def machine(threads: int) -> str:
    """Command, commit, processor, its arithmetic, threads, day."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = told.get("flags", "").split()
    have = ", ".join(f"{'' if flag in flags else 'no '}{flag}" for flag in FLAGS)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    here = Path(__file__).parent
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True
    ).stdout.strip()
    return (
        f"`python bench/serve.py {' '.join(sys.argv[1:])}`; commit {commit or 'unknown'}; "
        f"{told.get('model name', platform.machine())} ({have}), {threads} threads on {os.cpu_count()} "
        f"processors, {memory:.0f} GiB; Python {platform.python_version()}; {time.strftime('%F')}."
    )


def contestants(contest: Contest) -> str:
    """Who took part and who did not, and why."""
    rows = []
    for name, process in contest.live.items():
        burnt = f"{process.burnt:.0%}"
        idle = f"**{burnt}**" if process.burnt > IDLE else burnt
        rows.append((name, process.about, f"{process.resident():.1f}", idle))
    rows += [(name, f"**not measured**: {reason}", "", "") for name, reason in contest.reasons.items()]
    return table("contestant|what|GB in use|of a processor while others were measured", rows)


def medians(runs: Runs, figures: Sequence[str], digits: int = 1) -> str:
    """Medians by contestant; "-" where a contestant has no such figure."""
    rows = [
        (name, *(f"{median(found[f]):,.{digits}f}" if f in found else "-" for f in figures))
        for name, found in runs.items()
    ]
    return table("|".join(["median", *figures]), rows)


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Median, least and most of the rounds' ratios: both sides of each were measured next to each other."""
    each = [a / b for a, b in zip(ours, theirs, strict=True)]
    return median(each), min(each), max(each)


def ratios(runs: Runs, ours: str, figures: Sequence[str]) -> str:
    """`ours` against each of the others, figure by figure, larger = better for `ours`."""
    rows = []
    for name, found in runs.items():
        if name != ours:
            both = found.keys() & runs.get(ours, {}).keys()
            rows.append((name, *(_shown(runs[ours][f], found[f]) if f in both else "-" for f in figures)))
    return table("|".join([f"{ours} / contestant", *figures]), rows)


def _shown(ours: Sequence[float], theirs: Sequence[float]) -> str:
    middle, low, high = ratio(ours, theirs)
    shown = f"{middle:.2f} ({low:.2f}-{high:.2f})"
    return shown if middle >= 1 else f"**{shown}**"


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure of ours, at least so many times the same figure of the best of others."""

    ours: str
    figure: str
    least: float
    others: tuple[str, ...]


def bars(wanted: Iterable[Bar], runs: Runs) -> str:
    """Every bar: what was measured, whether it is met, and who was not there to be compared with."""
    rows = [_judged(bar, runs) for bar in wanted]
    return table("bar|measured|met", rows) if rows else "This model has no bars."


def _judged(bar: Bar, runs: Runs) -> tuple[str, str, str]:
    others = " / ".join(bar.others) if len(bar.others) < 3 else "the best peer"
    name = f"{bar.figure}: {bar.ours} at least {bar.least:g} x {others}"
    there = [other for other in bar.others if bar.figure in runs.get(other, {})]
    absent = ", ".join(other for other in bar.others if other not in there)
    ours = runs.get(bar.ours, {}).get(bar.figure)
    if ours is None or not there:
        return name, f"{absent or bar.ours} not measured", "**no**"
    found = {other: ratio(ours, runs[other][bar.figure]) for other in there}
    best = min(found, key=lambda other: found[other][0])
    words = "{1:.2f} ({2:.2f}-{3:.2f}) against {0}".format(best, *found[best])
    words += f"; not measured: {absent}" if absent else ""
    return name, words, "yes" if found[best][0] >= bar.least else "**no**"
