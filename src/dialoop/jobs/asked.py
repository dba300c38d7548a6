"""From what a fine-tuning request asks for to the recipe that its run takes.

`auto` is settled once the rows are counted. OpenAI publishes no rules for it beyond an old guide's: 3 epochs,
more for few rows. Learning rates fall with the model's width, and differ by method.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dialoop.config import validate
from dialoop.config.kinds import TUNED, TunedRecipe
from dialoop.errors import ConfigError, echo
from dialoop.store.fine_tuning import Job
from dialoop.types import ModelRef

EPOCHS, FEWEST_SEEN, MOST_EPOCHS = 3, 100, 25
UPDATES_AN_EPOCH, MOST_ROWS = 16, 32
RATE, WIDTH, LOWEST_RATE = 3e-3, 384, 1e-4
"""Of LoRA on a model of this width, and on the widest."""
SHARES: Mapping[str, float] = {
    "full": 0.1, "freeze": 0.1, "lora": 1, "bottleneck": 1, "bitfit": 1, "prefix": 1, "ia3": 3,
    "p-tuning-v2": 3, "prompt": 10,
}  # fmt: skip
"""Of that rate, by method: the fewer weights, the further each goes."""
ADAPTERS: Mapping[str, str] = {
    "LORA": "lora", "IA3": "ia3", "DIALOOP_BOTTLENECK": "bottleneck", "DIALOOP_BITFIT": "bitfit",
    "PROMPT_TUNING": "prompt", "PREFIX_TUNING": "p-tuning-v2",
}  # fmt: skip
"""The method of an adapter that is trained on, by its `peft_type`."""
UNMERGED = frozenset({"bottleneck", "prompt", "p-tuning-v2"})
"""What of these no weight can hold."""
DPO_SHARE = 0.1
"""Of the rate that imitation takes: a preference is learnt from a model that knows the task."""
BETA = 0.1
LONGEST, LONGEST_TEXT = 2048, 256
"""Tokens of a row, and of a text for a head, where the model holds as many and nothing else is asked for."""
SAVES = 20
"""Checkpoints that a run takes, unless each would come after fewer than 5 or more than 50 updates."""
SAME = {
    "n_epochs": ("train", "epochs"),
    "batch_size": ("train", "batch_rows"),
    "learning_rate_multiplier": ("optim", "learning_rate"),
}
"""What OpenAI's hyperparameters are called in recipes."""
PREFERRING = ("dpo", "orpo", "simpo")
"""Objectives that learn from pairs of answers."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request asks for. method: OpenAI's word.  hyperparameters: OpenAI's, `auto` or not.  settings:
    tables of a recipe, and its kind.
    """

    method: str
    hyperparameters: Mapping[str, Any]
    settings: Mapping[str, Any]

    @classmethod
    def of(cls, job: Job) -> Wish:
        """What a job was asked for with."""
        return cls(job.method, job.hyperparameters, job.settings)

    @property
    def kind(self) -> str:
        """`tune`, or what the head does."""
        return str(self.settings.get("kind", "tune"))

    def table(self, name: str) -> dict[str, Any]:
        """A table of the recipe, as far as it was given."""
        return dict(self.settings.get(name) or {})


@dataclass(frozen=True, slots=True)
class Shape:
    """What the defaults go by: a model's width, the tokens that it holds, and the method of its adapter."""

    width: int
    context: int
    adapter: str | None = None

    @classmethod
    def of(cls, ref: ModelRef) -> Shape:
        """Of a Hugging Face directory, and a PEFT one on it."""
        config = _read(ref.base / "config.json")
        config = config.get("text_config") or config
        width, context = config.get("hidden_size"), config.get("max_position_embeddings")
        kind = None if ref.adapter is None else _read(ref.adapter / "adapter_config.json").get("peft_type")
        return cls(int(width or WIDTH), int(context or LONGEST), kind and ADAPTERS.get(kind, "lora"))


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def settle(wish: Wish, rows: int) -> dict[str, Any]:
    """OpenAI's hyperparameters with every `auto` replaced, for so many rows; `beta` where it was asked for.

    What the wish's tables say stands where a hyperparameter is `auto`.
    """
    given = {name: value for name, value in wish.hyperparameters.items() if value not in ("auto", None)}
    train, objective = wish.table("train"), wish.table("objective")
    settled = {
        "n_epochs": given.get("n_epochs") or train.get("epochs") or _epochs(rows),
        "batch_size": given.get("batch_size") or train.get("batch_rows") or _batch_size(rows),
        "learning_rate_multiplier": given.get("learning_rate_multiplier", 1.0),
    }
    if wish.method == "dpo":
        without = objective.get("kind", "dpo") != "dpo"
        settled["beta"] = "auto" if without else given.get("beta", objective.get("beta", BETA))
    return settled


