"""The table of what users thought of answers."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, ForeignKey, Index, Table, Text

from dialoop.store.tables import metadata

ratings = Table(
    "ratings",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, ForeignKey("projects.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("value", Float, nullable=False),
    Column("target", Text),
    Column("comment", Text),
    Column("trial", Text),
    Column("plan", Text),
    Column("arm", Text),
    Column("subject", Text),
    Column("created", BigInteger, nullable=False),
    Index(None, "project_id", "trial", "created"),
)
