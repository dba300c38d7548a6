"""Decisions of the moderation filter, and responses."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "moderation_decisions",
        *_of_a_project(),
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
    op.create_table(
        "responses",
        *_of_a_project(),
        sa.Column("previous_id", sa.Text),
        sa.Column("body", sa.JSON, nullable=False),
        sa.Column("input", sa.JSON, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_responses_project_id_created", "responses", ["project_id", "created"])


def downgrade() -> None:
    """Drop them."""
    op.drop_table("responses")
    op.drop_table("moderation_decisions")


def _of_a_project() -> list[sa.Column[str]]:
    return [
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("project_id", sa.Text, sa.ForeignKey("projects.id"), nullable=False),
    ]
