"""The cost of growth: tokens a second of LoRA updates by length of sequences and by size of the model."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from base_page import table
from serve_growth import COLOURS, drawn
from serve_tables import machine

from dialoop.config import LoraMethod, OptimSettings
from dialoop.models.allocator import keep_freed_memory
from dialoop.models.load import load_model
from dialoop.models.method import method_of
from dialoop.models.packed import PackedBody
from dialoop.models.quantised import quantise_frozen
from dialoop.train.loss import cross_entropy
from dialoop.train.optim import Optimizer
from dialoop.types import ModelRef

TOKENS = 2048
LENGTHS = (64, 128, 256, 512, 1024, 2048)
WIDTHS = {6: 192, 12: 320, 20: 448, 30: 576}
"""Layers of a model: its width, in heads of 64."""
Runs = dict[str, dict[str, list[float]]]


CONTESTANTS = ("dialoop", "int8 base", "torch's kernels", "transformers' layers")


class Step:
    """LoRA updates of one model, by one of the `CONTESTANTS`."""

    def __init__(self, folder: Path, name: str) -> None:
        base = ModelRef("bench", folder)
        made = method_of(LoraMethod(rank=8, alpha=16)).attach(load_model(base), base, seed=0)
        quantise_frozen(made.model, "int8" if name == "int8 base" else "loaded", made.weights.values())
        self.kernels = name != "torch's kernels"
        self.body = PackedBody(made.model)
        self.body.lean &= name != "transformers' layers"
        self.optimizer = Optimizer(made.weights, OptimSettings())
        self.weights = sum(weight.numel() for weight in made.model.parameters())

    def speed(self, length: int) -> float:
        """Tokens a second of an update of `TOKENS` tokens as sequences of `length`, all of them learnt."""
        with nullcontext() if self.kernels else without_kernels():
            return self._speed(length)

    def _speed(self, length: int) -> float:
        ids = torch.randint(0, 8000, (TOKENS,))
        start = time.perf_counter()
        hidden = self.body.hidden(ids, [length] * (TOKENS // length))
        cross_entropy(hidden, self.body.head, ids.roll(-1), torch.ones(TOKENS)).backward()
        self.optimizer.step(1e-4, 1 / TOKENS)
        return TOKENS / (time.perf_counter() - start)


@contextmanager
def without_kernels() -> Iterator[None]:
    """What training does where there is no compiler."""
    with ExitStack() as held:
        for room in ("between", "attention"):
            held.enter_context(patch(f"dialoop.models.{room}.training", lambda *_: None))
        yield


def growth(given: argparse.Namespace) -> None:
    """By length on the model C, then by size at sequences of 256; a table and a plot each."""
    keep_freed_memory()
    print(machine(given.threads).replace("serve.py", "train.py"), end="\n\n")
    with tempfile.TemporaryDirectory() as folder:
        whole = _written(Path(folder) / "30", 30, 576)
        steps = {name: Step(whole, name) for name in CONTESTANTS}
        runs = _rounds(steps, LENGTHS, given.rounds)
        _show(given.out, runs, "length", {n: str(n) for n in LENGTHS})
        sizes: dict[int, str] = {}
        by_size: Runs = {name: {} for name in CONTESTANTS}
        for layers, width in WIDTHS.items():
            path = whole if layers == 30 else _written(Path(folder) / str(layers), layers, width)
            steps = {name: Step(path, name) for name in CONTESTANTS}
            size = round(steps["dialoop"].weights / 1e6)
            sizes[size] = f"{size} M"
            for name, found in _rounds(steps, (256,), given.rounds).items():
                by_size[name][sizes[size]] = found["256"]
        _show(given.out, by_size, "size", sizes)


def _written(out: Path, layers: int, width: int) -> Path:
    """A Llama with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=49_152, hidden_size=width, intermediate_size=width * 8 // 3, num_hidden_layers=layers,
        num_attention_heads=width // 64, num_key_value_heads=1 if width // 64 % 3 else width // 192,
        max_position_embeddings=8192, tie_word_embeddings=True, bos_token_id=None, eos_token_id=1,
        pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).bfloat16().save_pretrained(out)
    return out


def _rounds(steps: dict[str, Step], lengths: tuple[int, ...], rounds: int) -> Runs:
    """By contestant and length the speeds of rounds in turn, after one that does not count."""
    found: Runs = {name: {str(n): [] for n in lengths} for name in steps}
    for round_ in range(rounds + 1):
        for length in lengths:
            for name, step in steps.items():
                speed = step.speed(length)
                if round_:
                    found[name][str(length)].append(speed)
    return found


def _show(out: Path, runs: Runs, name: str, figures: dict[int, str]) -> None:
    file = out / f"train-{name}.svg"
    file.write_text(drawn(runs, figures, f"training, tokens a second, by {name}"), encoding="utf-8")
    rows: list[tuple[Any, ...]] = [
        (peer, *(f"{median(found[figure]):,.0f}" for figure in figures.values()))
        for peer, found in runs.items()
    ]
    print(table("|".join(["tokens a second", *figures.values()]), rows), end="\n\n")
    lines = ", ".join(f"{peer} {colour}" for peer, colour in zip(runs, COLOURS, strict=False))
    print(f"![Training by {name}]({file.name})\n\nLines: {lines}.", end="\n\n")
