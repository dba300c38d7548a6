"""Batches at the expense of the key that began them: its budget bounds them, and they end with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from openai import OpenAI

from dialoop.store.registry import Store
from tests.access.test_keys import make_key
from tests.serve.running import serving
from tests.serve.test_batches import LOOKS, Held, begin, read, row, until

SCOPES = "inference,data"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "home") as opened:
        yield opened


def until_answered(client: OpenAI, batch: openai.types.Batch, rows: int) -> None:
    for _ in range(LOOKS):
        counts = client.batches.retrieve(batch.id).request_counts
        if counts is not None and counts.completed >= rows:
            return
    raise AssertionError("not so many were answered")


def until_asked(client: OpenAI, engine: Held, text: str) -> None:
    for _ in range(LOOKS):
        if text in engine.asked:
            return
        client.models.list()
    raise AssertionError("not asked")


def test_what_a_batch_uses_is_its_keys(store: Store) -> None:
    key, secret = make_key(store, "desk", SCOPES)
    other, _ = make_key(store, "other", SCOPES)
    with (
        serving(Held(), store=Store.open(store.home)) as url,
        OpenAI(base_url=f"{url}/v1", api_key=secret) as client,
    ):
        done = until(client, begin(client, row("a b c"), row("d"), row("e", temperature=9)))
        assert done.usage
        used = done.usage.total_tokens
    assert used
    assert store.keys.spent(0) == {key.id: used}
    assert other.id not in store.keys.spent(0)


def test_a_budget_stops_a_batch_as_it_stops_requests(store: Store) -> None:
    """It waits for the next period, until it is cancelled or its window ends."""
    key, secret = make_key(store, "desk", SCOPES, budget=20, period="month")
    rows = [row(f"one two {i}", max_tokens=4) for i in range(5)]
    with (
        serving(Held(), store=Store.open(store.home), batch_rows=1) as url,
        OpenAI(base_url=f"{url}/v1", api_key=secret, max_retries=0) as client,
    ):
        batch = begin(client, *rows)
        until_answered(client, batch, 2)
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(**rows[0]["body"])
        assert refused.value.code == "insufficient_quota"
        assert client.batches.retrieve(batch.id).status == "in_progress"
        client.batches.cancel(batch.id)
        done = until(client, batch)
        assert len(read(client, done.output_file_id)) == 2
        errors = read(client, done.error_file_id)
        assert [each["error"]["code"] for each in errors.values()] == ["batch_cancelled"] * 3
    assert store.keys.spent(0)[key.id] <= 20


def test_a_batch_goes_on_beside_its_own_open_requests(store: Store) -> None:
    """One without max_tokens sets all that is left aside; the others wait for its end, not the month's."""
    _, secret = make_key(store, "desk", SCOPES, budget=1000, period="month")
    engine = Held()
    with (
        serving(engine, store=Store.open(store.home), batch_rows=4) as url,
        OpenAI(base_url=f"{url}/v1", api_key=secret, max_retries=0) as client,
    ):
        batch = begin(client, row("hold"), row("a"), row("b"))
        until_asked(client, engine, "hold")
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(**row("c")["body"])
        assert refused.value.code == "rate_limit_exceeded"
        engine.let()
        assert until(client, batch).status == "completed"
        assert client.chat.completions.create(**row("c")["body"]).choices


def test_a_batch_ends_with_the_key_that_began_it(store: Store) -> None:
    """What was being answered is answered; the rest is told why not, as the key's requests are."""
    _, mine = make_key(store, "mine", SCOPES)
    _, colleague = make_key(store, "colleague", SCOPES)
    engine = Held()
    with (
        serving(engine, store=Store.open(store.home), batch_rows=1) as url,
        OpenAI(base_url=f"{url}/v1", api_key=mine) as client,
        OpenAI(base_url=f"{url}/v1", api_key=colleague) as watching,
    ):
        batch = begin(client, row("hold"), row("b"), row("c"))
        until_asked(watching, engine, "hold")
        store.keys.revoke("mine")
        engine.let()
        done = until(watching, batch)
        assert (done.status, engine.asked) == ("completed", ["hold"])
        assert read(watching, done.output_file_id).keys() == {"hold"}
        told = [each["response"] for each in read(watching, done.error_file_id).values()]
        assert [each["status_code"] for each in told] == [401, 401]
        assert {each["body"]["error"]["code"] for each in told} == {"invalid_api_key"}
