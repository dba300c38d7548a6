"""One model on the rows of a task."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from dialoop.config import EvalSettings
from dialoop.evals.scores import Scores, scores_of
from dialoop.evals.suites import REPLY, task_named
from dialoop.jobs.judging import Done
from dialoop.jobs.opinions import meaning
from dialoop.jobs.tuning import hardware, versions
from dialoop.jobs.under_test import cases_for, rows_of, under_test
from dialoop.store.registry import Store


@dataclass(frozen=True, slots=True)
class Judging:
    """model: of the store, or a directory.  embedder: a further one, which compares answers in meaning."""

    model: str
    sources: tuple[str, ...]
    settings: EvalSettings = field(default_factory=EvalSettings)
    task: str = REPLY.name
    embedder: str | None = None
    command: str = ""


def score_model(asked: Judging, home: Path, on_done: Done) -> Scores:
    """Ask what was not asked before. Raises DialoopError of many kinds."""
    task = task_named(asked.task)
    with Store.open(home) as store:
        ref = store.models.resolve(asked.model)
        embedder = store.models.resolve(asked.embedder) if asked.embedder else None
    rows = rows_of(task, asked.sources, home / "scratch")
    chosen = cases_for(task, rows.train, asked.settings)
    with closing(under_test(ref, task, asked.settings, on_done, kept=home / "answers")) as model:
        outcomes = model.outcomes(chosen)
    more = (meaning(embedder, [outcomes]),) if embedder else ()
    identity = {
        "model": ref.name, "data": rows.content_hash, "command": asked.command, "hardware": hardware(),
        "seed": str(asked.settings.seed), **versions(),
    }  # fmt: skip
    settings = asked.settings
    return scores_of(
        ref.name, outcomes, task, more,
        resamples=settings.resamples, seed=settings.seed, identity=identity,
    )  # fmt: skip
