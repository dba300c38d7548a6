"""Small recipes and rows for heads, and a run that is struck down.

`python -m tests.train.head_drill FOLDER` trains undisturbed, and killed and taken up again, and prints the
sums of what each left as JSON.
"""

from __future__ import annotations

import hashlib
import json
import signal
import sys
from pathlib import Path
from typing import Any

from dialoop.config.heads import AnyHeadRecipe, ClassifyRecipe, PairRecipe, TagRecipe
from dialoop.train.heads import teach
from dialoop.types import Conversation, Labelled, Message, ModelRef, Pair, Tagged
from tests.encoders import make_encoder
from tests.tiny import make_tiny_model
from tests.train.drill import DIALOGUES, changed, in_child, striking

TEXTS = {
    "shipping": (
        "Where is my order?", "Has my order been shipped?", "When will it arrive?",
        "我的订单在哪里？", "发货了吗？",
    ),
    "returning": (
        "I want to return shoes.", "Can I return it?", "I would like to return them",
        "我想退货。", "怎么退货？",
    ),
    "thanks": ("Thank you!", "Thanks a lot", "thank you very much", "谢谢。", "非常感谢"),
}  # fmt: skip
LABELLED = tuple(Labelled(text, label) for label, texts in TEXTS.items() for text in texts)
TAGGED = (
    Tagged(
        ("I", "met", "Anna", "Smith", "in", "Paris", "."), ("O", "O", "B-PER", "I-PER", "O", "B-LOC", "O")
    ),
    Tagged(("Paris", "is", "large"), ("B-LOC", "O", "O")),
    Tagged(("王", "先生", "在", "北京"), ("B-PER", "I-PER", "O", "B-LOC")),
    Tagged(("Anna", "called", "Smith"), ("B-PER", "O", "B-PER")),
)
PAIRS = tuple(Pair(dialogue.history, dialogue.answer) for dialogue in DIALOGUES)
JUDGED = tuple(
    Pair(Conversation((Message("user", "Where is my order?"),)), answer, fits)
    for answer, fits in (("It ships today.", True), ("不客气。", False))
)
ROWS: dict[str, tuple[Any, ...]] = {"classify": LABELLED, "tag": TAGGED, "pair": PAIRS}
KINDS: dict[str, Any] = {"classify": ClassifyRecipe, "tag": TagRecipe, "pair": PairRecipe}


def head_recipe(kind: str, **changes: Any) -> Any:
    """A short run of `kind`; `a__b=c` changes one field."""
    table: dict[str, Any] = {
        "name": "head", "kind": kind, "data": {"sources": ["file:rows.jsonl"]},
        "optim": {"learning_rate": 5e-3, "warmup": 0.0},
        "train": {"epochs": 3.0, "batch_rows": 5, "batch_tokens": 64, "max_length": 40, "patience": 0,
                  "checkpoint_every": 2, "eval_every": 2},
    }  # fmt: skip
    return KINDS[kind].model_validate(changed(table, changes))


def sum_of(folder: Path) -> str:
    """Of the weights that a run wrote."""
    return hashlib.sha256((folder / "artefact" / "model.safetensors").read_bytes()).hexdigest()


def main(folder: Path) -> None:
    bases = {"encoder": make_encoder(folder / "encoder"), "decoder": make_tiny_model(folder / "decoder")}
    found: dict[str, Any] = {}
    cases: list[tuple[str, AnyHeadRecipe]] = [
        ("encoder", head_recipe("classify")),
        ("decoder", head_recipe("classify", method={"kind": "lora", "rank": 4, "dropout": 0.1})),
        ("encoder", head_recipe("pair", loss="in-batch", train__batch_rows=3)),
        ("encoder", head_recipe("tag", crf=True, train__batch_rows=2)),
    ]
    for number, (name, recipe) in enumerate(cases):
        rows, statuses, sums = ROWS[recipe.kind], [], []
        for place, strike in (("whole", 0), ("killed", 4)):
            target = folder / f"{number}-{place}"
            for step in dict.fromkeys((strike, 0)):

                def work(step: int = step, target: Path = target, recipe: Any = recipe, name: str = name, rows: Any = rows) -> None:  # fmt: skip  # noqa: E501
                    teach(recipe, ModelRef("tiny", bases[name]), rows, rows[:3], target,
                          on_progress=striking(step, signal.SIGKILL))  # fmt: skip

                statuses.append(in_child(work))
            sums.append(sum_of(target))
        found[f"{recipe.kind} on {name}"] = [statuses, *sums]
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
