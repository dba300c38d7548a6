"""Fine-tuned models beside the served ones, and the runner of the jobs that make them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dialoop.serve.fine_tuning import Tuning
    from dialoop.serve.tuned import TunedModels
    from dialoop.store.registry import Store
    from dialoop.types import Engine, ModelRef


def with_tuning(
    engine: Engine,
    store: Store,
    refs: Sequence[ModelRef],
    start: Callable[[ModelRef], Engine],
    *,
    limit: int,
    at_once: int = 1,
) -> tuple[TunedModels, Tuning]:
    """`engine`, which serves `refs`, with the fine-tuned models of the store; and what trains more of them.

    start: an engine of one model that needs its own; limit: of these at a time.  at_once: jobs side by side.
    """
    from dialoop.engine.pool import Pool
    from dialoop.jobs.runner import JobRunner
    from dialoop.serve.fine_tuning import Tuning
    from dialoop.serve.tuned import TunedModels

    bases = {ref.name: ref for ref in refs}
    models = TunedModels(Pool(engine, start, limit=limit), store, bases)
    return models, Tuning(JobRunner(store, models, at_once=at_once), models, bases)
