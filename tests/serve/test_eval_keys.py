"""Runs of evaluations at the expense of the key that began them, as batches are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from dialoop.store.registry import Store
from tests.access.test_keys import make_key
from tests.serve.running import serving
from tests.serve.test_batch_keys import until_asked
from tests.serve.test_batches import LOOKS, Held
from tests.serve.test_evals import EQUAL, SCHEMA, SCORE, TEMPLATE, Judge

SCOPES = "inference,data,jobs"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "home") as opened:
        yield opened


def begin(client: OpenAI, *asks: str, criteria: Any = (EQUAL,), **sampling: Any) -> Any:
    """A run that asks these and wants the same back."""
    config: Any = {"type": "custom", "item_schema": SCHEMA, "include_sample_schema": True}
    made = client.evals.create(data_source_config=config, testing_criteria=list(criteria))
    rows = [{"item": {"ask": ask, "want": ask}} for ask in asks]
    source: Any = {
        "type": "completions", "model": "echo", "input_messages": TEMPLATE, "sampling_params": sampling,
        "source": {"type": "file_content", "content": rows},
    }  # fmt: skip
    return client.evals.runs.create(made.id, data_source=source)


def until(client: OpenAI, run: Any, *statuses: str, done: int = 0) -> Any:
    for _ in range(LOOKS):
        now = client.evals.runs.retrieve(run.id, eval_id=run.eval_id)
        if now.status in statuses and now.result_counts.total >= done:
            return now
    raise AssertionError(now)


def test_what_a_run_and_its_graders_use_is_its_keys(store: Store) -> None:
    key, secret = make_key(store, "desk", SCOPES)
    engine = Judge({"judge: a b c": '{"score": 8}', "judge: d": '{"score": 2}'})
    with (
        serving(engine, store=Store.open(store.home)) as url,
        OpenAI(base_url=f"{url}/v1", api_key=secret) as client,
    ):
        run = until(client, begin(client, "a b c", "d"), "completed")
        alone = run.per_model_usage[0].total_tokens
        graded = until(client, begin(client, "a b c", "d", criteria=(EQUAL, SCORE)), "completed")
        assert (graded.result_counts.passed, graded.result_counts.failed) == (1, 1)
    assert alone
    assert store.keys.spent(0)[key.id] > 2 * alone


def test_a_budget_holds_a_run_back_and_no_other(store: Store) -> None:
    """It waits for the next period, until it is cancelled; the runs of other keys go on."""
    key, poor = make_key(store, "poor", SCOPES, budget=20, period="month")
    _, rich = make_key(store, "rich", SCOPES)
    with (
        serving(Held(), store=Store.open(store.home)) as url,
        OpenAI(base_url=f"{url}/v1", api_key=poor, max_retries=0) as client,
        OpenAI(base_url=f"{url}/v1", api_key=rich) as other,
    ):
        held = begin(client, *(f"one two {i}" for i in range(9)), max_completion_tokens=4)
        for _ in range(LOOKS):
            try:
                client.chat.completions.create(
                    model="echo", messages=[{"role": "user", "content": "a"}], max_tokens=15
                )
            except openai.RateLimitError as error:
                if error.code == "insufficient_quota":
                    break
        else:
            raise AssertionError("the run used nothing of the budget")
        assert until(other, begin(other, "a"), "completed").result_counts.passed == 1
        assert until(client, held, "in_progress", "queued")
        cancelled = client.evals.runs.cancel(held.id, eval_id=held.eval_id)
        assert cancelled.status == "canceled"
        assert until(client, held, "canceled").result_counts.total < 9
    assert store.keys.spent(0)[key.id] <= 20


def test_a_run_ends_with_the_key_that_began_it(store: Store) -> None:
    """The rows that are left are told why they were not asked."""
    _, mine = make_key(store, "mine", SCOPES)
    _, colleague = make_key(store, "colleague", SCOPES)
    engine = Held()
    with (
        serving(engine, store=Store.open(store.home)) as url,
        OpenAI(base_url=f"{url}/v1", api_key=mine) as client,
        OpenAI(base_url=f"{url}/v1", api_key=colleague) as watching,
    ):
        run = begin(client, "hold", "a", "b", "c", "d", "e")
        until_asked(watching, engine, "hold")
        store.keys.revoke("mine")
        engine.let()
        done = until(watching, run, "completed")
        assert (done.result_counts.total, done.result_counts.errored) == (6, 2)
        items = watching.evals.runs.output_items.list(run.id, eval_id=run.eval_id, status="fail").data
        assert not items
    assert "d" not in engine.asked


def test_a_run_that_was_cancelled_leaves_no_file_behind(store: Store) -> None:
    engine = Held()
    with (
        serving(engine, store=Store.open(store.home)) as url,
        OpenAI(base_url=f"{url}/v1", api_key="none") as client,
    ):
        rows = b'{"item": {"ask": "hold", "want": "hold"}}\n'
        file = client.files.create(file=("rows.jsonl", rows), purpose="evals")
        config: Any = {"type": "custom", "item_schema": SCHEMA, "include_sample_schema": True}
        made = client.evals.create(data_source_config=config, testing_criteria=[EQUAL])  # type: ignore[list-item]
        source: Any = {
            "type": "completions", "model": "echo", "input_messages": TEMPLATE,
            "source": {"type": "file_id", "id": file.id},
        }  # fmt: skip
        run = client.evals.runs.create(made.id, data_source=source)
        until_asked(client, engine, "hold")
        folder = store.home / "evals" / run.id
        assert folder.is_dir()
        client.evals.runs.cancel(run.id, eval_id=made.id)
        for _ in range(LOOKS):
            client.models.list()
            if not folder.exists():
                break
        assert not folder.exists()
        engine.let()
