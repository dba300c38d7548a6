"""What a store adds to the server besides data: fine-tuning jobs and evaluations."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from dialoop.serve.background import Work
from dialoop.serve.eval_runner import EvalRunner
from dialoop.serve.eval_runs import eval_item_routes, eval_run_routes
from dialoop.serve.evals import eval_routes
from dialoop.serve.fine_tuning import Tuning, fine_tuning_routes
from dialoop.serve.inside import Inside
from dialoop.store.registry import Store
from dialoop.types import Catalogue


def add_learning(
    app: FastAPI, inside: Inside, catalogue: Catalogue, store: Store, tuning: Tuning | None, **bounds: Any
) -> list[Work]:
    """Add the routes to `app`; what has to run beside them. bounds: of bodies, as in `make_app`."""
    runner = EvalRunner(store, inside.post)
    app.include_router(fine_tuning_routes(catalogue, store, tuning, **bounds))
    app.include_router(eval_routes(catalogue, store, **bounds))
    app.include_router(eval_run_routes(catalogue, store, runner, **bounds))
    app.include_router(eval_item_routes(store))
    return [runner.run] if tuning is None else [runner.run, tuning.runner.run]
