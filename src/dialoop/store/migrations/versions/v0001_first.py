"""Projects, runs, model versions and reports."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the first tables."""
    _projects()
    _runs()
    _model_versions()
    _reports()


def downgrade() -> None:
    """Drop them."""
    for table in ("reports", "model_versions", "runs", "projects"):
        op.drop_table(table)


def _project() -> list[sa.Column[str]]:
    return [
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("project_id", sa.Text, sa.ForeignKey("projects.id"), nullable=False),
    ]


def _projects() -> None:
    op.create_table(
        "projects",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("name", name="uq_projects_name"),
    )


def _runs() -> None:
    op.create_table(
        "runs",
        *_project(),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("recipe", sa.JSON, nullable=False),
        sa.Column("inputs", sa.JSON, nullable=False),
        sa.Column("metrics", sa.JSON, nullable=False),
        sa.Column("code_version", sa.Text, nullable=False),
        sa.Column("started", sa.BigInteger, nullable=False),
        sa.Column("finished", sa.BigInteger),
    )
    op.create_index("ix_runs_project_id_started", "runs", ["project_id", "started"])


def _model_versions() -> None:
    op.create_table(
        "model_versions",
        *_project(),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("base", sa.Text),
        sa.Column("data_hash", sa.Text),
        sa.Column("recipe", sa.JSON, nullable=False),
        sa.Column("code_version", sa.Text, nullable=False),
        sa.Column("metrics", sa.JSON, nullable=False),
        sa.Column("files", sa.JSON, nullable=False),
        sa.Column("template_hash", sa.Text),
        sa.Column("run_id", sa.Text, sa.ForeignKey("runs.id")),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.UniqueConstraint(
            "project_id", "name", "version", name="uq_model_versions_project_id_name_version"
        ),
    )
    op.create_index("ix_model_versions_project_id_base", "model_versions", ["project_id", "base"])


def _reports() -> None:
    op.create_table(
        "reports",
        *_project(),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("path", sa.Text),
        sa.Column("summary", sa.JSON, nullable=False),
        sa.Column("run_id", sa.Text, sa.ForeignKey("runs.id")),
        sa.Column("created", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_reports_project_id_created", "reports", ["project_id", "created"])
