"""Decisions of the moderation filter."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "moderation_decisions",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("project_id", sa.Text, sa.ForeignKey("projects.id"), nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("side", sa.Text, nullable=False),
        sa.Column("place", sa.Text, nullable=False),
        sa.Column("category", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("content", sa.Text),
        sa.Column("created", sa.BigInteger, nullable=False),
    )
    op.create_index(
        "ix_moderation_decisions_project_id_created", "moderation_decisions", ["project_id", "created"]
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("moderation_decisions")
