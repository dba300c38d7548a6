"""Fine-tuning beside TRL and transformers' Trainer: `bench/train.py peers` and `losses`."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from base_page import table
from serve_tables import machine, ratio

from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.cli.recipes import find_recipe
from dialoop.config import DataSettings, TuneRecipe, load_recipe
from dialoop.data.dataset import load_dataset
from dialoop.models.full import TOKENIZER_FILES
from dialoop.store.registry import Store
from dialoop.train.fit import fit_rows
from dialoop.types import Conversation

WORKER = Path(__file__).with_name("train_worker.py")
PYTHON = "BENCH_PYTHON_TRL"
DATA = "file:${DIALOOP_DATA}/peer-formats/llamafactory.alpaca_en_demo.json.gz"
LENGTH, BATCH = 512, 8
Figures = dict[str, Any]

SHAPES: Mapping[str, Mapping[str, Any]] = {
    # SmolLM2-135M's.
    "C": {"num_hidden_layers": 30, "hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9,
          "num_key_value_heads": 3, "vocab_size": 49_152},
    # A fourth of its width and layers, for the check of losses and for trying the bench out.
    "small": {"num_hidden_layers": 4, "hidden_size": 128, "intermediate_size": 384, "num_attention_heads": 2,
              "num_key_value_heads": 1, "vocab_size": 10_240},
}  # fmt: skip
BFLOAT16 = {"model_init_kwargs": {"dtype": "bfloat16"}}
CONTESTANTS: Mapping[str, Mapping[str, Any]] = {
    "dialoop": {"engine": "dialoop"},
    "dialoop-int8": {"engine": "dialoop", "base_precision": "int8"},
    "trl-default": {"engine": "trl", "setting": {}},
    "trl-bf16": {"engine": "trl", "setting": {"gradient_checkpointing": False, **BFLOAT16}},
    "trl-packing": {"engine": "trl", "setting": {"gradient_checkpointing": False, "packing": True}},
    "trl-packing-bf16": {
        "engine": "trl", "setting": {"gradient_checkpointing": False, "packing": True, **BFLOAT16},
    },
    "trl-packing-fp32": {
        "engine": "trl", "setting": {"gradient_checkpointing": False, "packing": True, "bf16": False},
    },
    "trainer": {"engine": "trainer", "setting": {"dtype": "float32"}},
    "trainer-bf16": {"engine": "trainer", "setting": {"dtype": "bfloat16"}},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bar:
    """Conversations a second at least so many times those of the best of `others`."""

    method: str
    least: float
    others: tuple[str, ...]


BEST = ("trl-bf16", "trl-packing", "trl-packing-bf16", "trl-packing-fp32")
BARS = (Bar("lora", 5, ("trl-default",)), Bar("lora", 3, BEST), Bar("full", 2, BEST))
MEMORY = 0.6


def built(name: str, folder: Path) -> Path:
    """A Llama of this shape with random weights, and the shipped base's tokenizer and template."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    out = folder / name
    if (out / "tokenizer.json").exists():
        return out
    with tempfile.TemporaryDirectory() as home, Store.open(Path(home)) as store:
        base = store.models.resolve("dialoop-base").base
        told = json.loads((base / "config.json").read_text(encoding="utf-8"))
        config = LlamaConfig(
            **SHAPES[name], max_position_embeddings=8192, tie_word_embeddings=True, bos_token_id=None,
            eos_token_id=told["eos_token_id"], pad_token_id=told["pad_token_id"],
        )  # fmt: skip
        torch.manual_seed(0)
        LlamaForCausalLM(config).bfloat16().save_pretrained(out)
        for file in TOKENIZER_FILES:
            if (base / file).is_file():
                shutil.copyfile(base / file, out / file)
    return out


def rows(model: Path, count: int, out: Path) -> int:
    """Write the first `count` conversations that fit, tokenised and with masks; how many tokens they are."""
    recipe = load_recipe(find_recipe("quickstart"), TuneRecipe, [])
    clean = recipe.data.clean.model_copy(update={"steps": ()})
    data = DataSettings.model_validate({
        "sources": [DATA], "clean": clean, "split": {"valid": 0, "test": 0},
    })  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        items = load_dataset(data, scratch=Path(scratch)).train
    dialogues = [item for item in items if isinstance(item, Conversation)]
    fitted = fit_rows(dialogues, ChatTokenizer.load(model), max_length=LENGTH, mask="assistant").rows[:count]
    told = [
        {"input_ids": [*map(int, row.token_ids)], "completion_mask": [int(w > 0) for w in row.loss_mask]}
        for row in fitted
    ]
    out.write_text(json.dumps(told), encoding="utf-8")
    return sum(row.size for row in fitted)


