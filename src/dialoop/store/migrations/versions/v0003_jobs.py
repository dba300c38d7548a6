"""Fine-tuning jobs, their events and checkpoints, the names that their models answer to; evaluations."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the tables, and the column for a second name of a model version."""
    _jobs()
    _events()
    _checkpoints()
    _evals()
    _eval_runs()
    _eval_items()
    op.add_column("model_versions", sa.Column("alias", sa.Text))
    op.create_index("ix_model_versions_alias", "model_versions", ["alias"], unique=True)


def downgrade() -> None:
    """Drop them."""
    op.drop_index("ix_model_versions_alias", "model_versions")
    op.drop_column("model_versions", "alias")
    for table in (
        "eval_items", "eval_runs", "evals",
        "fine_tuning_checkpoints", "fine_tuning_events", "fine_tuning_jobs",
    ):  # fmt: skip
        op.drop_table(table)


def _identified(parent: str | None = None) -> Sequence[sa.Column[str]]:
    columns = [
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("project_id", sa.Text, sa.ForeignKey("projects.id"), nullable=False),
    ]
    if parent is not None:
        columns.append(sa.Column("parent_id", sa.Text, sa.ForeignKey(f"{parent}.id"), nullable=False))
    return columns


def _jobs() -> None:
    op.create_table(
        "fine_tuning_jobs",
        *_identified(),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("base", sa.Text, nullable=False),
        sa.Column("training_file", sa.Text, nullable=False),
        sa.Column("validation_file", sa.Text),
        sa.Column("suffix", sa.Text),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("method", sa.Text, nullable=False),
        sa.Column("settings", sa.JSON, nullable=False),
        sa.Column("metadata", sa.JSON),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("error", sa.JSON),
        sa.Column("hyperparameters", sa.JSON, nullable=False),
        sa.Column("recipe", sa.JSON),
        sa.Column("fine_tuned_model", sa.Text),
        sa.Column("result_files", sa.JSON, nullable=False),
        sa.Column("trained_tokens", sa.BigInteger),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("steps", sa.Integer),
        sa.Column("read", sa.BigInteger, nullable=False),
        sa.Column("falls", sa.Integer, nullable=False),
        sa.Column("estimated_finish", sa.BigInteger),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("finished", sa.BigInteger),
    )
    op.create_index("ix_fine_tuning_jobs_project_id_created", "fine_tuning_jobs", ["project_id", "created"])
    op.create_index("ix_fine_tuning_jobs_status", "fine_tuning_jobs", ["status"])


def _events() -> None:
    op.create_table(
        "fine_tuning_events",
        *_identified("fine_tuning_jobs"),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("level", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("data", sa.JSON),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("parent_id", "seq", name="uq_fine_tuning_events_parent_id_seq"),
    )


def _checkpoints() -> None:
    op.create_table(
        "fine_tuning_checkpoints",
        *_identified("fine_tuning_jobs"),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("metrics", sa.JSON, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("parent_id", "step", name="uq_fine_tuning_checkpoints_parent_id_step"),
    )


def _evals() -> None:
    op.create_table(
        "evals",
        *_identified(),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("data_source_config", sa.JSON, nullable=False),
        sa.Column("testing_criteria", sa.JSON, nullable=False),
        sa.Column("metadata", sa.JSON),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("updated", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_evals_project_id_created", "evals", ["project_id", "created"])


def _eval_runs() -> None:
    op.create_table(
        "eval_runs",
        *_identified("evals"),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("data_source", sa.JSON, nullable=False),
        sa.Column("metadata", sa.JSON),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("error", sa.JSON),
        sa.Column("summary", sa.JSON),
        sa.Column("created", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_eval_runs_parent_id_created", "eval_runs", ["parent_id", "created"])
    op.create_index("ix_eval_runs_status", "eval_runs", ["status"])


def _eval_items() -> None:
    op.create_table(
        "eval_items",
        *_identified("eval_runs"),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("item", sa.JSON, nullable=False),
        sa.Column("sample", sa.JSON, nullable=False),
        sa.Column("results", sa.JSON, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("parent_id", "seq", name="uq_eval_items_parent_id_seq"),
    )