def _epochs(rows: int) -> int:
    """3, or as many as show the model 100 rows."""
    return min(max(EPOCHS, -(-FEWEST_SEEN // max(rows, 1))), MOST_EPOCHS)


def _batch_size(rows: int) -> int:
    return min(max(rows // UPDATES_AN_EPOCH, 1), MOST_ROWS)


def recipe_of(
    wish: Wish, settled: Mapping[str, Any], *, name: str, base: str, source: str, seed: int, shape: Shape,
    rows: int,
) -> TunedRecipe:  # fmt: skip
    """The run's recipe: our defaults, under the settled hyperparameters, under the wish's tables.

    Raises ConfigError that names the key.
    """
    method = _method(wish, shape)
    updates = settled["n_epochs"] * rows / settled["batch_size"]
    longest = LONGEST if wish.kind == "tune" else LONGEST_TEXT
    data: dict[str, Any] = {"sources": [source], "clean": {"steps": []}, "split": {"valid": 0, "test": 0}}
    table: dict[str, Any] = {
        **wish.settings, "kind": wish.kind, "name": name, "base": base, "method": method, "data": data,
        "optim": {"learning_rate": _rate(wish, settled, method, shape), **wish.table("optim")},
        "train": {
            "epochs": settled["n_epochs"], "batch_rows": settled["batch_size"], "seed": seed, "patience": 0,
            "max_length": min(shape.context, longest),
            "checkpoint_every": min(max(int(updates / SAVES), 5), 50), **wish.table("train"),
        },
    }  # fmt: skip
    if wish.kind == "tune":
        table["objective"] = _objective(wish, settled)
    recipe: TunedRecipe = validate(TUNED[wish.kind], table, "dialoop")
    if recipe.train.max_length > shape.context:
        raise ConfigError(
            f"dialoop: train.max_length = {recipe.train.max_length}: {base} holds {shape.context} tokens: "
            f"lower it"
        )
    return recipe


def _method(wish: Wish, shape: Shape) -> dict[str, Any]:
    """The given one. By itself an adapter is trained on, a head takes every weight, and others get LoRA."""
    if "method" in wish.settings:
        return {"kind": "lora", **wish.table("method")}
    usual = "full" if wish.kind != "tune" else "continue" if shape.adapter else "lora"
    return {"kind": usual}


def _rate(wish: Wish, settled: Mapping[str, Any], method: Mapping[str, Any], shape: Shape) -> float:
    kind = shape.adapter if method["kind"] == "continue" else method["kind"]
    rate = min(RATE, max(RATE * WIDTH / shape.width, LOWEST_RATE)) * SHARES.get(str(kind), 1)
    rate *= DPO_SHARE if wish.method == "dpo" else 1
    return float(rate * settled["learning_rate_multiplier"])


def _objective(wish: Wish, settled: Mapping[str, Any]) -> dict[str, Any]:
    given = wish.table("objective")
    usual = {"kind": "dpo", "beta": settled["beta"]} if wish.method == "dpo" else {"kind": "sft"}
    if given.get("kind", usual["kind"]) == usual["kind"]:
        return {**usual, **given}
    return given


def check(wish: Wish, ref: ModelRef) -> None:
    """Whether a run could take this. Raises ConfigError that names the key."""
    _check_twice(wish)
    _check_method(wish)
    shape, rows = Shape.of(ref), 100
    settled = settle(wish, rows)
    recipe = recipe_of(
        wish, settled, name="check", base=ref.name, source="file", seed=0, shape=shape, rows=rows
    )
    _check_on(shape, recipe, ref)


def _check_twice(wish: Wish) -> None:
    """What has two names, and was given by both."""
    asked = wish.hyperparameters
    for name, (table, key) in SAME.items():
        if asked.get(name) not in ("auto", None) and key in wish.table(table):
            raise ConfigError(
                f"dialoop: {table}.{key} came beside {name}, which is the same: give one of them"
            )
    if asked.get("beta") not in ("auto", None) and wish.table("objective"):
        raise ConfigError("dialoop: objective came beside beta, which is a part of it: give one of them")
    if "seed" in wish.table("train"):
        raise ConfigError("dialoop: train.seed: give the job's own seed")


def _check_method(wish: Wish) -> None:
    """Whether the rows that OpenAI's method names are those that are learnt from."""
    if wish.kind != "tune" and wish.method != "supervised":
        raise ConfigError(
            f"dialoop: kind = {echo(wish.kind)} learns no preferences: give method.type = 'supervised'"
        )
    kind = wish.table("objective").get("kind", "dpo" if wish.method == "dpo" else "sft")
    if (kind in PREFERRING) != (wish.method == "dpo"):
        rows, method = ("preferences", "dpo") if kind in PREFERRING else ("conversations", "supervised")
        raise ConfigError(
            f"dialoop: objective.kind = {echo(kind)} learns {rows}: give method.type = {method!r} with it"
        )


def _check_on(shape: Shape, recipe: TunedRecipe, ref: ModelRef) -> None:
    """Whether the base is what the method begins with."""
    kind = recipe.method.kind
    if shape.adapter is None:
        if kind == "continue":
            raise ConfigError(f"dialoop: method.kind = 'continue': {ref.name} is no adapter: leave it out")
    elif recipe.kind == "tune" and kind not in ("continue", "full", "freeze"):
        raise ConfigError(
            f"{ref.name} is an adapter, which is trained on as it is: leave dialoop.method out, or train "
            f'every weight with dialoop = {{"method": {{"kind": "full"}}}}'
        )
    elif kind != "continue" and shape.adapter in UNMERGED:
        raise ConfigError(
            f"{ref.name} is an adapter of the method {shape.adapter}, which no weight can hold: it can be "
            f"trained on as it is (leave dialoop.method out), and nothing else made of it"
        )


def teacher_of(recipe: Mapping[str, Any]) -> str | None:
    """The model that is learnt from besides the rows."""
    teacher: str | None = (recipe.get("objective") or {}).get("teacher")
    return teacher


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
