"""What sharing saves and costs: prefixes, adapters and scored candidates, each beside the way without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from serve_models import lora_of
from serve_offline import PROMPT, Bench
from serve_peers import CONTESTANTS, Figures, Live, PeerError, Runs
from serve_tables import Bar, bars, medians, ratios

CLIENTS, SYSTEM = 16, 1_000
ADAPTERS = 8
HISTORY, CANDIDATES, CANDIDATE = 512, 50, 16


def prefix(bench: Bench) -> None:
    """16 clients whose system prompt of 1,000 tokens is the same, or each one's own: then no prefix is known.

    The shared one is new every time too: reading it once is part of the time.
    """
    length = SYSTEM + PROMPT

    def asked(peer: Live, tokens: int, systems: int) -> float:
        texts = [bench.prompts.text(SYSTEM) for _ in range(systems)] * (CLIENTS // systems)
        prompts = [bench.prompts.fresh(1, length, system=text)[0] for text in texts]
        return peer.generate(prompts, tokens)

    def work(peer: Live, tokens: int) -> Figures:
        ways = {"shared": partial(asked, peer, tokens, 1), "apart": partial(asked, peer, tokens, CLIENTS)}
        return _beside(bench, ways, f"answers of {tokens}", CLIENTS)

    lengths = (1, bench.given.tokens)
    runs = _ways(bench.contest(_dialoop(bench, length), *(partial(work, tokens=n) for n in lengths)))
    figures = [f"answers of {tokens}" for tokens in lengths]
    _print(runs, figures, "Requests a second.", Bar("shared", figures[-1], 3.0, ("apart",)))


def adapters(bench: Bench) -> None:
    """16 sequences through eight LoRA adapters of rank 16, two each, or through a base that has none."""
    setting = bench.setting(CLIENTS)
    tuned = {f"lora-{i}": str(lora_of(bench.model, i)) for i in range(ADAPTERS)}
    settings = {"base": setting, "adapters": replace(setting, adapters=tuned)}
    starts = {name: partial(Live, name, CONTESTANTS["dialoop"], each) for name, each in settings.items()}

    def work(peer: Live) -> Figures:
        return bench.speed(peer, CLIENTS, *(tuned if peer.name == "adapters" else ()))

    runs = bench.contest(starts, work)
    figures = [f"{what} at {CLIENTS}" for what in ("decode", "prefill", "whole")]
    _print(runs, figures, "Tokens a second.", Bar("adapters", figures[-1], 0.7, ("base",)))


def score(bench: Bench) -> None:
    """50 candidates of 16 tokens on one history of 512, in one call, or in 50, each on a history of its own:
    then nothing that was read before helps.
    """

    def scored(peer: Live, histories: int) -> float:
        answers = [bench.prompts.text(CANDIDATE - 1) for _ in range(CANDIDATES // histories)]
        prompts = [prompt.sent() for prompt in bench.prompts.fresh(histories, HISTORY)]
        reply = peer.ask("score", prompts=prompts, answers=answers)
        if reply["tokens"] != [CANDIDATE] * CANDIDATES:
            raise PeerError(f"{CANDIDATES} candidates of {CANDIDATE} tokens, it scored {reply['tokens']}")
        return float(reply["seconds"])

    def work(peer: Live) -> Figures:
        ways = {"together": partial(scored, peer, 1), "one by one": partial(scored, peer, CANDIDATES)}
        return _beside(bench, ways, "candidates", CANDIDATES)

    runs = _ways(bench.contest(_dialoop(bench, HISTORY), work))
    _print(runs, ["candidates"], "Candidates a second.", Bar("together", "candidates", 10.0, ("one by one",)))


def _dialoop(bench: Bench, length: int) -> dict[str, Callable[[], Live]]:
    return {"dialoop": partial(Live, "dialoop", CONTESTANTS["dialoop"], bench.setting(CLIENTS, length))}


def _beside(bench: Bench, ways: Mapping[str, Callable[[], float]], figure: str, amount: int) -> Figures:
    """`amount` a second of each way, in turns inside one process."""
    times, sums = bench.repeated(lambda: tuple(way() for way in ways.values()))
    return {f"{way}: {figure}": times * amount / seconds for way, seconds in zip(ways, sums, strict=True)}


def _ways(runs: Runs) -> Runs:
    """dialoop's figures `way: figure` as the figures of contestants named for the ways."""
    ways: dict[str, dict[str, list[float]]] = {}
    for name, values in runs["dialoop"].items():
        way, _, figure = name.partition(": ")
        ways.setdefault(way, {})[figure] = list(values)
    return ways


def _print(runs: Runs, figures: list[str], unit: str, bar: Bar) -> None:
    print(f"{medians(runs, figures)}\n\n{unit}", end="\n\n")
    print(ratios(runs, bar.ours, figures), end="\n\n")
    print(bars([bar], runs))
