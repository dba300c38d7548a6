"""One contestant of `bench/train.py peers` in a process of its own, run by that contestant's own Python.

    python -P bench/train_worker.py '{"engine": "trl", "model": "DIRECTORY", "rows": "FILE", ...}'

It trains on the rows of a JSON file, `[{"input_ids": [...], "completion_mask": [...]}, ...]`, in their order,
eight to an update (packed by TRL: about as many), and prints one line of JSON: for each update its seconds,
conversations, tokens and loss, and the most memory that the process held. Nothing of dialoop is imported
unless dialoop is the contestant.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

Figures = dict[str, Any]
RANK, RATE, ROWS = 8, 1e-4, 8


def peak_bytes() -> int:
    """The most memory that this process has held (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def same_start(weights: Mapping[str, Any]) -> None:
    """Give LoRA's A the same numbers in every engine; its B are zero."""
    import torch

    generator = torch.Generator().manual_seed(0)
    for name in sorted(weights):
        if "lora_A" in name:
            with torch.no_grad():
                weights[name].normal_(0, 0.05, generator=generator)


def dialoop(given: Figures, rows: list[Figures], folder: str) -> Figures:
    """`dialoop tune` from the rows on: its own assembling and its own loop."""
    import torch

    from dialoop.chat.render import Rendered
    from dialoop.config import TuneRecipe
    from dialoop.models import load
    from dialoop.models.allocator import keep_freed_memory
    from dialoop.models.packed import fill
    from dialoop.train.fit import Rows
    from dialoop.train.loop import Progress, train
    from dialoop.train.tune import assemble
    from dialoop.types import ModelRef

    keep_freed_memory()
    if given.get("fp32"):
        load.default_dtype = lambda device=None: torch.float32
    method: Figures = {"kind": "full"}
    if given["method"] == "lora":
        method = {"kind": "lora", "rank": RANK, "alpha": 2 * RANK, "targets": "all-linear", "dropout": 0.0}
        method["base_precision"] = given.get("base_precision", "loaded")
    recipe = TuneRecipe.model_validate({
        "name": "bench", "base": given["model"], "method": method, "data": {"sources": ["sample:en"]},
        "optim": {"learning_rate": RATE, "schedule": "constant", "warmup": 0.0, "weight_decay": 0.0,
                  "betas": (0.9, 0.999)},
        "train": {"epochs": 1, "batch_rows": ROWS, "max_length": given["length"]},
    })  # fmt: skip
    rendered = tuple(Rendered(tuple(r["input_ids"]), tuple(map(float, r["completion_mask"]))) for r in rows)
    base = ModelRef("bench", Path(given["model"]))
    made = assemble(recipe, base, Rows(rendered, 0, ()), None, Path(folder))
    sizes = [len(row["input_ids"]) for row in rows]
    shares = (range(i, i + ROWS) for i in range(0, len(rows), ROWS))
    made.plan.updates = [fill(sizes, share, given["batch_tokens"]) for share in shares]
    if given.get("fp32"):
        same_start(made.attached.weights)
    seen: list[tuple[float, Progress]] = []
    train(
        made.objective, made.optimizer, made.plan, Path(folder), checkpoint_every=10**6,
        on_progress=lambda progress: seen.append((time.perf_counter(), progress)),
        tally=made.objective.tally,
    )  # fmt: skip
    ends = [end for end, _ in seen]
    return {
        "about": f"dialoop {version('dialoop')}, torch {torch.__version__}, {made.objective.body.head.dtype}",
        "seconds": [b - a for a, b in pairwise(ends)],
        "losses": [progress.loss for _, progress in seen],
        "conversations": [ROWS] * (len(seen) - 1),
    }


def trl(given: Figures, rows: list[Figures], folder: str) -> Figures:
    """TRL's SFTTrainer on rows that are tokenised already. given["setting"]: its own words."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    setting = dict(given["setting"])
    packed = setting.get("packing", False)
    size = given["packed_rows"] if packed else ROWS
    config = SFTConfig(
        **_common(given, folder, size), max_length=given["length"], completion_only_loss=True, **setting
    )
    watch = _Watch()
    trainer = SFTTrainer(
        given["model"], args=config, train_dataset=Dataset.from_list(rows), peft_config=_peft(given),
        processing_class=AutoTokenizer.from_pretrained(given["model"]), callbacks=[watch.callback()],
    )  # fmt: skip
    if given.get("fp32"):
        same_start(dict(trainer.model.named_parameters()))
    trainer.train()
    data: Any = trainer.train_dataset
    counts = [len(row) for row in data["seq_lengths"]] if packed else [1] * len(data)
    return watch.told(f"TRL {version('trl')}", trainer.model, config, counts, size)


def trainer(given: Figures, rows: list[Figures], folder: str) -> Figures:
    """transformers' own Trainer: padded rows, the prompt's tokens out of the loss, no checkpointing."""
    from peft import get_peft_model
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        Trainer,
        TrainingArguments,
    )

    model: Any = AutoModelForCausalLM.from_pretrained(given["model"], dtype=given["setting"]["dtype"])
    if given["method"] == "lora":
        model = get_peft_model(model, _peft(given))
    data = [
        {"input_ids": row["input_ids"], "labels": [
            token if learnt else -100
            for token, learnt in zip(row["input_ids"], row["completion_mask"], strict=True)
        ]}
        for row in rows
    ]  # fmt: skip
    config, watch = TrainingArguments(**_common(given, folder, ROWS)), _Watch()
    Trainer(
        model, args=config, train_dataset=data, callbacks=[watch.callback()],  # type: ignore[arg-type]
        data_collator=DataCollatorForSeq2Seq(AutoTokenizer.from_pretrained(given["model"])),
    ).train()  # fmt: skip
    return watch.told("Trainer", model, config, [1] * len(data), ROWS)


def _common(given: Figures, folder: str, size: int) -> Figures:
    """What both of transformers' trainers are told."""
    return {
        "output_dir": folder, "use_cpu": True, "per_device_train_batch_size": size, "num_train_epochs": 1,
        "learning_rate": RATE, "lr_scheduler_type": "constant", "max_grad_norm": 1.0, "logging_steps": 1,
        "save_strategy": "no", "report_to": [], "disable_tqdm": True, "train_sampling_strategy": "sequential",
        **({"bf16": False} if given.get("fp32") else {}),
    }  # fmt: skip


def _peft(given: Figures) -> Any:
    from peft import LoraConfig

    if given["method"] != "lora":
        return None
    return LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", lora_dropout=0.0)


class _Watch:
    """When each update ended, and its loss."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.losses: list[float] = []

    def callback(self) -> Any:
        from transformers import TrainerCallback

        ends, losses = self.ends, self.losses

        class Callback(TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, *_: Any, **__: Any) -> None:
                ends.append(time.perf_counter())

            def on_log(self, args: Any, state: Any, control: Any, logs: Figures, **_: Any) -> None:
                losses.extend([logs["loss"]] if "loss" in logs else [])

        return Callback()

    def told(self, who: str, model: Any, config: Any, counts: list[int], size: int) -> Figures:
        """counts: conversations of each row; size: rows of an update."""
        import torch
        import transformers

        each = [sum(counts[i : i + size]) for i in range(0, len(counts), size)]
        return {
            "about": f"{who}, transformers {transformers.__version__}, torch {torch.__version__}, weights "
            f"{model.dtype}, bf16={config.bf16}, gradient_checkpointing={config.gradient_checkpointing}",
            "seconds": [b - a for a, b in pairwise(self.ends)],
            "losses": self.losses,
            "conversations": each[1 : len(self.ends)],
        }


ENGINES = {"dialoop": dialoop, "trl": trl, "trainer": trainer}


def main() -> None:
    given = json.loads(sys.argv[1])
    answers = os.dup(1)
    os.dup2(2, 1)  # what libraries print is no answer
    rows = json.loads(Path(given["rows"]).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        found = ENGINES[given["engine"]](given, rows, folder)
    found["peak"] = peak_bytes()
    os.write(answers, json.dumps(found).encode() + b"\n")


if __name__ == "__main__":
    main()
