"""The cost of growth: tokens a second by sequences side by side, and by the tokens before the answer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from statistics import median

from serve_offline import Bench
from serve_peers import Figures, Live, Runs
from serve_tables import medians

from dialoop.evals.plot import Line, line_chart

SEQUENCES = (1, 2, 4, 8, 16, 32, 64)
LENGTHS = (128, 256, 512, 1_024, 2_048, 4_096, 8_192)
COLOURS = ("blue", "darkorange", "green", "purple", "gray", "crimson", "teal", "olive")


def growth(bench: Bench) -> None:
    """At 1 to 64 sequences of 128 tokens, and of one sequence after 128 to 8,192 tokens."""
    by_count = [partial(bench.speed, count=count) for count in SEQUENCES]
    runs = bench.contest(bench.peers(bench.setting(max(SEQUENCES)), "dialoop"), *by_count)
    _show(bench, runs, "sequences", {n: f"decode at {n}" for n in SEQUENCES})
    by_length = [partial(_after, bench, length=length) for length in LENGTHS]
    runs = bench.contest(bench.peers(bench.setting(1, max(LENGTHS)), "dialoop"), *by_length)
    _show(bench, runs, "context", {n: f"decode after {n}" for n in LENGTHS})
    print(medians(runs, [f"prefill of {n}" for n in LENGTHS]))


def _after(bench: Bench, peer: Live, length: int) -> Figures:
    """One sequence of a prompt of `length` tokens."""
    found = bench.speed(peer, 1, length=length)
    return {f"decode after {length}": found["decode at 1"], f"prefill of {length}": found["prefill at 1"]}


def _show(bench: Bench, runs: Runs, name: str, figures: Mapping[int, str]) -> None:
    """A table, and its plot in a file."""
    out = bench.given.out / f"serve-{bench.given.model}-{name}.svg"
    out.write_text(drawn(runs, figures, f"decode, tokens a second, by {name}"), encoding="utf-8")
    lines = ", ".join(f"{peer} {colour}" for peer, colour in zip(runs, COLOURS, strict=False))
    print(medians(runs, list(figures.values())) + "\n\nTokens a second.", end="\n\n")
    print(f"![Decode by {name}]({out.name})\n\nLines: {lines}.", end="\n\n")


def drawn(runs: Runs, figures: Mapping[int, str], label: str) -> str:
    """An SVG file, a line for each contestant."""
    lines = [
        Line(f"line{i}", tuple((float(x), median(found[f])) for x, f in figures.items()))
        for i, found in enumerate(runs.values())
    ]
    strokes = "".join(f".line{i}{{stroke:{colour}}}" for i, colour in enumerate(COLOURS))
    text = "text{font:11px sans-serif} .end{text-anchor:end} .mid{text-anchor:middle}"
    style = f"<style>polyline{{fill:none}} line{{stroke:#ddd}} {text} {strokes}</style>"
    opening, _, rest = str(line_chart(lines, label)).partition(">")
    return f'{opening} xmlns="http://www.w3.org/2000/svg" width="840">{style}{rest}\n'
