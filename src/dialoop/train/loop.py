"""The one training loop: every objective and every tuning method runs through `train`."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from dialoop.errors import TrainError
from dialoop.train.batch import Batch, halved
from dialoop.train.checkpoint import Checkpoint, latest, save, sole_writer
from dialoop.train.interrupt import Interrupt
from dialoop.train.memory import Halvings, is_out_of_memory
from dialoop.train.objective import Tally
from dialoop.train.optim import Optimizer
from dialoop.train.world import world

MAX_SKIPPED = 5
"""Updates in a row that may be left out because their gradient is not finite."""
MAX_RESTORED = 3
"""How often a run may go back to its last checkpoint's weights for that."""
RESTORED_RATE = 0.5
"""Factor of the learning rate from then on."""
PACE = 0.1
"""Weight of the last update's time in the running mean that the time left is told from."""
TOO_LARGE = (
    "memory ended in one of the processes that share the model: begin again with a smaller "
    "train.batch_tokens, or with more processes"
)
log = logging.getLogger(__name__)


class Plan(Protocol):
    """What is learnt when: pure functions of the update's number, so that a run resumes by counting."""

    @property
    def steps(self) -> int: ...

    def batches(self, step: int) -> Sequence[Batch]: ...

    def rate(self, step: int) -> float: ...


@dataclass(frozen=True, slots=True)
class Progress:
    """After one update. loss: nats per supervised token, or of a pair; seconds: in updates, resumed ones too.

    measures: what else the objective tells of the update and, as `valid_...`, of the validation after it.
    """

    step: int
    steps: int
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int
    tokens_per_second: float
    seconds: float
    seconds_left: float
    valid_loss: float | None = None
    measures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Judge:
    """Validation: `loss()` every `every` updates and after the last; `patience` bad ones in a row stop.

    every, patience: 0 = never.  by: a measure that `loss()` adds to the tally: where it is highest the
    weights are best, and of equals where the loss is lowest; "" = where the loss is lowest.
    """

    loss: Callable[[], float]
    every: int
    patience: int
    by: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """How a call of `train` ended; an interrupted one resumes when called again on the same folder."""

    step: int
    tokens: int
    seconds: float
    interrupted: bool = False
    stopped_early: bool = False
    best_step: int | None = None
    best_loss: float | None = None


