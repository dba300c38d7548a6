"""What is kept for a time goes when it is over: responses after 30 days, the rest where it is said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from openai import NotFoundError, OpenAI

from dialoop.backends.echo import EchoEngine
from dialoop.cli.site import read_site
from dialoop.errors import ConfigError
from dialoop.serve.house import DAY, Retention, purge
from dialoop.store.registry import Store
from dialoop.store.tables import stored_completions
from dialoop.store.tables_responses import responses
from tests.serve.running import serving
from tests.serve.test_batches import LOOKS

OLD = 31 * DAY


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path) as opened:
        yield opened


@pytest.fixture
def client(store: Store) -> Iterator[OpenAI]:
    with (
        serving(EchoEngine(), store=Store.open(store.home)) as url,
        OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


def answered(client: OpenAI, previous: Any = None) -> Any:
    return client.responses.create(
        model="echo", input="hello", previous_response_id=None if previous is None else previous.id
    )


def completed(client: OpenAI, **metadata: str) -> Any:
    messages: Any = [{"role": "user", "content": "hello"}]
    return client.chat.completions.create(model="echo", messages=messages, store=True, metadata=metadata)


def age(store: Store, table: sa.Table, *kept: Any) -> None:
    """Make them older than they are."""
    with store.engine.begin() as connection:
        mine = table.c.id.in_([each.id for each in kept])
        connection.execute(sa.update(table).where(mine).values(created=table.c.created - OLD))


def known(client: OpenAI, *kept: Any) -> list[bool]:
    found = []
    for each in kept:
        try:
            found.append(client.responses.retrieve(each.id).id == each.id)
        except NotFoundError:
            found.append(False)
    return found


def test_a_response_goes_after_30_days_unless_a_younger_one_goes_on_from_it(
    store: Store, client: OpenAI
) -> None:
    first = answered(client)
    second = answered(client, first)
    third = answered(client, second)
    alone, new = answered(client), answered(client)
    age(store, responses, first, second, alone)
    purge(store, Retention())
    assert known(client, first, second, third, alone, new) == [True, True, True, False, True]
    assert answered(client, third).id
    age(store, responses, third)
    with store.engine.begin() as connection:
        connection.execute(sa.delete(responses).where(responses.c.previous_id == third.id))
    purge(store, Retention())
    assert known(client, first, second, third, new) == [False, False, False, True]


def test_lives_are_as_the_operator_says(store: Store, client: OpenAI) -> None:
    """Stored completions stay unless a life is given; responses too where it is 0."""
    response, completion, young = answered(client), completed(client, shop="42"), completed(client)
    age(store, responses, response)
    age(store, stored_completions, completion)
    purge(store, Retention(responses=0))
    assert known(client, response) == [True]
    assert client.chat.completions.retrieve(completion.id).id == completion.id
    purge(store, Retention(responses=90, stored_completions=7))
    assert known(client, response) == [True]
    assert [each.id for each in client.chat.completions.list()] == [young.id]
    assert not client.chat.completions.list(metadata={"shop": "42"}).data


def test_a_server_clears_away_by_itself(store: Store) -> None:
    with (
        serving(EchoEngine(), store=Store.open(store.home)) as url,
        OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        kept = answered(client)
    age(store, responses, kept)
    with (
        serving(EchoEngine(), store=Store.open(store.home)) as url,
        OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        assert any(known(client, kept) == [False] for _ in range(LOOKS))


def test_lives_are_read_from_the_file_of_the_home(tmp_path: Path) -> None:
    (tmp_path / "dialoop.toml").write_text("[retention]\nresponses = 7\n", encoding="utf-8")
    assert read_site(tmp_path).retention == Retention(responses=7)
    (tmp_path / "dialoop.toml").write_text("[retention]\nresponses = -1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"retention\.responses"):
        read_site(tmp_path)
