"""Two models on the same dialogues: the main set, and others that must not be forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from dialoop.config import CleanSettings, DataSettings, EvalSettings, SplitSettings
from dialoop.config.gate import MAIN_SET
from dialoop.data.dataset import Dataset, load_dataset
from dialoop.errors import ConfigError
from dialoop.evals.cost import Cost
from dialoop.evals.metrics import Metric
from dialoop.evals.report import Identity, Report, Retained, build
from dialoop.evals.suites import REPLY, task_named
from dialoop.evals.task import Outcome
from dialoop.jobs.judging import Cases, Done, Judged, choose_cases
from dialoop.jobs.opinions import meaning, preferred
from dialoop.jobs.origins import Leak, leak_of, lineage, newest, recipe_text
from dialoop.jobs.tuning import hardware, versions
from dialoop.store.registry import Store
from dialoop.types import Conversation, ModelRef

Asked = tuple[dict[str, tuple[Outcome, ...]], Cost | None]
"""Outcomes by set, and what they cost."""


@dataclass(frozen=True, slots=True)
class Comparing:
    """before, after: models of the store or directories.  sets: sources by name, `test` the main one.

    speed: answers are timed too.  task: judges the main set; the others are replies.
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


def dialogues_of(sources: tuple[str, ...], scratch: Path) -> Dataset[Conversation]:
    """All rows of the sources, tidied and none left out as a duplicate. Raises DataError."""
    steps = CleanSettings(steps=("unicode", "roles", "turns", "language"))
    whole = SplitSettings(valid=0, test=0)
    return load_dataset(DataSettings(sources=sources, clean=steps, split=whole), scratch=scratch)


def compare_models(asked: Comparing, home: Path, on_done: Done) -> Report:
    """Ask both models what they were not asked before, and compare. Raises DialoopError of many kinds."""
    if MAIN_SET not in asked.sets:
        raise ConfigError(f"there is no set {MAIN_SET!r}: name the main test dialogues so")
    task_named(asked.task)
    scratch = home / "scratch"
    data = {name: dialogues_of(sources, scratch) for name, sources in asked.sets.items()}
    chosen = {name: choose_cases(found.train, asked.settings) for name, found in data.items()}
    with Store.open(home) as store:
        refs = [store.models.resolve(name) for name in (asked.before, asked.after)]
        others = {name: store.models.resolve(name) for name in (asked.judge, asked.embedder) if name}
        leak = leak_of(newest(store.models, asked.after), data[MAIN_SET].train, scratch)
        identity = _identity(asked, store, data[MAIN_SET], leak)
    before, after = (
        _asked(Judged(ref, asked.settings, on_done, kept=home / "answers"), chosen, asked.speed)
        for ref in refs
    )
    report = _report(asked, before, after, identity, leak, _meanings(asked, others, before, after))
    if not asked.judge:
        return report
    return replace(report, judged=preferred(others[asked.judge], before[0][MAIN_SET], after[0][MAIN_SET]))


def _meanings(
    asked: Comparing, others: Mapping[str, ModelRef], before: Asked, after: Asked
) -> tuple[Metric, ...]:
    if not asked.embedder:
        return ()
    return (meaning(others[asked.embedder], [before[0][MAIN_SET], after[0][MAIN_SET]]),)


def _asked(model: Judged, chosen: Mapping[str, Cases], speed: bool) -> Asked:
    outcomes = {name: model.outcomes(cases) for name, cases in chosen.items()}
    return outcomes, model.cost(chosen[MAIN_SET].asked) if speed else None


def _report(
    asked: Comparing,
    before: Asked,
    after: Asked,
    identity: Identity,
    leak: Leak,
    more: Sequence[Metric],
) -> Report:
    resamples, seed = asked.settings.resamples, asked.settings.seed
    retained = [
        Retained(name, build(before[0][name], after[0][name], resamples=resamples, seed=seed))
        for name in asked.sets
        if name != MAIN_SET
    ]
    return build(
        before[0][MAIN_SET], after[0][MAIN_SET], identity=identity, retained=retained,
        costs=(before[1], after[1]), leaked=leak.share, resamples=resamples, seed=seed,
        task=task_named(asked.task), more=more,
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
