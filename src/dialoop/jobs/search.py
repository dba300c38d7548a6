"""Many trials of one recipe, by one process or several, and the best of them written as a recipe."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from threading import Thread
from typing import Any

import tomli_w

from dialoop.config import PreferenceObjective, TuneRecipe
from dialoop.data.dataset import Dataset
from dialoop.errors import DataError, DialoopError, TrainError
from dialoop.jobs.given import by_version, given, models_of
from dialoop.store.lease import held
from dialoop.store.registry import Store
from dialoop.train.search import Search, Tried, importances

OnTrial = Callable[[Tried], None]


@dataclass(frozen=True, slots=True)
class Searched:
    """What a search came to. importance: share of each field; recipe: path of the best one, None for none."""

    folder: Path
    trials: tuple[Tried, ...]
    best: Tried | None
    importance: dict[str, float]
    interrupted: bool
    recipe: Path | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is told. alone: it makes one trial and ends, so that memory is measured by trial."""

    recipe: TuneRecipe
    home: Path
    folder: Path
    threads: int
    alone: bool = False


def run_search(
    recipe: TuneRecipe,
    home: Path,
    folder: Path,
    *,
    workers: int = 1,
    lineup: Sequence[Mapping[str, Any]] = (),
    alone: bool = False,
    on_trial: OnTrial = lambda tried: None,
) -> Searched:
    """Search in `folder`, going on with what lies there.

    lineup: values of the first trials, for a new search; drawn where empty.  alone: as in `Order`.

    Raises TrainError where another search works in `folder`.
    """
    with Store.open(home) as store:
        recipe = by_version(recipe, store)
    with Store.open(home) as store, _sole(folder), Search(recipe, folder) as search:
        base, _ = models_of(recipe, store)
        search.take_up()
        search.line_up(lineup)
        order = Order(recipe, home, folder, _threads(workers), alone)
        run = store.runs.start("search", recipe.model_dump(mode="json"), {"base": base.name})
        try:
            whole = _apart(order, workers, on_trial) if workers > 1 or alone else _here(order, on_trial)
        except BaseException:
            store.runs.finish(run.id, "failed", {})
            raise
        found = _found(search, interrupted=not whole)
        store.runs.finish(run.id, "completed" if whole else "cancelled", _summary(found))
    return found


def _found(search: Search, *, interrupted: bool) -> Searched:
    best, path = search.best(), None
    if best is not None:
        path = search.folder / "best.toml"
        told = search.recipe_of(best.values).model_dump(mode="json", exclude_unset=True, exclude_none=True)
        path.write_text(tomli_w.dumps({"kind": "tune", **told}), encoding="utf-8")
    trials = tuple(search.ended())
    return Searched(search.folder, trials, best, importances(search.study), interrupted, path)


def _summary(found: Searched) -> dict[str, Any]:
    best = found.best
    told = {} if best is None else {"trial": best.number, "loss": best.loss, "values": dict(best.values)}
    return {"trials": len(found.trials), "best": told, "importance": found.importance}


@contextmanager
def _sole(folder: Path) -> Iterator[None]:
    """Hold the search, and see that no worker of a fallen one is still leaving."""
    with held(folder / ".search") as mine:
        busy = not mine
        for path in folder.glob(".worker-*") if mine else ():
            with held(path) as free:
                busy = busy or not free
        if busy:
            raise TrainError(f"{folder}: another search works here: wait for it, or choose another --run")
        yield


def _threads(workers: int) -> int:
    return max(1, (os.cpu_count() or 1) // workers)


def _here(order: Order, on_trial: OnTrial) -> bool:
    """Make trials in this process until the budget is used up; False where it was interrupted."""
    datasets = _Datasets(order.folder / "scratch" / str(os.getpid()))
    with Search(order.recipe, order.folder) as search, Store.open(order.home) as store:
        while (trial := search.ask()) is not None:
            recipe = search.recipe_of(trial.user_attrs["values"])
            dataset, (base, teacher) = datasets.of(recipe, store), models_of(recipe, store)
            told = search.run(trial, base, dataset.train, dataset.valid, teacher)
            if told is None:
                return False
            on_trial(told)
            if order.alone:
                break
    return True


class _Datasets:
    """The rows of the last recipe, read anew only where another wants others."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._last: tuple[TuneRecipe, Dataset[Any]] | None = None

    def of(self, recipe: TuneRecipe, store: Store) -> Dataset[Any]:
        if self._last is None or not _same_rows(self._last[0], recipe):
            dataset = given(store, recipe, self._scratch).learnt
            if not dataset.train or not dataset.valid:
                raise DataError(
                    f"{len(dataset.train)} conversations to train on, {len(dataset.valid)} to validate on: "
                    f"a search goes by validation: give more data, or a larger data.split.valid"
                )
            self._last = recipe, dataset
        return self._last[1]


def _same_rows(one: TuneRecipe, other: TuneRecipe) -> bool:
    learns = [isinstance(each.objective, PreferenceObjective) for each in (one, other)]
    return one.data == other.data and learns[0] == learns[1]


def _apart(order: Order, workers: int, on_trial: OnTrial) -> bool:
    """The same in processes of their own; a worker that falls ends the search with an error."""
    with Search(order.recipe, order.folder) as search:
        while not search.spent():
            codes = _round(order, workers, on_trial)
            if {INTERRUPTED, -signal.SIGTERM} & codes:
                return False
            if codes != {0}:
                raise TrainError("a worker fell: the same command takes its trial up again")
    return True


FELL, INTERRUPTED = 1, 75


def _round(order: Order, workers: int, on_trial: OnTrial) -> set[int]:
    """Start the workers and hear them to their end; their exit codes."""
    context = get_context("spawn")
    started, pipes = [], []
    for number in range(workers):
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(order, number, theirs))
        process.start()
        theirs.close()
        started.append(process)
        pipes.append(ours)
    with _passed_on([process.pid for process in started if process.pid]):
        _hear(pipes, on_trial)
        for process in started:
            process.join()
    for pipe in pipes:
        pipe.close()
    return {process.exitcode or 0 for process in started}


def _hear(pipes: Sequence[Connection], on_trial: OnTrial) -> None:
    """What the workers send, until each has ended. Raises the first error that came."""
    open_, errors = set(pipes), []
    while open_:
        for pipe in open_.intersection(wait(open_)):
            try:
                told = pipe.recv()
            except (EOFError, OSError):
                open_.remove(pipe)
                continue
            if isinstance(told, DialoopError):
                errors.append(told)
            else:
                on_trial(told)
    if errors:
        raise errors[0]


@contextmanager
def _passed_on(children: list[int]) -> Iterator[None]:
    """SIGTERM goes to the children; Ctrl-C they get themselves, from the terminal."""

    def pass_on(number: int, frame: object) -> None:
        for child in children:
            os.kill(child, signal.SIGTERM)

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, pass_on)}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _work(order: Order, number: int, pipe: Any) -> None:
    """A worker: what it made and what went wrong go through `pipe`, whose other end it must not outlive."""
    import torch

    torch.set_num_threads(order.threads)
    Thread(target=_leave_with_parent, args=(pipe,), daemon=True).start()
    code = 0
    with held(order.folder / f".worker-{number}"):
        try:
            code = 0 if _here(order, pipe.send) else INTERRUPTED
        except DialoopError as error:
            pipe.send(error)
        except KeyboardInterrupt:
            code = INTERRUPTED
        except Exception:
            traceback.print_exc()
            code = FELL
    os._exit(code)


def _leave_with_parent(pipe: Any) -> None:
    try:
        pipe.recv()
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)
