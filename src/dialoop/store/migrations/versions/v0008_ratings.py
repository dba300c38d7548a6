"""What users thought of answers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "ratings",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("project_id", sa.Text, sa.ForeignKey("projects.id"), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("value", sa.Float, nullable=False),
        sa.Column("target", sa.Text),
        sa.Column("comment", sa.Text),
        sa.Column("trial", sa.Text),
        sa.Column("plan", sa.Text),
        sa.Column("arm", sa.Text),
        sa.Column("subject", sa.Text),
        sa.Column("created", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_ratings_project_id_trial_created", "ratings", ["project_id", "trial", "created"])


def downgrade() -> None:
    """Drop it."""
    op.drop_table("ratings")
