"""The one loop: accumulation, validation, early stopping, the journal, and numbers that are none."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from dialoop.config import OptimSettings
from dialoop.errors import TrainError
from dialoop.train.batch import Batch
from dialoop.train.loop import Judge, Progress, Result, read_journal, train
from dialoop.train.loss import cross_entropy
from dialoop.train.objective import Tally
from dialoop.train.optim import Optimizer

TOKENS = 24


@dataclass(frozen=True)
class Steps:
    """Random batches; `split` cuts the tokens of each update into that many."""

    steps: int
    split: int = 1

    def batches(self, step: int) -> Sequence[Batch]:
        draw = np.random.default_rng(step)
        ids, targets = draw.integers(0, 20, (2, TOKENS))
        weights = (draw.random(TOKENS) * (draw.random(TOKENS) < 0.6)).astype(np.float32)
        cuts = np.array_split(np.arange(TOKENS), self.split)
        return [Batch(ids[c], targets[c], weights[c], (len(c),)) for c in cuts]

    def rate(self, step: int) -> float:
        return 0.02


class Bigrams:
    """The smallest model that learns: an embedding and a head."""

    def __init__(self, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> None:
        draw = torch.Generator().manual_seed(0)
        made = [(torch.randn(20, 6, generator=draw) * scale).to(dtype) for _ in range(2)]
        self.weights = {"embed": Parameter(made[0]), "head": Parameter(made[1])}
        self.optimizer = Optimizer(self.weights, OptimSettings.model_validate({}))

    def loss(self, batch: Batch) -> Tensor:
        hidden = self.weights["embed"][torch.from_numpy(batch.token_ids)]
        targets, weights = torch.from_numpy(batch.targets), torch.from_numpy(batch.weights)
        return cross_entropy(hidden, self.weights["head"], targets, weights)

    def train(
        self, plan: Steps, folder: Path, *, judge: Judge | None = None, every: int = 5,
        on_progress: Callable[[Progress], None] = lambda progress: None, tally: Tally | None = None,
    ) -> Result:  # fmt: skip
        return train(
            self.loss,
            self.optimizer,
            plan,
            folder,
            checkpoint_every=every,
            judge=judge,
            on_progress=on_progress,
            tally=tally,
        )

    def embed(self) -> Tensor:
        return self.weights["embed"].detach().clone()


def test_an_update_of_four_small_batches_is_that_of_one_large(tmp_path: Path) -> None:
    whole, parts = Bigrams(), Bigrams()
    whole.train(Steps(3), tmp_path / "whole")
    parts.train(Steps(3, split=4), tmp_path / "parts")
    for name in whole.weights:
        torch.testing.assert_close(whole.weights[name], parts.weights[name], atol=1e-6, rtol=1e-5)
    losses = [
        [row["loss"] for row in read_journal(tmp_path / n / "metrics.jsonl")] for n in ("whole", "parts")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_loss_told_is_the_mean_over_the_weights(tmp_path: Path) -> None:
    model, plan = Bigrams(), Steps(1, split=3)
    with torch.no_grad():
        total = sum(float(model.loss(batch)) for batch in plan.batches(0))
    seen: list[Progress] = []
    model.train(plan, tmp_path, on_progress=seen.append)
    assert seen[0].loss == pytest.approx(total / sum(float(b.weights.sum()) for b in plan.batches(0)))
    assert (seen[0].step, seen[0].steps, seen[0].tokens) == (1, 1, TOKENS)


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first, again = Bigrams(), Bigrams()
    told = first.train(Steps(4), tmp_path)
    assert (told.step, told.interrupted, told.stopped_early) == (4, False, False)
    assert again.train(Steps(4), tmp_path).step == 4
    assert torch.equal(first.embed(), again.embed())
    assert len(read_journal(tmp_path / "metrics.jsonl")) == 4


@dataclass
class Verdicts:
    """Validation losses in a row, and the weights at each."""

    values: list[float]
    model: Bigrams

    def __post_init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self) -> float:
        self.seen.append(self.model.embed())
        return self.values[len(self.seen) - 1]


def judged(
    values: list[float], folder: Path, *, steps: int, every: int, patience: int
) -> tuple[Verdicts, Result]:
    model = Bigrams()
    verdicts = Verdicts(values, model)
    return verdicts, model.train(Steps(steps), folder, judge=Judge(verdicts, every, patience))


def test_bad_validations_in_a_row_stop_early_and_restore_the_best_weights(tmp_path: Path) -> None:
    verdicts, told = judged([3.0, 2.0, 2.5, 2.4, 1.0], tmp_path, steps=20, every=2, patience=2)
    assert (told.step, told.stopped_early, told.interrupted) == (8, True, False)
    assert (told.best_step, told.best_loss) == (4, 2.0)
    assert torch.equal(verdicts.model.embed(), verdicts.seen[1])
    assert not torch.equal(verdicts.seen[1], verdicts.seen[3])


def test_the_best_weights_may_be_those_of_the_highest_measure(tmp_path: Path) -> None:
    model, tally = Bigrams(), Tally()
    rights, seen = iter([0.0, 5.0, 7.0, 7.0, 7.0, 6.0]), list[Tensor]()
    losses = iter([1.0, 2.0, 3.0, 2.5, 2.7, 1.0])

    def verdict() -> float:
        tally.add("accuracy", next(rights), 10)
        seen.append(model.embed())
        return next(losses)

    judge = Judge(verdict, every=2, patience=2, by="accuracy")
    told = model.train(Steps(20), tmp_path, judge=judge, tally=tally)
    assert (told.best_step, told.best_loss, told.step) == (8, 2.5, 12)
    assert torch.equal(model.embed(), seen[3])
    measured = [row["measures"]["valid_accuracy"] for row in read_journal(tmp_path / "metrics.jsonl")[1::2]]
    assert measured == [0.0, 0.5, 0.7, 0.7, 0.7, 0.6]


def test_a_run_that_stopped_early_stays_stopped_when_called_again(tmp_path: Path) -> None:
    first, _ = judged([1.0, 2.0, 2.0, 0.1], tmp_path, steps=20, every=2, patience=2)
    again, told = judged([0.0] * 20, tmp_path, steps=20, every=2, patience=2)
    assert (told.step, told.stopped_early, told.best_loss) == (6, True, 1.0)
    assert torch.equal(first.model.embed(), again.model.embed())


def test_a_good_validation_forgives_the_bad_ones_before_it(tmp_path: Path) -> None:
    _, told = judged([3.0, 4.0, 2.0, 4.0, 1.0], tmp_path, steps=5, every=1, patience=2)
    assert (told.step, told.stopped_early, told.best_step) == (5, False, 5)


def test_running_out_of_patience_at_the_last_update_is_no_early_stop(tmp_path: Path) -> None:
    _, told = judged([1.0, 2.0], tmp_path, steps=3, every=2, patience=1)
    assert (told.step, told.stopped_early, told.best_step) == (3, False, 2)


def test_patience_zero_never_stops_and_every_zero_judges_at_the_end_alone(tmp_path: Path) -> None:
    _, told = judged([1.0, 2.0, 3.0, 4.0], tmp_path / "a", steps=4, every=1, patience=0)
    assert told.step == 4
    verdicts, told = judged([2.0], tmp_path / "b", steps=4, every=0, patience=1)
    assert (len(verdicts.seen), told.best_step) == (1, 4)


def test_a_validation_that_is_no_number_is_never_the_best(tmp_path: Path) -> None:
    _, told = judged([math.nan, 2.0, math.nan], tmp_path, steps=3, every=1, patience=0)
    assert (told.best_step, told.best_loss) == (2, 2.0)


def test_validation_is_written_to_the_journal(tmp_path: Path) -> None:
    judged([2.0, 1.5], tmp_path, steps=3, every=2, patience=0)
    assert [row["valid_loss"] for row in read_journal(tmp_path / "metrics.jsonl")] == [None, 2.0, 1.5]


def test_weights_that_overflow_stop_the_run_with_the_updates_number(tmp_path: Path) -> None:
    model = Bigrams(torch.bfloat16, scale=1e30)
    with pytest.raises(
        TrainError, match=r"update 6: the gradient was not finite 6 times .* lower learning rate"
    ):
        model.train(Steps(20), tmp_path)
    assert [row["step"] for row in read_journal(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5]


def test_a_single_overflow_is_skipped_and_training_goes_on(tmp_path: Path) -> None:
    model = Bigrams()
    calm = model.loss
    batches = iter(range(100))

    def loss(batch: Batch) -> Tensor:
        return calm(batch) * (math.inf if next(batches) == 2 else 1.0)

    before: list[Tensor] = []
    train(
        loss, model.optimizer, Steps(5), tmp_path,
        checkpoint_every=9, on_progress=lambda progress: before.append(model.embed()),
    )  # fmt: skip
    assert torch.equal(before[1], before[2])
    assert not torch.equal(before[2], before[3])
    assert torch.isfinite(before[-1]).all()


def test_gradients_that_stay_no_numbers_bring_the_last_good_weights_back(tmp_path: Path) -> None:
    model = Bigrams()
    calm = model.loss
    batches = iter(range(100))

    def loss(batch: Batch) -> Tensor:
        return calm(batch) * (math.inf if 7 <= next(batches) < 13 else 1.0)

    seen: list[tuple[Progress, Tensor]] = []
    told = train(
        loss, model.optimizer, Steps(16), tmp_path,
        checkpoint_every=5, on_progress=lambda progress: seen.append((progress, model.embed())),
    )  # fmt: skip
    assert told.step == 16
    assert torch.equal(seen[12][1], seen[4][1])
    assert not torch.equal(seen[11][1], seen[4][1])
    assert [progress.learning_rate for progress, _ in seen] == [0.02] * 13 + [0.01] * 3
    assert not torch.equal(seen[-1][1], seen[12][1])


@dataclass(frozen=True)
class Documents(Steps):
    """The same tokens as four documents."""

    def batches(self, step: int) -> Sequence[Batch]:
        (whole,) = super().batches(step)
        return [replace(whole, lengths=(6, 6, 6, 6))]


def starved(model: Bigrams, most: int, after: int, error: Exception) -> Callable[[Batch], Tensor]:
    """Memory for `most` tokens, from the `after`-th batch on."""
    calm, count = model.loss, iter(range(100))

    def loss(batch: Batch) -> Tensor:
        if next(count) >= after and len(batch.token_ids) > most:
            raise error
        return calm(batch)

    return loss


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["cuda", "cpu"],
)
def test_where_memory_ends_batches_are_halved_and_the_weights_are_the_same(
    error: Exception, tmp_path: Path
) -> None:
    rich, poor = Bigrams(), Bigrams()
    rich.train(Documents(6), tmp_path / "rich")
    loss = starved(poor, 6, 3, error)
    train(loss, poor.optimizer, Documents(6), tmp_path / "poor", checkpoint_every=5)
    torch.testing.assert_close(poor.embed(), rich.embed(), atol=1e-6, rtol=1e-5)
    rows = read_journal(tmp_path / "poor" / "halvings.jsonl")
    assert rows == [{"step": 3, "halvings": 1}, {"step": 3, "halvings": 2}]


def test_a_resumed_run_halves_where_the_first_did_though_memory_does_not_end_again(tmp_path: Path) -> None:
    def crash(progress: Progress) -> None:
        if progress.step == 5:
            raise CrashError

    first, resumed, whole = Bigrams(), Bigrams(), Bigrams()
    error = torch.OutOfMemoryError("CUDA out of memory")
    starving = starved(whole, 6, 3, error)
    train(starving, whole.optimizer, Documents(6), tmp_path / "whole", checkpoint_every=2)
    with pytest.raises(CrashError):
        train(
            starved(first, 6, 3, error), first.optimizer, Documents(6), tmp_path / "cut",
            checkpoint_every=3, on_progress=crash,
        )  # fmt: skip
    resumed.train(Documents(6), tmp_path / "cut")
    assert torch.equal(resumed.embed(), whole.embed())


def test_one_row_that_does_not_fit_memory_stops_with_what_to_do(tmp_path: Path) -> None:
    model = Bigrams()
    loss = starved(model, 3, 0, MemoryError())
    with pytest.raises(
        TrainError, match=r"update 1: memory ended with one row at a time: lower train.max_len"
    ):
        train(loss, model.optimizer, Documents(2), tmp_path, checkpoint_every=5)


class CrashError(Exception):
    pass


def test_a_resumed_run_drops_what_the_journal_holds_after_its_checkpoint(tmp_path: Path) -> None:
    def crash(progress: Progress) -> None:
        if progress.step == 8:
            raise CrashError

    with pytest.raises(CrashError):
        Bigrams().train(Steps(10), tmp_path, on_progress=crash)
    journal = tmp_path / "metrics.jsonl"
    assert [row["step"] for row in read_journal(journal)] == [*range(1, 9)]
    with journal.open("a") as file:
        file.write('{"step": 9, "los')
    resumed, whole = Bigrams(), Bigrams()
    seen: list[int] = []
    resumed.train(Steps(10), tmp_path, on_progress=lambda progress: seen.append(progress.step))
    whole.train(Steps(10), tmp_path / "whole")
    assert seen == [6, 7, 8, 9, 10]
    assert [row["step"] for row in read_journal(journal)] == [*range(1, 11)]
    assert torch.equal(resumed.embed(), whole.embed())


def test_a_damaged_newest_checkpoint_costs_its_updates_and_nothing_else(tmp_path: Path) -> None:
    first, again = Bigrams(), Bigrams()
    first.train(Steps(10), tmp_path)
    newest = tmp_path / "checkpoints" / "step-00000010" / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    seen: list[int] = []
    again.train(Steps(10), tmp_path, on_progress=lambda progress: seen.append(progress.step))
    assert seen == [6, 7, 8, 9, 10]
    assert torch.equal(first.embed(), again.embed())
