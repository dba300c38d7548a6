"""Who began a run of an evaluation, and indexes over the age of what is kept for a time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
AGED = ("responses", "stored_completions", "moderation_decisions")


def upgrade() -> None:
    """Add the column and the indexes."""
    with op.batch_alter_table("eval_runs") as table:
        table.add_column(sa.Column("key_id", sa.Text))
    for name in AGED:
        op.create_index(f"ix_{name}_created", name, ["created"])


def downgrade() -> None:
    """Take them back."""
    for name in AGED:
        op.drop_index(f"ix_{name}_created", name)
    with op.batch_alter_table("eval_runs") as table:
        table.drop_column("key_id")
