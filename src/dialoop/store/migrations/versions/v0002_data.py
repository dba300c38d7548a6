"""Files."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the tables of what clients upload and keep."""
    _files()


def downgrade() -> None:
    """Drop them."""
    op.drop_table("files")


def _project() -> list[sa.Column[str]]:
    return [
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("project_id", sa.Text, sa.ForeignKey("projects.id"), nullable=False),
    ]


def _files() -> None:
    op.create_table(
        "files",
        *_project(),
        sa.Column("filename", sa.Text, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("expires", sa.BigInteger),
    )
    op.create_index("ix_files_project_id_purpose_id", "files", ["project_id", "purpose", "id"])
    op.create_index("ix_files_expires", "files", ["expires"])
