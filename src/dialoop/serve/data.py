"""What a store adds to the server: files, uploads, stored completions and responses, and batches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from fastapi import FastAPI

from dialoop.serve.background import Work
from dialoop.serve.batch_runner import BatchRunner
from dialoop.serve.batches import batch_routes
from dialoop.serve.files import file_routes
from dialoop.serve.gate import Gate
from dialoop.serve.house import Retention, keep_house
from dialoop.serve.inside import Inside
from dialoop.serve.keeper import Keeper
from dialoop.serve.responses.kept import kept_response_routes
from dialoop.serve.stored import stored_routes
from dialoop.serve.uploads import upload_routes
from dialoop.store.registry import Store
from dialoop.types import Catalogue


def add_data(
    app: FastAPI,
    inside: Inside,
    busy: Callable[[], int],
    catalogue: Catalogue,
    store: Store,
    keeper: Keeper,
    *,
    retention: Retention,
    max_file_bytes: int,
    batch_rows: int,
    max_body_bytes: int,
    body_seconds: float,
) -> list[Work]:
    """Add the routes to `app`; what has to run beside them. busy: how many clients are being answered.

    retention: how long what is kept stays.
    """
    runner = BatchRunner(
        store, inside.post, Gate(batch_rows, busy),
        lambda: {served.name for served in catalogue.models()},
    )  # fmt: skip
    app.include_router(file_routes(store, max_file_bytes=max_file_bytes, body_seconds=body_seconds))
    app.include_router(
        upload_routes(
            store, max_file_bytes=max_file_bytes, max_body_bytes=max_body_bytes, body_seconds=body_seconds
        )
    )
    app.include_router(stored_routes(keeper, max_body_bytes=max_body_bytes, body_seconds=body_seconds))
    app.include_router(kept_response_routes(keeper))
    app.include_router(
        batch_routes(store, runner.wake, inside.has, max_body_bytes=max_body_bytes, body_seconds=body_seconds)
    )
    return [partial(keep_house, store, retention), runner.run]
