"""Runs in fp32 by one process, or by those that torchrun starts.

`-m tests.train.together BASE FOLDER PARALLEL STRIKE CASE...`: the last process is killed after update STRIKE
of its first life, 0 = never.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from dialoop.config import PreferenceObjective
from dialoop.models import heads, load
from dialoop.train import loop
from dialoop.train.heads import teach
from dialoop.train.tune import tune
from dialoop.train.world import World, joined
from dialoop.types import ModelRef
from tests.train.drill import DIALOGUES, PREFERENCES, recipe
from tests.train.head_drill import ROWS, head_recipe

LORA = {"kind": "lora", "rank": 4, "alpha": 8.0}
CASES: dict[str, dict[str, Any]] = {
    "sft": {"method": LORA},
    "dpo": {"method": LORA, "objective": {"kind": "dpo"}},
    "distill": {"method": LORA, "objective": {"kind": "distill", "teacher": "tiny"}},
    "full": {"method": {"kind": "full"}, "regularisation": {"ema": 0.5}},
    "apart": {"method": {"kind": "bitfit"}, "train__packing": False, "train__accumulate": 3},
    "prefix": {"method": {"kind": "prefix", "tokens": 3, "hidden": 16}},
}
HEADS: dict[str, dict[str, Any]] = {
    "classify": {"method": LORA},
    "pair": {"method": LORA},
    "tag": {"crf": True, "regularisation__dropout": 0.0},
}
"""By kind of recipe."""


def strike_at(step: int, here: World) -> None:
    """Have the last process end without a word in its update `step`."""
    first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    if not (step and first and here.rank == here.size - 1):
        return
    update = loop._update

    def struck(*arguments: Any) -> Any:
        told = update(*arguments)
        if told.step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return told

    loop._update = struck


def main(base: Path, folder: Path, parallel: str, strike: int, cases: list[str]) -> None:
    load.default_dtype = heads.default_dtype = lambda device=None: torch.float32
    torch.set_num_threads(1)
    with joined() as here:
        strike_at(strike, here)
        for case in cases:
            if case in HEADS:
                table = {
                    "train__epochs": 8.0, "train__batch_rows": 4, "optim__learning_rate": 1e-3, **HEADS[case],
                }  # fmt: skip
                told, taught = head_recipe(case, **table), ROWS[case]
                teach(told, ModelRef("tiny", base), taught, taught[:3], folder / case)
                continue
            table = {
                "train__batch_tokens": 96, "train__accumulate": 2, "train__epochs": 6.0,
                "train__checkpoint_every": 4, "train__parallel": parallel, **CASES[case],
            }  # fmt: skip
            chosen = recipe(**table)
            rows: Any = PREFERENCES if isinstance(chosen.objective, PreferenceObjective) else DIALOGUES
            tiny = ModelRef("tiny", base)
            tune(chosen, tiny, rows, rows[:2], folder / case, teacher=tiny)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5:])
