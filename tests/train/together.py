"""Runs in fp32 by one process, or by those that torchrun starts: `-m tests.train.together BASE FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from dialoop.models import load
from dialoop.train.tune import tune
from dialoop.train.world import joined
from dialoop.types import ModelRef
from tests.train.drill import DIALOGUES, PREFERENCES, recipe

ROWS = {"sft": DIALOGUES, "dpo": PREFERENCES}


def main(base: Path, folder: Path) -> None:
    load.default_dtype = lambda device=None: torch.float32
    torch.set_num_threads(1)
    with joined():
        for kind, rows in ROWS.items():
            chosen = recipe(
                method={"kind": "lora", "rank": 4, "alpha": 8.0}, train__batch_tokens=96, train__accumulate=2,
                train__epochs=6.0, objective={"kind": kind},
            )  # fmt: skip
            tune(chosen, ModelRef("tiny", base), rows, rows[:2], folder / kind)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
