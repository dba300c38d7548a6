"""Recorded decoding steps, their recorder replaced: what CUDA would replay is computed again."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from dialoop.engine import runner
from dialoop.engine.loaded import open_models
from dialoop.engine.local import LocalEngine
from dialoop.engine.running import Running
from dialoop.models import lean
from dialoop.models.cache import Cache, Span
from dialoop.models.graphs import Graphs, Run
from dialoop.models.paged import PagedBody
from dialoop.types import ModelRef
from tests.engine.test_adapters import QUESTIONS, answers_of, asking, write_adapter
from tests.engine.test_running import CONFIGS, CONTEXT, check, finish, model_of, prompts, rows_of
from tests.tiny import tiny_model


class Recorder:
    """Counts what is recorded and what is replayed."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, run: Run) -> Run:
        self.recorded += 1

        def again() -> torch.Tensor:
            self.replayed += 1
            return run()

        return again


def refusing(run: Run) -> Run:
    """As CUDA where a step waits for the GPU."""
    raise RuntimeError("operation not permitted when stream is capturing")


def wrong(run: Run) -> Run:
    return lambda: run() + 1.0


def spoiling(run: Run) -> Run:
    """Leaves other keys and values behind, too."""
    write = torch.Tensor.index_copy_

    def again() -> torch.Tensor:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.Tensor, "index_copy_", lambda x, dim, at, new: write(x, dim, at, 2 * new))
            return run()

    return again


def through_transformers(monkeypatch: pytest.MonkeyPatch, record: object) -> None:
    """As on a GPU: through transformers' layers, steps recorded so."""
    monkeypatch.setattr(runner, "recorder", lambda device: record)
    monkeypatch.setattr(lean, "FAMILIES", frozenset())


def running_with(monkeypatch: pytest.MonkeyPatch, record: object, model: torch.nn.Module) -> Running:
    through_transformers(monkeypatch, record)
    return Running(model, max_rows=3, step_tokens=11, context=CONTEXT, cache_tokens=600, speculate=False)


@pytest.mark.parametrize("name", CONFIGS)
def test_recorded_steps_change_no_logit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, record = model_of(CONFIGS[name]), Recorder()
    running = running_with(monkeypatch, record, model)
    for row, logprobs in finish(running, rows_of(prompts(7))).items():
        check(model, row, logprobs)
    assert record.recorded <= 3
    assert record.replayed > 2 * 24


@pytest.mark.parametrize("record", [refusing, wrong, spoiling])
def test_a_step_that_cannot_be_recorded_rightly_is_computed_as_ever(
    record: object, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = model_of(CONFIGS["qwen3"])
    running = running_with(monkeypatch, record, model)
    with caplog.at_level(logging.WARNING, "dialoop.engine"):
        told = finish(running, rows_of(prompts(4)))
        again = finish(running, rows_of([[*row.prompt, *row.tokens] for row in told]))
    for row, logprobs in [*told.items(), *again.items()]:
        check(model, row, logprobs)
    assert all(row.cached for row in again), "the blocks of the first were not read again"
    (said,) = [each.message for each in caplog.records]
    assert said.startswith("steps are computed without CUDA graphs: ")


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "mixtral"])
def test_no_step_waits_for_its_device(name: str) -> None:
    """Nothing that is computed decides what is computed next: a graph could not hold that."""

    def record(run: Run) -> Run:
        with FakeTensorMode(allow_non_fake_inputs=True):
            assert run().shape == (2, 97)
        return run

    body = PagedBody(model_of(CONFIGS[name]))
    graphs = Graphs(body, Cache(64, zeroed=True), 16, record)
    assert graphs.logits([5, 6], [Span(0, 1, [0], 16), Span(0, 1, [1], 16)]) is not None
    assert len(graphs) == 1


async def test_rows_with_adapters_are_computed_beside_recorded_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny_model()
    refs = [ModelRef("base", base), ModelRef("first", base, write_adapter(tmp_path / "first", 1))]
    together = [asking(name, text) for text in QUESTIONS for name in ("base", "first")]
    told, record = [], Recorder()
    for recorder in (None, record):
        through_transformers(monkeypatch, recorder)
        engine = LocalEngine(open_models(refs))
        told.append([*await answers_of(engine, together), *await answers_of(engine, together[::2])])
        await engine.aclose()
    for wanted, got in zip(*told, strict=True):
        assert got.text == wanted.text
        logs = [[token.logprob for token in answer.logprobs] for answer in (got, wanted)]
        assert logs[0] == pytest.approx(logs[1], abs=1e-4)
    assert record.replayed
