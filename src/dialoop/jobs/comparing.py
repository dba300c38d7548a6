"""Two models on the same dialogues: the main set, and others that must not be forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from dialoop.config import EvalSettings
from dialoop.config.gate import MAIN_SET
from dialoop.data.dataset import Dataset
from dialoop.errors import ConfigError
from dialoop.evals.choices import From
from dialoop.evals.cost import Cost
from dialoop.evals.metrics import Metric
from dialoop.evals.report import Identity, Report, Retained, build
from dialoop.evals.suites import REPLY, Task, task_named
from dialoop.evals.task import Outcome
from dialoop.jobs.judging import Cases, Done
from dialoop.jobs.opinions import meaning, preferred
from dialoop.jobs.origins import Leak, leak_of, lineage, newest, recipe_text
from dialoop.jobs.tuning import hardware, versions
from dialoop.jobs.under_test import UnderTest, cases_for, rows_of, under_test
from dialoop.models.encoder import is_encoder
from dialoop.models.head_config import head_kind
from dialoop.store.registry import Store
from dialoop.types import Conversation, ModelRef

Asked = tuple[dict[str, tuple[Outcome, ...]], Cost | None]
"""Outcomes by set, and what they cost."""


@dataclass(frozen=True, slots=True)
class Comparing:
    """before, after: models of the store or directories.  sets: sources by name, `test` the main one.

    speed: answers are timed too.  task: of the main set; the others are replies, where a model writes some.
    judge, embedder: further models, who prefer one of two answers, and compare answers in meaning.
    """

    before: str
    after: str
    sets: Mapping[str, tuple[str, ...]]
    settings: EvalSettings = field(default_factory=EvalSettings)
    speed: bool = True
    command: str = ""
    task: str = REPLY.name
    judge: str | None = None
    embedder: str | None = None


def compare_models(asked: Comparing, home: Path, on_done: Done) -> Report:
    """Ask both models what they were not asked before, and compare. Raises DialoopError of many kinds."""
    if MAIN_SET not in asked.sets:
        raise ConfigError(f"there is no set {MAIN_SET!r}: name the main test dialogues so")
    task, scratch = task_named(asked.task), home / "scratch"
    with Store.open(home) as store:
        refs = [store.models.resolve(name) for name in (asked.before, asked.after)]
        others = {name: store.models.resolve(name) for name in (asked.judge, asked.embedder) if name}
        tasks = {name: task if name == MAIN_SET else _of_other_sets(task, refs) for name in asked.sets}
        data = {name: rows_of(tasks[name], sources, scratch) for name, sources in asked.sets.items()}
        chosen = {name: cases_for(tasks[name], found.train, asked.settings) for name, found in data.items()}
        leak = leak_of(newest(store.models, asked.after), data[MAIN_SET].train, scratch)
        identity = _identity(asked, store, data[MAIN_SET], leak)
    before, after = (_asked(asked, ref, tasks, chosen, home / "answers", on_done) for ref in refs)
    report = _report(asked, tasks, before, after, identity, leak, _meanings(asked, others, before, after))
    if not asked.judge:
        return report
    return replace(report, judged=preferred(others[asked.judge], before[0][MAIN_SET], after[0][MAIN_SET]))


def _meanings(
    asked: Comparing, others: Mapping[str, ModelRef], before: Asked, after: Asked
) -> tuple[Metric, ...]:
    if not asked.embedder:
        return ()
    return (meaning(others[asked.embedder], [before[0][MAIN_SET], after[0][MAIN_SET]]),)


def _of_other_sets(task: Task, refs: Sequence[ModelRef]) -> Task:
    """Replies, of models that write some."""
    writing = all(head_kind(ref.base) is None and not is_encoder(ref.base) for ref in refs)
    return REPLY if writing else task


def _asked(
    asked: Comparing,
    ref: ModelRef,
    tasks: Mapping[str, Task],
    chosen: Mapping[str, Cases],
    kept: Path,
    on_done: Done,
) -> Asked:
    """A model is opened once for all sets that it answers in the same way."""
    models: dict[From | None, UnderTest] = {}
    outcomes = {}
    with ExitStack() as opened:
        for name, cases in chosen.items():
            task = tasks[name]
            if task.options not in models:
                model = under_test(ref, task, asked.settings, on_done, kept=kept)
                models[task.options] = opened.enter_context(closing(model))
            outcomes[name] = models[task.options].outcomes(cases)
        main = models[tasks[MAIN_SET].options]
        return outcomes, main.cost(chosen[MAIN_SET]) if asked.speed else None


def _report(
    asked: Comparing,
    tasks: Mapping[str, Task],
    before: Asked,
    after: Asked,
    identity: Identity,
    leak: Leak,
    more: Sequence[Metric],
) -> Report:
    resamples, seed = asked.settings.resamples, asked.settings.seed
    retained = [
        Retained(
            name,
            build(before[0][name], after[0][name], resamples=resamples, seed=seed, task=tasks[name]),
        )
        for name in asked.sets
        if name != MAIN_SET
    ]
    return build(
        before[0][MAIN_SET], after[0][MAIN_SET], identity=identity, retained=retained,
        costs=(before[1], after[1]), leaked=leak.share, resamples=resamples, seed=seed,
        task=tasks[MAIN_SET], more=more,
    )  # fmt: skip


def _identity(asked: Comparing, store: Store, main: Dataset[Conversation], leak: Leak) -> Identity:
    after = newest(store.models, asked.after)
    more = {
        "lineage_before": lineage(store.models, asked.before),
        "lineage_after": lineage(store.models, asked.after),
        "recipe": recipe_text(after),
    }
    return Identity(
        base=asked.before, model=asked.after, method=after.kind if after else "",
        dataset_hash=main.content_hash, split_rule="all rows of the sources given",
        seeds={"eval": asked.settings.seed},
        decoding={"temperature": 0, "max_tokens": asked.settings.max_tokens},
        versions=versions(), hardware=hardware(), command=asked.command, leak_check=leak.words,
        created=datetime.now(UTC).isoformat(timespec="seconds"), more=more,
    )  # fmt: skip
