"""Prompt templates, by name and version."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "prompt_versions",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("project_id", sa.Text, sa.ForeignKey("projects.id"), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("parent", sa.Text),
        sa.Column("evidence", sa.JSON, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("promoted", sa.BigInteger),
        sa.UniqueConstraint(
            "project_id", "name", "version", name="uq_prompt_versions_project_id_name_version"
        ),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("prompt_versions")
