"""The table of what the moderation filter decided."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Table, Text

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
    Index(None, "created"),
)
