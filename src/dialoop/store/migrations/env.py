"""Read by Alembic alone: runs the steps on the connection that `dialoop.store.database` gives it."""

from __future__ import annotations

from alembic import context

from dialoop.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True
)
context.run_migrations()