@dataclass(slots=True)
class _State:
    """What changes from update to update besides the weights."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    pace: float | None = None
    skipped: int = 0
    restored: int = 0
    bad: int = 0
    best_step: int | None = None
    best_loss: float | None = None
    best_measure: float | None = None
    best: dict[str, Tensor] = field(default_factory=dict)


def train(
    loss: Callable[[Batch], Tensor],
    optimizer: Optimizer,
    plan: Plan,
    folder: Path,
    *,
    checkpoint_every: int,
    judge: Judge | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    tally: Tally | None = None,
) -> Result:
    """Run `plan` to its end, or to the first interrupt; resume what lies in `folder`.

    loss: weighted sum of the token losses of a batch, or sum of another kind. Gradients of an update are
    divided by what its batches are worth, so neither accumulation nor the number of processes that have
    joined (dialoop.train.world) changes the objective. Weights that were best under `judge` are put back at
    the end. tally: what `loss` measures beside itself.
    Raises TrainError when the gradient stays NaN or another process trains in `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    here, tally = world(), tally or Tally()
    with sole_writer(folder) if here.leads else nullcontext(), Interrupt() as wish:
        state = _resume(folder, optimizer)
        journal, saved = Journal(folder / "metrics.jsonl", state.step) if here.leads else None, state.step
        halvings = Halvings(folder / "halvings.jsonl", writes=here.leads)
        while not (_ended(judge, plan, state) or here.any(wish.made)):
            progress = _update(loss, optimizer, plan, state, halvings, tally)
            progress = replace(progress, measures=tally.taken())
            if state.skipped > MAX_SKIPPED:
                _restore(folder, optimizer, state, progress)
            if judge is not None and _is_due(judge, plan, state):
                progress = _validate(judge, optimizer, state, progress, tally)
            if journal is not None:
                journal.write(progress)
                on_progress(progress)
            if state.step % checkpoint_every == 0 and not state.skipped:
                _save(folder, optimizer, state)
                saved = state.step
        if saved != state.step:
            _save(folder, optimizer, state)
    ended, short = _ended(judge, plan, state), state.step < plan.steps
    if ended:
        optimizer.put_back(state.best or optimizer.held())
    return Result(
        state.step, state.tokens, state.seconds, not ended, ended and short, state.best_step, state.best_loss
    )


def _ended(judge: Judge | None, plan: Plan, state: _State) -> bool:
    """Whether all updates are done, or validation has been bad for too long."""
    return state.step >= plan.steps or (judge is not None and 0 < judge.patience <= state.bad)


def _is_due(judge: Judge, plan: Plan, state: _State) -> bool:
    return state.step == plan.steps or (judge.every > 0 and state.step % judge.every == 0)


def _update(
    loss: Callable[[Batch], Tensor],
    optimizer: Optimizer,
    plan: Plan,
    state: _State,
    halvings: Halvings,
    tally: Tally,
) -> Progress:
    started = time.perf_counter()
    batches = plan.batches(state.step)
    total, weight, tokens = _gradients(loss, optimizer, batches, state.step, halvings, tally)
    rate = plan.rate(state.step) * RESTORED_RATE**state.restored
    norm = optimizer.step(rate, 1 / max(weight, 1e-9))
    state.skipped = 0 if math.isfinite(norm) else state.skipped + 1
    state.step += 1
    seconds = time.perf_counter() - started
    state.tokens += tokens
    state.seconds += seconds
    state.pace = seconds if state.pace is None else state.pace + PACE * (seconds - state.pace)
    left = (plan.steps - state.step) * state.pace
    mean, speed = total / max(weight, 1e-9), tokens / seconds
    return Progress(state.step, plan.steps, mean, rate, norm, state.tokens, speed, state.seconds, left)


def _gradients(
    loss: Callable[[Batch], Tensor],
    optimizer: Optimizer,
    batches: Sequence[Batch],
    step: int,
    halvings: Halvings,
    tally: Tally,
) -> tuple[float, float, int]:
    """Summed loss, weights and tokens of an update, begun anew with half the batch where memory ends."""
    chance, times, here = _chance(), halvings.at(step), world()
    pieces = [piece for batch in batches for piece in halved(batch, times + here.halvings)]
    share = here.share(pieces)
    sums, ended = _backward(loss, share)
    if optimizer.shares:
        if ended is not None:  # the others wait for this process inside a layer
            raise TrainError(f"update {step + 1}: {TOO_LARGE}") from ended
        _keep_step(loss, pieces, -(-len(pieces) // here.size) - len(share), tally)
    if not here.any(ended is not None):
        here.sum_gradients(optimizer.alone)
        total, weight, tokens = here.total(*sums)
        return total, weight, int(tokens)
    if all(piece.rows < 2 for piece in pieces):
        raise TrainError(
            f"update {step + 1}: memory ended with one row at a time: lower train.max_length, or "
            f"hold the base in few bits (method.base_precision)"
        ) from ended
    del ended
    optimizer.clear()
    _take_chance(chance)
    log.warning("update %d: memory ended: batches are halved %d times", step + 1, halvings.more(step))
    return _gradients(loss, optimizer, batches, step, halvings, tally)


def _keep_step(loss: Callable[[Batch], Tensor], pieces: Sequence[Batch], passes: int, tally: Tally) -> None:
    """Passes that are worth nothing: where processes share layers, all must go through them as often."""
    with tally.deaf():
        for _ in range(passes):
            loss(pieces[0]).mul(0.0).backward()  # type: ignore[no-untyped-call]


def _backward(
    loss: Callable[[Batch], Tensor], pieces: Sequence[Batch]
) -> tuple[tuple[float, float, int], Exception | None]:
    """Summed loss, weights and tokens; and the error where memory ended."""
    total, weight, tokens = 0.0, 0.0, 0
    try:
        for piece in pieces:
            part = loss(piece)
            part.backward()  # type: ignore[no-untyped-call]
            total += float(part.detach())
            weight += piece.worth
            tokens += len(piece.token_ids)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return (0.0, 0.0, 0), error.with_traceback(None)
    return (total, weight, tokens), None


def _restore(folder: Path, optimizer: Optimizer, state: _State, progress: Progress) -> None:
    """Back to the weights of the last checkpoint, on to the next data, at a lower rate.

    Raises TrainError where there is none, or where it has been done too often.
    """
    found = None
    if state.restored < MAX_RESTORED:
        found = latest(folder / "checkpoints", lambda checkpoint: not checkpoint.values["skipped"])
    if found is None:
        raise TrainError(
            f"update {state.step}: the gradient was not finite {state.skipped} times in a row: "
            f"begin a new run with a lower learning rate than {progress.learning_rate:.2g}, or mend "
            f"the base's weights"
        )
    optimizer.load(_of_optimizer(optimizer.scattered(found.tensors)))
    state.restored, state.skipped = state.restored + 1, 0
    log.warning(
        "update %d: the gradient stayed not finite: the weights of update %d are back, at %g of the rate",
        state.step, found.step, RESTORED_RATE**state.restored,
    )  # fmt: skip


def _of_optimizer(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(("best.", "rng."))}


def _chance() -> dict[str, Tensor]:
    """The states of torch's generators."""
    states = {"rng.torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["rng.cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        states["rng.mps"] = torch.mps.get_rng_state()
    return states


def _take_chance(states: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(states["rng.torch"])
    if "rng.cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["rng.cuda"])
    if "rng.mps" in states and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["rng.mps"])


def _validate(
    judge: Judge,
    optimizer: Optimizer,
    state: _State,
    progress: Progress,
    tally: Tally,
) -> Progress:
    here = world()
    value = here.told(judge.loss() if here.leads or optimizer.shares else 0.0)
    measures = {**progress.measures, **{f"valid_{name}": mean for name, mean in tally.taken().items()}}
    measure = measures[f"valid_{judge.by}"] if judge.by else 0.0
    before = (state.best_measure or 0.0, -math.inf if state.best_loss is None else -state.best_loss)
    if (measure, -value) > before:
        state.best_loss, state.best_measure = value, measure
        state.best_step, state.bad = state.step, 0
        state.best = optimizer.kept()
    else:
        state.bad += 1
    return replace(progress, valid_loss=value, measures=measures)


def _save(folder: Path, optimizer: Optimizer, state: _State) -> None:
    """What is written does not depend on how many processes there are."""
    here = world()
    best = {f"best.{name}": tensor for name, tensor in state.best.items()}
    tensors = optimizer.gathered({**optimizer.state(), **best})
    if here.leads:
        values = {k: v for k, v in vars_of(state).items() if k != "best"}
        save(folder / "checkpoints", Checkpoint(state.step, {**tensors, **_chance()}, values))
    here.wait()


def _resume(folder: Path, optimizer: Optimizer) -> _State:
    found = latest(folder / "checkpoints")
    if found is None:
        return _State()
    _take_chance(found.tensors)
    tensors = optimizer.scattered(found.tensors)
    best = {
        name.removeprefix("best."): tensor for name, tensor in tensors.items() if name.startswith("best.")
    }
    optimizer.load(_of_optimizer(tensors))
    return _State(**found.values, best=best)


def vars_of(state: _State) -> dict[str, Any]:
    """The fields of a slotted dataclass, tensors not copied."""
    return {name: getattr(state, name) for name in _State.__dataclass_fields__}


class Journal:
    """metrics.jsonl: one line an update. Lines after the checkpoint that a run resumes from are dropped."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        kept = [row for row in read_journal(path) if row["step"] <= step]
        draft = path.with_name(path.name + ".draft")
        draft.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        os.replace(draft, path)

    def write(self, progress: Progress) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(progress)) + "\n")


def read_journal(path: Path) -> list[Mapping[str, Any]]:
    """The rows of a metrics.jsonl; a last line cut by a crash is left out."""
    rows: list[Mapping[str, Any]] = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return rows
