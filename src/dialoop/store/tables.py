"""The tables, as the newest migration leaves them. Times are UTC microseconds, paths lie below the home."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

metadata = MetaData(naming_convention=NAMING)

projects = Table(
    "projects",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("created", BigInteger, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, ForeignKey("projects.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("recipe", JSON, nullable=False),
    Column("inputs", JSON, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("code_version", Text, nullable=False),
    Column("started", BigInteger, nullable=False),
    Column("finished", BigInteger),
    Index(None, "project_id", "started"),
)

model_versions = Table(
    "model_versions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, ForeignKey("projects.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("base", Text),
    Column("data_hash", Text),
    Column("recipe", JSON, nullable=False),
    Column("code_version", Text, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("files", JSON, nullable=False),
    Column("template_hash", Text),
    Column("run_id", Text, ForeignKey("runs.id")),
    Column("created", BigInteger, nullable=False),
    Column("alias", Text),
    UniqueConstraint("project_id", "name", "version"),
    Index(None, "project_id", "base"),
    Index(None, "alias", unique=True),
)

reports = Table(
    "reports",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, ForeignKey("projects.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("path", Text),
    Column("summary", JSON, nullable=False),
    Column("run_id", Text, ForeignKey("runs.id")),
    Column("created", BigInteger, nullable=False),
    Index(None, "project_id", "created"),
)

files = Table(
    "files",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, ForeignKey("projects.id"), nullable=False),
    Column("filename", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger),
    Index(None, "project_id", "purpose", "id"),
    Index(None, "expires"),
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, ForeignKey("projects.id"), nullable=False),
    Column("filename", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("mime_type", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("seconds", BigInteger),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Index(None, "status", "expires"),
)

upload_parts = Table(
    "upload_parts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, ForeignKey("projects.id"), nullable=False),
    Column("upload_id", Text, ForeignKey("uploads.id"), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("created", BigInteger, nullable=False),
    Index(None, "upload_id"),
)

stored_completions = Table(
    "stored_completions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, ForeignKey("projects.id"), nullable=False),
    Column("model", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("request", JSON, nullable=False),
    Column("messages", JSON, nullable=False),
    Column("completion", JSON, nullable=False),
    Column("metadata", JSON, nullable=False),
    Index(None, "project_id", "model", "id"),
    Index(None, "created"),
)

stored_metadata = Table(
    "stored_metadata",
    metadata,
    Column("completion_id", Text, ForeignKey("stored_completions.id", ondelete="CASCADE"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Column("project_id", Text, ForeignKey("projects.id"), nullable=False),
    Index(None, "project_id", "key", "value", "completion_id"),
)

batches = Table(
    "batches",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, ForeignKey("projects.id"), nullable=False),
    Column("key_id", Text),
    Column("endpoint", Text, nullable=False),
    Column("input_file_id", Text, nullable=False),
    Column("completion_window", Text, nullable=False),
    Column("metadata", JSON, nullable=False),
    Column("output_seconds", BigInteger),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("times", JSON, nullable=False),
    Column("models", JSON, nullable=False),
    Column("total", Integer, nullable=False),
    Column("completed", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("usage", JSON, nullable=False),
    Column("errors", JSON, nullable=False),
    Column("output_file_id", Text),
    Column("error_file_id", Text),
    Index(None, "project_id", "id"),
    Index(None, "status"),
)
