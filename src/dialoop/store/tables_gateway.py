"""Tables of what passes through a server: decisions of the moderation filter, and responses."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, ForeignKey, Index, Table, Text

from dialoop.store.tables import metadata

moderation_decisions = Table(
    "moderation_decisions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, ForeignKey("projects.id"), nullable=False),
    Column("request_id", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("side", Text, nullable=False),
    Column("place", Text, nullable=False),
    Column("category", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("content", Text),
    Column("created", BigInteger, nullable=False),
    Index(None, "project_id", "created"),
)

responses = Table(
    "responses",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, ForeignKey("projects.id"), nullable=False),
    Column("previous_id", Text),
    Column("body", JSON, nullable=False),
    Column("input", JSON, nullable=False),
    Column("created", BigInteger, nullable=False),
    Index(None, "project_id", "created"),
)
