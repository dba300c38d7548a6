"""Files, uploads, stored completions and batches."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the tables of what clients upload and keep."""
    _files()
    _uploads()
    _stored_completions()
    _batches()


def downgrade() -> None:
    """Drop them."""
    for table in ("batches", "stored_metadata", "stored_completions", "upload_parts", "uploads", "files"):
        op.drop_table(table)


def _project() -> sa.Column[str]:
    return sa.Column("project_id", sa.Text, sa.ForeignKey("projects.id"), nullable=False)


def _id() -> sa.Column[str]:
    return sa.Column("id", sa.Text, primary_key=True)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def _time(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False)


def _json(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.JSON, nullable=False)


def _files() -> None:
    op.create_table(
        "files", _id(), _project(), _text("filename"), _text("purpose"), _time("bytes"), _time("created"),
        sa.Column("expires", sa.BigInteger),
    )  # fmt: skip
    op.create_index("ix_files_project_id_purpose_id", "files", ["project_id", "purpose", "id"])
    op.create_index("ix_files_expires", "files", ["expires"])


def _uploads() -> None:
    op.create_table(
        "uploads", _id(), _project(), _text("filename"), _text("purpose"), _text("mime_type"), _time("bytes"),
        sa.Column("seconds", sa.BigInteger), _time("created"), _time("expires"), _text("status"),
    )  # fmt: skip
    op.create_index("ix_uploads_status_expires", "uploads", ["status", "expires"])
    op.create_table(
        "upload_parts", _id(), _project(),
        sa.Column("upload_id", sa.Text, sa.ForeignKey("uploads.id"), nullable=False),
        _time("bytes"), _time("created"),
    )  # fmt: skip
    op.create_index("ix_upload_parts_upload_id", "upload_parts", ["upload_id"])


def _stored_completions() -> None:
    op.create_table(
        "stored_completions", _id(), _project(), _text("model"), _time("created"), _json("request"),
        _json("messages"), _json("completion"), _json("metadata"),
    )  # fmt: skip
    op.create_index(
        "ix_stored_completions_project_id_model_id", "stored_completions", ["project_id", "model", "id"]
    )
    owner = sa.ForeignKey("stored_completions.id", ondelete="CASCADE")
    op.create_table(
        "stored_metadata",
        sa.Column("completion_id", sa.Text, owner, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        _text("value"), _project(),
    )  # fmt: skip
    op.create_index(
        "ix_stored_metadata_project_id_key_value_completion_id", "stored_metadata",
        ["project_id", "key", "value", "completion_id"],
    )  # fmt: skip


def _batches() -> None:
    op.create_table(
        "batches", _id(), _project(), sa.Column("key_id", sa.Text), _text("endpoint"), _text("input_file_id"),
        _text("completion_window"), _json("metadata"), sa.Column("output_seconds", sa.BigInteger),
        _time("created"), _time("expires"), _text("status"), _json("times"), _json("models"),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("total", "completed", "failed")),
        _json("usage"), _json("errors"),
        *(sa.Column(name, sa.Text) for name in ("output_file_id", "error_file_id")),
    )  # fmt: skip
    op.create_index("ix_batches_project_id_id", "batches", ["project_id", "id"])
    op.create_index("ix_batches_status", "batches", ["status"])
