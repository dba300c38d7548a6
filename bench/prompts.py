"""What a prompt, examples, a search and training are worth: side by side, on the same held-out cases.

    python bench/prompts.py run --home DIR [--sets banking77,crosswoz] [--trial 60] [--test 100]
    python bench/prompts.py table --home DIR

Rows of each set: the hand-written prompt alone; four examples chosen in five ways; the prompt that
`dialoop prompts optimise` found; a soft prompt, LoRA and full training on the same prompt; LoRA with an
optimised prompt. Half of the rows that LoRA learns from show four examples by BM25.

Intervals are of the paired difference to the hand-written prompt of the same model (bootstrap, 95 %; p of
McNemar where cases are right or wrong). Every number is kept in DIR/rows: a run that
ended goes on.

Classes are told by calibrated P(label | prompt); dialogues are judged by log P(reference) and by ROUGE-L of
what is written. Public data is read from $DIALOOP_DATA.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dialoop.chat.prompt import Prompt
from dialoop.chat.wire import conversation_to_openai
from dialoop.config import TuneRecipe
from dialoop.config.optimising import OptimiseSettings
from dialoop.config.prompts import FewShotSettings, parse_prompt
from dialoop.evals.compare import compare
from dialoop.evals.report import stats_of
from dialoop.evals.shares import wilson
from dialoop.evals.task import Outcome
from dialoop.jobs.optimise import Optimiser
from dialoop.jobs.prompt_data import CLASSIFICATION, PromptData, prompt_data
from dialoop.jobs.prompted import Asking, Prompted, with_few_shot
from dialoop.jobs.tuning import run_tuning
from dialoop.jobs.wording import MOST_LISTED
from dialoop.prompting.candidates import with_examples
from dialoop.store.prompts import shipped
from dialoop.store.registry import Store
from dialoop.types import Conversation

DATA = "${DIALOOP_DATA}"
BASE = "dialoop-base"
SELECTIONS = ("random", "bm25", "embeddings", "mmr", "balanced")
SHOTS = 4
SEED = 7
WRITTEN = 48
POOL = 1000
"""Examples that training rows choose from, none of them a training row."""
LEARNT = 0.8
"""Of all examples, the most that are trained on."""


@dataclass(frozen=True)
class Way:
    """A method, its learning rate, and the share of its rows that show examples."""

    method: Mapping[str, Any]
    rate: float
    with_examples: float = 0.0


METHODS: Mapping[str, Way] = {
    "soft prompt": Way({"kind": "prompt", "tokens": 20}, 3e-2),
    "LoRA": Way({"kind": "lora", "rank": 16, "alpha": 32}, 3e-3, with_examples=0.5),
    "full": Way({"kind": "full"}, 5e-4),
}


@dataclass(frozen=True)
class Set:
    """sources: of the cases.  examples: others, or the rows of the sources that are not asked."""

    name: str
    language: str
    sources: tuple[str, ...]
    examples: tuple[str, ...] = ()
    task: str = CLASSIFICATION
    prompt: str = "classify"
    instructions: tuple[str, ...] = ()


SETS = {
    each.name: each
    for each in (
        Set("bitext-support", "en", (f"{DATA}/bitext-support/intent_valid.jsonl.gz",),
            (f"{DATA}/bitext-support/intent_train.jsonl.gz",),
            instructions=("What does the customer of a shop want?", "Name the intent of the customer.")),
        Set("banking77", "en", (f"{DATA}/banking77/train.jsonl.gz",),
            instructions=("What does the customer of a bank want?", "Name the intent of the customer.")),
        Set("clinc150", "en", (f"{DATA}/clinc150/valid.jsonl.gz",), (f"{DATA}/clinc150/train.jsonl.gz",),
            instructions=("What is the user asking an assistant for?", "Name the intent of the user.")),
        Set("fin-eva", "zh", ("choices.jsonl",),
            instructions=("选出正确的选项。", "回答金融问题，只写选项的字母。")),
        Set("crosswoz", "zh", (f"{DATA}/crosswoz/valid.jsonl.gz",), task="reply", prompt="dialogue",
            instructions=("你是北京旅游助手，简短回答。", "根据对话历史回答最后一个问题。")),
    )
}  # fmt: skip


class Bench:
    """One home: models, answers and rows."""

    def __init__(self, home: Path, trial: int, test: int, budget: int, train: int) -> None:
        self.home, self.trial, self.test, self.budget, self.train = home, trial, test, budget, train
        (home / "rows").mkdir(parents=True, exist_ok=True)

    def run(self, each: Set) -> None:
        """All rows of a set that are not there yet."""
        data = self._data(each)
        prompt = Prompt(shipped()[each.prompt].settings)
        values = {"labels": list(data.labels)} if 0 < len(data.labels) <= MOST_LISTED else {}
        start = Asking(prompt, values, None, data.labels)
        with self._asked(BASE) as model:
            test = self._optimiser(model, each, data, values).test_cases
            self._row(each, "zero-shot", lambda: self._outcomes(model, start, test, data))
            for select in SELECTIONS:
                few = with_few_shot(prompt, select=select, count=SHOTS)
                asking = replace(start, prompt=few, pool=data.pool)
                self._row(each, f"{SHOTS} by {select}", lambda a=asking: self._outcomes(model, a, test, data))
            self._optimised(model, each, data, values, "optimised")
        for name, way in METHODS.items():
            ref = self._trained(each, data, values, name, way)
            with self._asked(ref) as model:
                self._row(each, name, lambda m=model: self._outcomes(m, start, test, data))
        with self._asked(f"{each.name}-lora") as model:
            self._optimised(model, each, data, values, "LoRA, optimised")

    def _data(self, each: Set) -> PromptData:
        sources = each.sources
        if each.name == "fin-eva":
            sources = (str(_choices(self.home / "choices.jsonl")),)
        return prompt_data(
            sources, each.examples, each.task, self.home / "scratch", max_cases=self.trial + self.test,
            drop_leaks=True,
        )  # fmt: skip

    def _asked(self, name: str) -> Prompted:
        with Store.open(self.home) as store:
            ref = store.models.resolve(name)
        return Prompted(ref, max_tokens=WRITTEN, on_done=_progress, kept=self.home / "answers")

    def _optimiser(
        self, model: Prompted, each: Set, data: PromptData, values: Mapping[str, Any]
    ) -> Optimiser:
        settings = OptimiseSettings(
            budget=self.budget, trial_cases=self.trial, test_cases=self.test, instructions=each.instructions,
            shots=(2, 6), example_sets=1, selections=("bm25", "balanced"), mutations=3, keep=2,
        )  # fmt: skip
        return Optimiser(
            model, shipped()[each.prompt].settings, data, settings, language=each.language, values=values,
            say=_say,
        )  # fmt: skip

    def _optimised(
        self, model: Prompted, each: Set, data: PromptData, values: Mapping[str, Any], name: str
    ) -> None:
        path = self.home / "rows" / each.name / f"{name}.toml"
        if self._known(each, name):
            return
        found = self._optimiser(model, each, data, values).run()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(found.best.settings.toml(), encoding="utf-8")
        path.with_suffix(".evidence.json").write_text(json.dumps(dict(found.evidence), ensure_ascii=False))
        best = parse_prompt(path.read_text(encoding="utf-8"), str(path))
        test = self._optimiser(model, each, data, values).test_cases
        asking = Asking(Prompt(best), values, None, data.labels)
        self._row(each, name, lambda: self._outcomes(model, asking, test, data), origin=found.best.origin)

    def _outcomes(
        self, model: Prompted, asking: Asking, test: Sequence[Any], data: PromptData
    ) -> tuple[Outcome, ...]:
        answered = model.outcomes(asking, test)
        if data.labels:
            return answered
        likely = model.likelihoods(asking, test)
        return tuple(
            replace(a, log_likelihood=b.log_likelihood, tokens=b.tokens)
            for a, b in zip(answered, likely, strict=True)
        )

    def _trained(self, each: Set, data: PromptData, values: Mapping[str, Any], name: str, way: Way) -> str:
        called = f"{each.name}-{name.replace(' ', '-').lower()}"
        # Drawn, since files may be in the order of their labels.
        places = random.Random(SEED).sample(range(len(data.pool)), len(data.pool))
        many = min(self.train, round(LEARNT * len(places)))
        drawn, others = places[:many], places[many:][:POOL]
        with Store.open(self.home) as store:
            if any(version.name == called for version in store.models.list()):
                return called
            prompt = f"{each.prompt}@0"
            if way.with_examples:
                few = FewShotSettings(select="bm25", count=SHOTS)
                shown = with_examples(shipped()[each.prompt].settings, [data.pool[i] for i in others], few)
                told = shown.model_copy(update={"name": f"{each.name}-shown"})
                prompt = store.prompts.add(told.toml()).ref
        rows = self.home / f"{each.name}.train.jsonl"
        with rows.open("w", encoding="utf-8") as file:
            for place in drawn:
                row = conversation_to_openai(_last_learnt(data.pool[place]))
                row["metadata"] = {"id": f"row {place}", "language": each.language}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        recipe = TuneRecipe.model_validate({
            "name": called, "base": BASE, "method": way.method, "optim": {"learning_rate": way.rate},
            "data": {"sources": [f"file:{rows}"], "clean": {"steps": ["roles"]},
                     "split": {"valid": 0.02, "test": 0.01, "group_by": ["id"]},
                     "prompt": {"name": prompt, "task": "reply", "values": values,
                                "without_examples": 1 - way.with_examples if way.with_examples else 0}},
            "train": {"epochs": 2, "batch_tokens": 4096, "max_length": 1024, "patience": 0, "mask": "last"},
            "eval": {"max_cases": 2, "max_tokens": 2, "resamples": 100},
        })  # fmt: skip
        run_tuning(recipe, self.home, self.home / "runs" / called, "bench/prompts.py", _Quiet())
        return called

    def _known(self, each: Set, name: str) -> bool:
        return (self.home / "rows" / each.name / f"{name}.json").is_file()

    def _row(self, each: Set, name: str, outcomes: Callable[[], Sequence[Outcome]], origin: str = "") -> None:
        if self._known(each, name):
            return
        told = [
            {"id": o.case.id, "answer": o.answer, "reference": o.case.reference, "logp": o.log_likelihood,
             "tokens": o.tokens}
            for o in outcomes()
        ]  # fmt: skip
        path = self.home / "rows" / each.name / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"origin": origin, "outcomes": told}, ensure_ascii=False))
        _say(f"{each.name}: {name} done")

    def table(self) -> None:
        """A table for each language, of all rows that are there."""
        for language in ("en", "zh"):
            for each in SETS.values():
                if each.language == language and self._known(each, "zero-shot"):
                    self._print(each)

    def _print(self, each: Set) -> None:
        data = self._data(each)
        names = [
            "zero-shot", *(f"{SHOTS} by {select}" for select in SELECTIONS), "optimised", *METHODS,
            "LoRA, optimised",
        ]  # fmt: skip
        rows = {name: self._read(each, name, data) for name in names if self._known(each, name)}
        first = rows["zero-shot"]
        if data.labels:
            hits = sum(o.answer == o.case.reference for o in first)
            share, chance = wilson(hits, len(first)), 1 / len(data.labels)
            above = "above chance" if share.low > chance else "at chance"
            print(f"\n{each.name} ({each.language}): {len(data.labels)} labels, chance {100 * chance:.1f} %; "
                  f"the base with the hand-written prompt is {above} "
                  f"({100 * share.value:.1f} % [{100 * share.low:.1f}, {100 * share.high:.1f}])")  # fmt: skip
        else:
            print(f"\n{each.name} ({each.language})")
        known = data.task.metrics(each.language, [o.case.reference for o in first])
        wanted = ("accuracy", "macro F1") if data.labels else ("perplexity", "ROUGE-L", "chrF")
        metrics = [metric for metric in known if metric.name in wanted]
        print(f"\n| n = {len(first)} | " + " | ".join(metric.name for metric in metrics) + " | |")
        print("|---|" + "---:|" * len(metrics) + "---|")
        for name, found in rows.items():
            against = rows.get("LoRA", first) if name == "LoRA, optimised" else first
            cells, words = [], ""
            for metric in metrics:
                change = compare(metric, stats_of(metric, against), stats_of(metric, found))
                delta = "" if found is first else f" ({change.signed(change.delta)} {change.interval})"
                cells.append(f"{change.number(change.after)}{delta}")
                words = words or ("" if found is first else change.verdict)
            print(f"| {name} | " + " | ".join(cells) + f" | {words} |")

    def _read(self, each: Set, name: str, data: PromptData) -> list[Outcome]:
        path = self.home / "rows" / each.name / f"{name}.json"
        cases = {case.id: case for case in data.cases}
        return [
            Outcome(cases[row["id"]], row["answer"], row["logp"], row["tokens"])
            for row in json.loads(path.read_text(encoding="utf-8"))["outcomes"]
        ]


def _last_learnt(example: Conversation) -> Conversation:
    """Only its last answer is."""
    *before, answer = example.messages
    unlearnt = (replace(turn, weight=0.0) if turn.role == "assistant" else turn for turn in before)
    return replace(example, messages=(*unlearnt, answer))


def _choices(path: Path) -> Path:
    """Fin-Eva's questions with four options, as texts whose class is a letter."""
    import gzip

    source = Path(os.environ["DIALOOP_DATA"]) / "fin-eva" / "train.jsonl.gz"
    with gzip.open(source, "rt", encoding="utf-8") as file, path.open("w", encoding="utf-8") as out:
        for row in map(json.loads, file):
            options = row.get("options") or {}
            if set(options) != set("ABCD") or row["answer"] not in options:
                continue
            parts = [row.get("context") or "", row["question"], *(f"{k}. {v}" for k, v in options.items())]
            text = "\n".join(part for part in parts if part)
            if len(text) <= 300:
                out.write(json.dumps({"text": text, "label": row["answer"]}, ensure_ascii=False) + "\n")
    return path


class _Quiet:
    def step(self, number: int, title: str) -> None:
        pass

    def data(self, dataset: Any) -> None:
        pass

    def done(self, what: str, done: int, total: int) -> None:
        pass

    def training(self, progress: Any) -> None:
        if progress.step % 20 == 0:
            _say(f"  update {progress.step}/{progress.steps}, loss {progress.loss:.3f}")


def _progress(what: str, done: int, total: int) -> None:
    if done == total or done % 50 == 0:
        print(f"  {what} {done}/{total}", file=sys.stderr, flush=True)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Run, or print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--trial", type=int, default=60)
    parser.add_argument("--test", type=int, default=100)
    parser.add_argument("--budget", type=int, default=400)
    parser.add_argument("--train", type=int, default=2000, help="rows that are trained on")
    asked = parser.parse_args()
    bench = Bench(asked.home, asked.trial, asked.test, asked.budget, asked.train)
    if asked.what == "table":
        bench.table()
    else:
        for name in asked.sets.split(","):
            bench.run(SETS[name])


if __name__ == "__main__":
    main()
