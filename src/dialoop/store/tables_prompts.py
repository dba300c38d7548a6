"""The table of prompt templates."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, ForeignKey, Integer, Table, Text, UniqueConstraint

from dialoop.store.tables import metadata

prompt_versions = Table(
    "prompt_versions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, ForeignKey("projects.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("hash", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("parent", Text),
    Column("evidence", JSON, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("promoted", BigInteger),
    UniqueConstraint("project_id", "name", "version"),
)
