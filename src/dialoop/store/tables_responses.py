"""The table of responses that are kept to be read and gone on from."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, ForeignKey, Index, Table, Text

from dialoop.store.tables import metadata

responses = Table(
    "responses",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, ForeignKey("projects.id"), nullable=False),
    Column("previous_id", Text),
    Column("input", JSON, nullable=False),
    Column("response", JSON, nullable=False),
    Column("created", BigInteger, nullable=False),
    Index(None, "created"),
)
