"""A run in fp32 by one process, or by those that torchrun starts: `-m tests.train.together BASE FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from dialoop.models import load
from dialoop.train.tune import tune
from dialoop.train.world import joined
from dialoop.types import ModelRef
from tests.train.drill import DIALOGUES, recipe


def main(base: Path, folder: Path) -> None:
    load.default_dtype = lambda device=None: torch.float32
    torch.set_num_threads(1)
    chosen = recipe(
        method={"kind": "lora", "rank": 4, "alpha": 8.0}, train__batch_tokens=96, train__accumulate=2,
        train__epochs=6.0,
    )  # fmt: skip
    with joined():
        tune(chosen, ModelRef("tiny", base), DIALOGUES, DIALOGUES[:2], folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
