"""Dialogues cleaned by Ray Data and learnt by Ray Train, a process on each machine of a cluster.

    python examples/cluster/on_ray.py dialogues.jsonl --run FOLDER --workers 2 --shard

FOLDER and the base lie where all machines see them. A run that fell goes on from its last checkpoint: Ray
starts the processes again, and so does this command.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import ray
from ray.train import DataConfig, FailureConfig, RunConfig, ScalingConfig, get_context, get_dataset_shard
from ray.train.torch import TorchConfig, TorchTrainer

import dialoop

SHIPPED = Path(dialoop.__file__).parent / "assets" / "dialoop-base"


def cleaned(batch: dict[str, Any]) -> dict[str, list[Any]]:
    """Lines of JSON as rows that went through the steps which look at one row at a time."""
    from dialoop.chat.wire import conversation_from_openai, conversation_to_openai
    from dialoop.config import CleanSettings
    from dialoop.data.clean import clean

    steps = CleanSettings(steps=("unicode", "html", "roles", "turns", "language"))
    rows = (conversation_from_openai(json.loads(line)) for line in batch["text"] if line.strip())
    with tempfile.TemporaryDirectory() as scratch:
        kept = [conversation_to_openai(row) for row in clean(rows, steps, scratch=Path(scratch))]
    return {"row": [json.dumps(row, ensure_ascii=False, sort_keys=True) for row in kept]}


def learn(asked: dict[str, Any]) -> None:
    """What every process does: all read all rows in one order, and compute a share of each update."""
    import torch

    from dialoop.chat.wire import conversation_from_openai
    from dialoop.config import TuneRecipe
    from dialoop.train.tune import tune
    from dialoop.types import ModelRef

    torch.set_num_threads(1)
    lines = sorted({row["row"] for row in get_dataset_shard("train").iter_rows()})
    rows = [conversation_from_openai(json.loads(line)) for line in lines]
    recipe = TuneRecipe.model_validate(asked["recipe"])
    tuned = tune(recipe, ModelRef("base", Path(asked["base"])), rows[4:], rows[:4], Path(asked["run"]))
    place = {"rank": get_context().get_world_rank(), "node": ray.get_runtime_context().get_node_id()}
    told = {**place, "rows": len(rows), "step": tuned.result.step, "valid_loss": tuned.result.best_loss}
    (Path(asked["run"]) / f"process-{place['rank']}.json").write_text(json.dumps(told), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dialogues")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--base", type=Path, default=SHIPPED)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--shard", action="store_true", help="each process holds a part of every layer")
    asked = parser.parse_args()
    ray.init(address="auto")
    rows = ray.data.read_text(str(Path(asked.dialogues).resolve())).map_batches(cleaned).materialize()
    run = asked.run.resolve()
    recipe = {
        "name": "on-ray", "data": {"sources": [asked.dialogues]}, "method": {"kind": "lora", "rank": 8},
        "train": {
            "epochs": asked.epochs, "batch_rows": 8, "checkpoint_every": 5,
            "parallel": "shard" if asked.shard else "replicate",
        },
    }  # fmt: skip
    TorchTrainer(
        learn,
        train_loop_config={"recipe": recipe, "base": str(asked.base.resolve()), "run": str(run)},
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=asked.workers, placement_strategy="STRICT_SPREAD"),
        run_config=RunConfig(
            name="on-ray", storage_path=str(run / "ray"), failure_config=FailureConfig(max_failures=2)
        ),
        datasets={"train": rows},
        dataset_config=DataConfig(datasets_to_split=[]),
    ).fit()
    for path in sorted(run.glob("process-*.json")):
        print(path.read_text(encoding="utf-8"))
    print(json.dumps({"artefact": str(run / "artefact")}))


if __name__ == "__main__":
    main()
