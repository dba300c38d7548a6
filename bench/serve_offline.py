"""Decode and prefill of bench/serve.py's contestants, and the limits of the machine."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from typing import Any

from serve_models import SHAPES, Prompts, built
from serve_peers import CONTESTANTS, LIMITS, Contest, Figures, Live, PeerError, Process, Runs, Setting
from serve_tables import Bar, bars, contestants, machine, medians, ratios

Start = Callable[[], Process]
PROMPT = 128
COUNTS = (1, 4, 16)
TRIES = 3
"""How often times that contradict each other are taken anew, as on a first, cold call or a busy machine."""
BF16 = ("llama.cpp-bf16", "openvino-bf16", "vllm-bf16", "transformers-bf16")
BARS = {
    "A": (
        Bar("dialoop", "decode at 1", 1.0, BF16), Bar("dialoop", "decode at 1", 0.8, ("limits",)),
        Bar("dialoop", "decode at 4", 1.1, BF16), Bar("dialoop", "decode at 16", 1.1, BF16),
        Bar("dialoop", "prefill at 16", 1.0, BF16), Bar("dialoop", "prefill at 16", 0.85, ("limits",)),
        *(Bar("dialoop-int8", f"decode at {n}", 1.0, ("openvino-int8",)) for n in COUNTS),
        Bar("dialoop-int8", "prefill at 16", 1.0, ("openvino-int8",)),
    ),
    "B": (
        *(
            Bar(name, "decode at 16", least, (peer,))
            for name in ("dialoop", "dialoop-compiled")
            for peer, least in (("openvino-bf16", 1.5), ("llama.cpp-bf16", 1.0))
        ),
    ),
}  # fmt: skip


class Bench:
    """What all subcommands share: the options, the model's directory and prompts for it."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.model = built(given.model, given.folder)
        self.shape = SHAPES[given.model]
        self.prompts = Prompts(self.model)

    def setting(self, rows: int, prompt: int = PROMPT) -> Setting:
        """Room for `rows` sequences, each of a prompt and an answer (and a few tokens that some add)."""
        return Setting(self.model, self.given.threads, rows, prompt + self.given.tokens + 64)

    def peers(self, setting: Setting, *default: str) -> dict[str, Start]:
        """Those asked for by --peers."""
        names = self.given.peers or default
        return {name: partial(Live, name, CONTESTANTS[name], setting) for name in names}

    def contest(self, starts: Mapping[str, Start], *works: Callable[[Any], Figures]) -> Runs:
        """The rounds of all these; prints where they ran, and who took part."""
        print(machine(self.given.threads), end="\n\n", flush=True)
        with Contest(starts) as contest:
            runs = contest.rounds(self.given.rounds, *works)
            print(contestants(contest), end="\n\n", flush=True)
        if not runs:
            raise SystemExit("nobody could be measured")
        return runs

    def repeated(self, once: Callable[[], tuple[float, ...]]) -> tuple[int, list[float]]:
        """How often `once` was called to fill --seconds, and the sums of the seconds that it told."""
        found = [once()]
        while sum(map(sum, found)) < self.given.seconds:
            found.append(once())
        return len(found), [sum(column) for column in zip(*found, strict=True)]

    def speed(self, peer: Live, count: int, *models: str, length: int = PROMPT) -> Figures:
        """Decode and prefill of `count` sequences, and the tokens of answers by all the time they took."""
        tokens = self.given.tokens

        def once() -> tuple[float, float]:
            first = peer.generate(self.prompts.fresh(count, length), 1, *models)
            return first, peer.generate(self.prompts.fresh(count, length), tokens, *models)

        for _ in range(TRIES):
            times, (first, whole) = self.repeated(once)
            if whole > first:
                break
        else:
            raise PeerError(f"{tokens} tokens took {whole:.3f} s, the first one alone {first:.3f} s")
        return {
            f"decode at {count}": times * count * (tokens - 1) / (whole - first),
            f"prefill at {count}": times * count * length / first,
            f"whole at {count}": times * count * tokens / whole,
        }

    def allowed(self, limits: Live, count: int) -> Figures:
        """Tokens a second that memory and matrix products allow."""
        figures: Figures = {}
        if count == 1:
            best = max(limits.ask("bandwidth")["rates"].values())
            figures |= {"GB/s": best / 1e9, "decode at 1": best / (2 * self.shape.weights)}
        sizes = sorted({min(count * PROMPT, size) for size in (512, 2048)})
        rates = [rate for size in sizes for rate in limits.ask("linears", tokens=size)["rates"].values()]
        return {**figures, f"prefill at {count}": max(rates)}


def offline(bench: Bench) -> None:
    """Decode at 1, 4 and 16 sequences, and prefill."""
    setting = bench.setting(max(COUNTS))
    peers = bench.peers(setting, *CONTESTANTS) | {"limits": partial(Live, "limits", LIMITS, setting)}

    def work(peer: Live, count: int) -> Figures:
        return bench.allowed(peer, count) if peer.name == "limits" else bench.speed(peer, count)

    runs = bench.contest(peers, *(partial(work, count=count) for count in COUNTS))
    figures = [f"{what} at {n}" for what in ("decode", "prefill") for n in COUNTS]
    print(medians(runs, figures) + "\n\n" + _unit(runs), end="\n\n")
    print(ratios(runs, "dialoop", figures), end="\n\n")
    print(bars(BARS.get(bench.given.model, ()), runs))


def limits(bench: Bench) -> None:
    """The limits alone."""
    start = {"limits": partial(Live, "limits", LIMITS, bench.setting(1))}
    runs = bench.contest(start, *(partial(bench.allowed, count=count) for count in (1, 16)))
    print(medians(runs, ["decode at 1", "prefill at 1", "prefill at 16"]) + "\n\n" + _unit(runs))


def _unit(runs: Runs) -> str:
    read = runs.get("limits", {}).get("GB/s")
    return f"Tokens a second. Memory was read at {median(read):.1f} GB/s." if read else "Tokens a second."
