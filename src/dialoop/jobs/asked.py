"""From what a fine-tuning request asks for to the recipe that its run takes.

`auto` is settled once the rows are counted. OpenAI publishes no rules for it beyond an old guide's: 3 epochs,
more for few rows. Learning rates fall with the model's width; a full fine-tune's is a tenth of LoRA's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dialoop.config import TuneRecipe, validate
from dialoop.errors import ConfigError
from dialoop.store.fine_tuning import Job
from dialoop.types import ModelRef

Auto = Literal["auto"]
EPOCHS, FEWEST_SEEN, MOST_EPOCHS = 3, 100, 25
UPDATES_AN_EPOCH, MOST_ROWS = 16, 32
RATE, WIDTH, LOWEST_RATE = 3e-3, 384, 1e-4
"""Of LoRA on a model of this width, and on the widest."""
FULL_SHARE = 0.1
DPO_SHARE = 0.1
"""Of the rate that imitation takes: a preference is learnt from a model that knows the task."""
BETA = 0.1
LONGEST = 2048
"""Tokens of a row, where the model holds as many and nothing else is asked for."""
SAVES = 20
"""Checkpoints that a run takes, unless each would come after fewer than 5 or more than 50 updates."""
SAME = {
    "n_epochs": ("train", "epochs"),
    "batch_size": ("train", "batch_rows"),
    "learning_rate_multiplier": ("optim", "learning_rate"),
}
"""What OpenAI's hyperparameters are called in recipes."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the defaults go by: a model's width, and the tokens that it holds."""

    width: int
    context: int

    @classmethod
    def of(cls, folder: Path) -> Shape:
        """Of a Hugging Face directory."""
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config = config.get("text_config") or config
        width, context = config.get("hidden_size"), config.get("max_position_embeddings")
        return cls(int(width or WIDTH), int(context or LONGEST))


def settle(asked: Mapping[str, Any], rows: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's hyperparameters with every `auto` replaced, for so many rows; `beta` where it was asked for.

    settings: tables of a recipe, whose values stand where a hyperparameter is `auto`.
    """
    given = {name: value for name, value in asked.items() if value not in ("auto", None)}
    train = settings.get("train") or {}
    epochs = given.get("n_epochs") or train.get("epochs") or _epochs(rows)
    size = given.get("batch_size") or train.get("batch_rows") or _batch_size(rows)
    beta = {"beta": given.get("beta", BETA)} if "beta" in asked else {}
    return {
        "n_epochs": epochs,
        "batch_size": size,
        "learning_rate_multiplier": given.get("learning_rate_multiplier", 1.0),
        **beta,
    }


def _epochs(rows: int) -> int:
    """3, or as many as show the model 100 rows."""
    return min(max(EPOCHS, -(-FEWEST_SEEN // max(rows, 1))), MOST_EPOCHS)


def _batch_size(rows: int) -> int:
    return min(max(rows // UPDATES_AN_EPOCH, 1), MOST_ROWS)


def recipe_of(
    name: str, base: str, source: str, seed: int, settled: Mapping[str, Any], settings: Mapping[str, Any],
    shape: Shape, rows: int,
) -> TuneRecipe:  # fmt: skip
    """The run's recipe: our defaults, under the settled hyperparameters, under the given `settings`.

    `beta`, which DPO alone has, makes it one of DPO. Raises ConfigError that names the key.
    """
    method = {"kind": "lora", **(settings.get("method") or {})}
    rate = min(RATE, max(RATE * WIDTH / shape.width, LOWEST_RATE)) * (
        1 if method["kind"] == "lora" else FULL_SHARE
    )
    objective = {"kind": "dpo", "beta": settled["beta"]} if "beta" in settled else {"kind": "sft"}
    rate *= DPO_SHARE if "beta" in settled else 1
    updates = settled["n_epochs"] * rows / settled["batch_size"]
    defaults: dict[str, dict[str, Any]] = {
        "optim": {"learning_rate": rate * settled["learning_rate_multiplier"]},
        "train": {
            "epochs": settled["n_epochs"], "batch_rows": settled["batch_size"], "seed": seed, "patience": 0,
            "max_length": min(shape.context, LONGEST),
            "checkpoint_every": min(max(int(updates / SAVES), 5), 50),
        },
    }  # fmt: skip
    table = {
        "name": name, "base": base, "method": method, "objective": objective,
        "data": {"sources": [source], "clean": {"steps": []}, "split": {"valid": 0, "test": 0}},
        **{key: {**value, **(settings.get(key) or {})} for key, value in defaults.items()},
    }  # fmt: skip
    recipe = validate(TuneRecipe, table, "dialoop")
    if recipe.train.max_length > shape.context:
        raise ConfigError(
            f"dialoop: train.max_length = {recipe.train.max_length}: {base} holds {shape.context} tokens: "
            f"lower it"
        )
    return recipe


def check(asked: Mapping[str, Any], settings: Mapping[str, Any], ref: ModelRef) -> None:
    """Whether a run could take this. Raises ConfigError that names the key."""
    for name, (table, key) in SAME.items():
        if asked.get(name) not in ("auto", None) and key in (settings.get(table) or {}):
            raise ConfigError(
                f"dialoop: {table}.{key} came beside {name}, which is the same: give one of them"
            )
    if "seed" in (settings.get("train") or {}):
        raise ConfigError("dialoop: train.seed: give the job's own seed")
    rows = 100
    settled = settle(asked, rows, settings)
    recipe = recipe_of("check", ref.name, "file", 0, settled, settings, Shape.of(ref.base), rows)
    if ref.adapter is not None and recipe.method.kind != "full":
        raise ConfigError(
            f"{ref.name} is an adapter, on which no other is trained: tune its base with the rows of both, "
            f'or train every weight with dialoop = {{"method": {{"kind": "full"}}}}'
        )


def names_of(job: Job, organization: str) -> tuple[str, str]:
    """The registered name of a job's model, and the one that it is served under."""
    short = job.id[-10:]
    parts = ["ft", slug(job.suffix or ""), short]
    base = job.model.removeprefix("ft:").partition(":")[0]
    return "-".join(filter(None, parts)), f"ft:{base}:{organization}:{_spoken(job.suffix or '')}:{short}"


def slug(text: str) -> str:
    """What a registered model's name may hold of `text`."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:30].rstrip("-")


def _spoken(text: str) -> str:
    """A suffix as it stands in a model's name: letters of any script, digits, `-`, `_` and `.`."""
    return re.sub(r"[^\w.]+", "-", text.lower()).strip("-")
