"""Evaluations: what is asked and how it is graded, runs of them, and what came of each item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import sqlalchemy as sa

from dialoop.store.database import writing
from dialoop.store.identity import new_id, now_micros
from dialoop.store.pages import Page, Window, only_row, page_of
from dialoop.store.records import columns_of, record_of
from dialoop.store.tables_jobs import eval_items, eval_runs, evals

S = TypeVar("S")
RunStatus = Literal["queued", "in_progress", "completed", "failed", "canceled"]
UNENDED: tuple[RunStatus, ...] = ("queued", "in_progress")
ItemStatus = Literal["pass", "fail", "error"]
V, R, T = evals.c, eval_runs.c, eval_items.c


@dataclass(frozen=True, slots=True)
class Eval:
    """What is asked and how answers are graded, in OpenAI's JSON. created, updated: UTC microseconds."""

    id: str
    name: str
    data_source_config: Mapping[str, Any]
    testing_criteria: Sequence[Mapping[str, Any]]
    metadata: Mapping[str, str] | None
    created: int
    updated: int


@dataclass(frozen=True, slots=True)
class EvalRun:
    """One run. parent_id: its evaluation.  key_id: of whoever began it, None where that came with no key.

    summary: totals by grader and model, once it has ended.
    """

    id: str
    project_id: str
    parent_id: str
    name: str
    model: str
    data_source: Mapping[str, Any]
    metadata: Mapping[str, str] | None
    status: RunStatus
    error: Mapping[str, Any] | None
    summary: Mapping[str, Any] | None
    created: int
    key_id: str | None = None


@dataclass(frozen=True, slots=True)
class EvalItem:
    """One row of the data, the answer to it, and its grades. parent_id: the run.  seq: the row, from 0."""

    id: str
    parent_id: str
    seq: int
    status: ItemStatus
    item: Mapping[str, Any]
    sample: Mapping[str, Any]
    results: Sequence[Mapping[str, Any]]
    created: int


