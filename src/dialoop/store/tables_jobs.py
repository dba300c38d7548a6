"""The tables of fine-tuning jobs and of evaluations."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, ForeignKey, Index, Integer, Table, Text, UniqueConstraint

from dialoop.store.tables import metadata


def _identified(table: str | None = None) -> list[Column[str]]:
    """The id and the project; with `table`, what it belongs to."""
    columns = [
        Column("id", Text, primary_key=True),
        Column("project_id", Text, ForeignKey("projects.id"), nullable=False),
    ]
    if table is not None:
        columns.append(Column("parent_id", Text, ForeignKey(f"{table}.id"), nullable=False))
    return columns


fine_tuning_jobs = Table(
    "fine_tuning_jobs",
    metadata,
    *_identified(),
    Column("model", Text, nullable=False),
    Column("base", Text, nullable=False),
    Column("training_file", Text, nullable=False),
    Column("validation_file", Text),
    Column("suffix", Text),
    Column("seed", BigInteger, nullable=False),
    Column("method", Text, nullable=False),
    Column("settings", JSON, nullable=False),
    Column("metadata", JSON),
    Column("status", Text, nullable=False),
    Column("error", JSON),
    Column("hyperparameters", JSON, nullable=False),
    Column("recipe", JSON),
    Column("fine_tuned_model", Text),
    Column("result_files", JSON, nullable=False),
    Column("trained_tokens", BigInteger),
    Column("step", Integer, nullable=False),
    Column("steps", Integer),
    Column("read", BigInteger, nullable=False),
    Column("falls", Integer, nullable=False),
    Column("estimated_finish", BigInteger),
    Column("created", BigInteger, nullable=False),
    Column("finished", BigInteger),
    Index(None, "project_id", "created"),
    Index(None, "status"),
)

fine_tuning_events = Table(
    "fine_tuning_events",
    metadata,
    *_identified("fine_tuning_jobs"),
    Column("seq", Integer, nullable=False),
    Column("level", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("data", JSON),
    Column("created", BigInteger, nullable=False),
    UniqueConstraint("parent_id", "seq"),
)

fine_tuning_checkpoints = Table(
    "fine_tuning_checkpoints",
    metadata,
    *_identified("fine_tuning_jobs"),
    Column("step", Integer, nullable=False),
    Column("model", Text, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("created", BigInteger, nullable=False),
    UniqueConstraint("parent_id", "step"),
)

evals = Table(
    "evals",
    metadata,
    *_identified(),
    Column("name", Text, nullable=False),
    Column("data_source_config", JSON, nullable=False),
    Column("testing_criteria", JSON, nullable=False),
    Column("metadata", JSON),
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Index(None, "project_id", "created"),
)

eval_runs = Table(
    "eval_runs",
    metadata,
    *_identified("evals"),
    Column("name", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("data_source", JSON, nullable=False),
    Column("metadata", JSON),
    Column("status", Text, nullable=False),
    Column("error", JSON),
    Column("summary", JSON),
    Column("created", BigInteger, nullable=False),
    Column("key_id", Text),
    Index(None, "parent_id", "created"),
    Index(None, "status"),
)

eval_items = Table(
    "eval_items",
    metadata,
    *_identified("eval_runs"),
    Column("seq", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("item", JSON, nullable=False),
    Column("sample", JSON, nullable=False),
    Column("results", JSON, nullable=False),
    Column("created", BigInteger, nullable=False),
    UniqueConstraint("parent_id", "seq"),
)