def train(name: str, given: Mapping[str, Any], threads: int) -> Figures:
    """What a contestant's process tells. Raises SystemExit where it fails."""
    contestant = CONTESTANTS[name]
    python = sys.executable if contestant["engine"] == "dialoop" else os.environ.get(PYTHON, "")
    if not python:
        raise SystemExit(f"{name}: set {PYTHON} to a Python that has TRL (bench/README.md)")
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [python, "-P", str(WORKER), json.dumps({**contestant, **given})],
        capture_output=True, text=True, env={**os.environ, **quiet},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{name} ended with {done.returncode}: {done.stderr[-2000:]}")
    found: Figures = json.loads(done.stdout)
    print(f"{name}: {found['about']}; peak {found['peak'] / 1e9:.2f} GB; {found['seconds']}", file=sys.stderr)
    return found


def speed(found: Figures) -> float:
    """Conversations a second, the first update not counted."""
    return float(sum(found["conversations"]) / sum(found["seconds"]))


def peers(given: argparse.Namespace) -> None:
    """Every contestant in turn, `--rounds` times, each time in a process of its own."""
    model = built(given.model, given.folder)
    file = given.folder / f"rows-{given.model}.json"
    tokens = rows(model, BATCH * (given.updates + 1), file)
    # As many packed rows in an update as eight conversations fill.
    packed = max(1, round(BATCH * tokens / (BATCH * (given.updates + 1)) / LENGTH))
    work = {"model": str(model), "rows": str(file), "length": LENGTH, "method": given.method,
            "packed_rows": packed, "batch_tokens": given.batch_tokens}  # fmt: skip
    runs: dict[str, list[Figures]] = {name: [] for name in given.peers}
    for _ in range(given.rounds):
        for name in given.peers:
            runs[name].append(train(name, work, given.threads))
    print(machine(given.threads).replace("serve.py", "train.py"), end="\n\n")
    conversations = BATCH * (given.updates + 1)
    print(f"{conversations} conversations of {tokens / conversations:.0f} tokens in the mean.", end="\n\n")
    print(_measured(runs), _against("dialoop", runs), _judged(given.method, runs), sep="\n\n")


def _measured(runs: Mapping[str, Sequence[Figures]]) -> str:
    lines = []
    for name, found in runs.items():
        speeds, losses = [speed(each) for each in found], found[0]["losses"]
        spread = f"{median(speeds):.2f} ({min(speeds):.2f}-{max(speeds):.2f})"
        peak = median(each["peak"] for each in found) / 1e9
        ends = f"{losses[0]:.3f}, {losses[-1]:.3f}"
        lines.append((name, found[0]["about"], spread, f"{peak:.2f}", ends))
    return table("contestant|what|conversations a second|peak GB|loss of the first and last update", lines)


def _against(ours: str, runs: Mapping[str, Sequence[Figures]]) -> str:
    lines = []
    for name, found in runs.items():
        if name == ours or ours not in runs:
            continue
        faster = ratio([speed(each) for each in runs[ours]], [speed(each) for each in found])
        less = ratio([each["peak"] for each in runs[ours]], [each["peak"] for each in found])
        lines.append((name, "{:.2f} ({:.2f}-{:.2f})".format(*faster), f"{less[0]:.2f}"))
    return table(f"{ours} / contestant|conversations a second|peak memory", lines)


def _judged(method: str, runs: Mapping[str, Sequence[Figures]]) -> str:
    """The bars whose contestants took part."""
    lines = []
    for bar in BARS:
        there = [name for name in bar.others if name in runs]
        if bar.method != method or not there or "dialoop" not in runs:
            continue
        best = max(there, key=lambda name: median(map(speed, runs[name])))
        mine = runs["dialoop"]
        faster = ratio([speed(x) for x in mine], [speed(x) for x in runs[best]])[0]
        less = ratio([x["peak"] for x in mine], [x["peak"] for x in runs[best]])[0]
        lines.append(
            (f"{method}: at least {bar.least:g} x {best}", f"{faster:.2f}", _met(faster >= bar.least))
        )
        lines.append((f"{method}: memory at most {MEMORY:g} x", f"{less:.2f}", _met(less <= MEMORY)))
    return table("bar|measured|met", lines)


def _met(met: bool) -> str:
    return "yes" if met else "**no**"


def losses(given: argparse.Namespace) -> None:
    """The loss of each update beside TRL's, both in float32, from the same weights, in the same order."""
    model = built(given.model, given.folder)
    file = given.folder / f"rows-{given.model}.json"
    rows(model, BATCH * (given.updates + 1), file)
    for method in ("full", "lora"):
        work = {"model": str(model), "rows": str(file), "length": LENGTH, "method": method,
                "packed_rows": 1, "batch_tokens": given.batch_tokens, "fp32": True}  # fmt: skip
        ours, theirs = (train(name, work, given.threads)["losses"] for name in ("dialoop", "trl-default"))
        apart = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
        shown = ", ".join(f"{a:.5f} / {b:.5f}" for a, b in zip(ours, theirs, strict=True))
        print(f"{method}: {len(apart)} updates, at most {max(apart):.1e} apart: {shown}", flush=True)
