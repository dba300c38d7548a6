"""Contestants of the quality bench: taught once, asked once, their answers kept on disk."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from dialoop.config.heads import AnyHeadRecipe, ClassifyRecipe, PairRecipe, TagRecipe
from dialoop.config.reading import load_any
from dialoop.data.dataset import Dataset
from dialoop.evals.shares import wilson
from dialoop.jobs.heads import read_rows
from dialoop.store.registry import Store
from dialoop.train.head_answers import Answering
from dialoop.train.heads import longest_text, teach
from dialoop.train.loop import Progress
from dialoop.types import ModelRef

DECODER = "dialoop-base"
KINDS: dict[str, type[Any]] = {"classify": ClassifyRecipe, "pair": PairRecipe, "tag": TagRecipe}
SHOWN_EVERY = 25


@dataclass(frozen=True, slots=True)
class Way:
    """A base and a method. overrides: what differs from the recipe, which is of the shipped decoder."""

    title: str
    encoder: bool
    overrides: tuple[str, ...] = ()


WAYS = {
    "encoder": Way("own encoder, full", encoder=True),
    "decoder": Way("shipped decoder, full", encoder=False),
    "lora": Way(
        "shipped decoder, LoRA", encoder=False,
        overrides=('method={kind="lora", rank=16, alpha=32}', "optim.learning_rate=3e-3"),
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bench:
    """What was asked for. ways: keys of WAYS; changes: overrides of every recipe."""

    work: Path
    encoder: Path | None
    ways: tuple[str, ...]
    changes: tuple[str, ...] = ()

    def recipe(self, name: str, way: str | None = None) -> AnyHeadRecipe:
        """The shipped recipe of a set, as the way takes it. Exits where the way needs an encoder."""
        path = Path(str(files("dialoop.assets").joinpath("recipes", f"{name}.toml")))
        overrides: tuple[str, ...] = ()
        if way is not None:
            if WAYS[way].encoder and self.encoder is None:
                raise SystemExit(
                    "--encoder is missing: give the directory of `dialoop pretrain encoder`, or other --ways"
                )
            base = self.encoder if WAYS[way].encoder else DECODER
            overrides = (f'base="{base}"', *WAYS[way].overrides)
        found: AnyHeadRecipe = load_any(path, KINDS, (*overrides, *self.changes))
        return found

    def rows(self, name: str) -> Dataset[Any]:
        """The set's rows; the split is the same for every way."""
        return read_rows(self.recipe(name), self.work / name / "scratch")

    def taught(self, name: str, way: str, dataset: Dataset[Any]) -> tuple[Answering, dict[str, Any]]:
        """The tuned model, and what its training took."""
        recipe, folder = self.recipe(name, way), self.work / name / way
        with Store.open(self.work / "home") as store:
            base = store.models.resolve(recipe.base)
        done = teach(recipe, base, dataset.train, dataset.valid, folder, on_progress=Line(f"{name}, {way}"))
        if done.artefact is None:
            raise SystemExit(130)
        told = {
            "trained": done.trained, "weights": done.weights, "updates": done.result.step,
            "best": done.result.best_step, "minutes": done.result.seconds / 60, "cut": done.cut,
        }  # fmt: skip
        return Answering.load(done.artefact.base, longest_text(base.base, recipe.train.max_length)), told

    def kept(self, name: str, contestant: str, ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What `ask` gave when it was asked first: `answers`, one for each test row, and what it took."""
        path = self.work / name / f"{contestant}.json"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            started = time.perf_counter()
            found = ask()
            found.setdefault("minutes", (time.perf_counter() - started) / 60)
            draft = path.with_suffix(".draft")
            draft.write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")
            draft.replace(path)
        return dict(json.loads(path.read_text(encoding="utf-8")))


class Line:
    """One line of a training now and then, and one at every validation."""

    def __init__(self, title: str) -> None:
        self.title = title

    def __call__(self, progress: Progress) -> None:
        if progress.valid_loss is None and progress.step % SHOWN_EVERY and progress.step != progress.steps:
            return
        valid = "" if progress.valid_loss is None else f"  validation {progress.valid_loss:.4f}"
        print(
            f"{self.title}: {progress.step}/{progress.steps}  loss {progress.loss:.3f}  "
            f"{progress.tokens_per_second:,.0f} tokens/s  {progress.seconds_left / 60:.0f} min left{valid}",
            file=sys.stderr, flush=True,
        )  # fmt: skip


def decoder(work: Path) -> ModelRef:
    """The shipped base."""
    with Store.open(work / "home") as store:
        return store.models.resolve(DECODER)


def share(hits: Sequence[bool]) -> str:
    """`87.2 [85.1, 89.0]`: percent, with Wilson's interval."""
    found = wilson(sum(hits), len(hits))
    return f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table on stdout."""
    print(f"\n{title}\n")
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |")