@dataclass(frozen=True, slots=True)
class Evals:
    """The evaluations of one project. Ids that it does not have raise UnknownRecordError."""

    engine: sa.Engine
    project: str

    def create(
        self,
        name: str,
        data_source_config: Mapping[str, Any],
        testing_criteria: Sequence[Mapping[str, Any]],
        metadata: Mapping[str, str] | None,
    ) -> Eval:
        """A new evaluation."""
        now = now_micros()
        made = Eval(new_id("eval_"), name, data_source_config, testing_criteria, metadata, now, now)
        self._insert(evals, made)
        return made

    def get(self, eval_id: str) -> Eval:
        """One evaluation."""
        return self._one(
            "eval", Eval, sa.select(evals).where(V.id == eval_id, V.project_id == self.project), eval_id
        )

    def list(self, window: Window) -> Page[Eval]:
        """The evaluations."""
        query = sa.select(evals).where(V.project_id == self.project)
        return page_of(self.engine, query, V.id, window, lambda row: record_of(Eval, row))

    def update(self, eval_id: str, **values: Any) -> Eval:
        """Another name, or other metadata."""
        self.get(eval_id)
        with writing(self.engine).begin() as connection:
            changed = {**values, "updated": now_micros()}
            connection.execute(sa.update(evals).where(V.id == eval_id).values(**changed))
        return self.get(eval_id)

    def delete(self, eval_id: str) -> None:
        """An evaluation, its runs and their items."""
        self.get(eval_id)
        with writing(self.engine).begin() as connection:
            runs = sa.select(R.id).where(R.parent_id == eval_id)
            connection.execute(sa.delete(eval_items).where(T.parent_id.in_(runs)))
            connection.execute(sa.delete(eval_runs).where(R.parent_id == eval_id))
            connection.execute(sa.delete(evals).where(V.id == eval_id))

    def start(
        self,
        eval_id: str,
        run_id: str,
        name: str,
        model: str,
        data_source: Mapping[str, Any],
        metadata: Mapping[str, str] | None,
        key_id: str | None = None,
    ) -> EvalRun:
        """A new run, which waits for its turn. run_id: of `new_id("evalrun_")`."""
        self.get(eval_id)
        run = EvalRun(
            run_id, self.project, eval_id, name, model, data_source, metadata, "queued", None,
            None, now_micros(), key_id,
        )  # fmt: skip
        self._insert(eval_runs, run)
        return run

    def run(self, eval_id: str, run_id: str) -> EvalRun:
        """One run of an evaluation."""
        query = sa.select(eval_runs).where(*self._mine(R, eval_id), R.id == run_id)
        return self._one("run of this eval", EvalRun, query, run_id)

    def runs(self, eval_id: str, window: Window, status: str | None = None) -> Page[EvalRun]:
        """The runs of an evaluation."""
        query = sa.select(eval_runs).where(*self._mine(R, self.get(eval_id).id))
        query = query if status is None else query.where(R.status == status)
        return page_of(self.engine, query, R.id, window, lambda row: record_of(EvalRun, row))

    def change_run(self, run_id: str, among: Sequence[RunStatus], **values: Any) -> bool:
        """Set columns of a run whose status is one of `among`; whether it was."""
        with writing(self.engine).begin() as connection:
            where = (R.id == run_id, R.project_id == self.project, R.status.in_(among))
            return connection.execute(sa.update(eval_runs).where(*where).values(**values)).rowcount == 1

    def open(self, run_id: str) -> bool:
        """Whether there is such a run and it has not ended."""
        query = sa.select(R.id).where(R.id == run_id, R.status.in_(UNENDED))
        with self.engine.connect() as connection:
            return connection.execute(query).one_or_none() is not None

    def delete_run(self, eval_id: str, run_id: str) -> None:
        """A run and its items."""
        self.run(eval_id, run_id)
        with writing(self.engine).begin() as connection:
            connection.execute(sa.delete(eval_items).where(T.parent_id == run_id))
            connection.execute(sa.delete(eval_runs).where(R.id == run_id))

    def add_item(
        self, run_id: str, seq: int, status: ItemStatus, item: Mapping[str, Any], sample: Mapping[str, Any],
        results: Sequence[Mapping[str, Any]],
    ) -> None:  # fmt: skip
        """What came of a row; nothing where the run was deleted meanwhile."""
        made = EvalItem(new_id("outputitem_"), run_id, seq, status, item, sample, results, now_micros())
        with writing(self.engine).begin() as connection:
            if connection.execute(sa.select(R.id).where(R.id == run_id)).one_or_none() is not None:
                connection.execute(sa.insert(eval_items).values(**columns_of(made), project_id=self.project))

    def item(self, run_id: str, item_id: str) -> EvalItem:
        """One item of a run."""
        query = sa.select(eval_items).where(*self._mine(T, run_id), T.id == item_id)
        return self._one("output item of this run", EvalItem, query, item_id)

    def items(self, run_id: str, window: Window, status: str | None = None) -> Page[EvalItem]:
        """The items of a run."""
        query = sa.select(eval_items).where(*self._mine(T, run_id))
        query = query if status is None else query.where(T.status == status)
        return page_of(self.engine, query, T.id, window, lambda row: record_of(EvalItem, row))

    def done(self, run_id: str) -> set[int]:
        """The rows that have been answered and graded."""
        with self.engine.connect() as connection:
            return set(connection.execute(sa.select(T.seq).where(*self._mine(T, run_id))).scalars())

    def counts(self, run_id: str) -> dict[str, int]:
        """How many items have each status."""
        query = sa.select(T.status, sa.func.count()).where(*self._mine(T, run_id)).group_by(T.status)
        with self.engine.connect() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def _mine(self, columns: Any, parent: str) -> tuple[sa.ColumnElement[bool], ...]:
        return (columns.project_id == self.project, columns.parent_id == parent)

    def _insert(self, table: sa.Table, record: Any) -> None:
        with writing(self.engine).begin() as connection:
            connection.execute(sa.insert(table).values(**{**columns_of(record), "project_id": self.project}))

    def _one(self, noun: str, kind: type[S], query: sa.Select[Any], asked: str) -> S:
        return record_of(kind, only_row(self.engine, query, noun, asked))


def open_runs(engine: sa.Engine) -> tuple[EvalRun, ...]:
    """The runs of all projects that have not ended, by age."""
    query = sa.select(eval_runs).where(R.status.in_(UNENDED)).order_by(R.created, R.id)
    with engine.connect() as connection:
        return tuple(record_of(EvalRun, row) for row in connection.execute(query))
