"""Uploads in parts, through the official client."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from dialoop.backends.echo import EchoEngine
from dialoop.store.registry import Store
from tests.serve.running import serving

ROW = {"messages": [{"role": "user", "content": "退货"}, {"role": "assistant", "content": "好的"}]}
DATA = (json.dumps(ROW, ensure_ascii=False) + "\n").encode() * 50


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[OpenAI]:
    with (
        serving(EchoEngine(), store=Store.open(home), max_file_bytes=100_000) as url,
        OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


def begin(client: OpenAI, size: int = len(DATA), **fields: Any) -> openai.types.Upload:
    given: Any = {"filename": "a.jsonl", "mime_type": "text/jsonl", "purpose": "fine-tune", **fields}
    return client.uploads.create(bytes=size, **given)


def refused(call: Any, *arguments: Any, **fields: Any) -> openai.BadRequestError:
    with pytest.raises(openai.BadRequestError) as caught:
        call(*arguments, **fields)
    return caught.value


def test_parts_become_a_file_in_the_order_that_is_told(client: OpenAI, home: Path) -> None:
    upload = begin(client, expires_after={"anchor": "created_at", "seconds": 7200})
    assert (upload.object, upload.status, upload.bytes, upload.file) == ("upload", "pending", len(DATA), None)
    assert upload.expires_at == upload.created_at + 3600
    late, early = (client.uploads.parts.create(upload.id, data=part) for part in (DATA[1000:], DATA[:1000]))
    assert (late.object, late.upload_id) == ("upload.part", upload.id)
    md5 = hashlib.md5(DATA).hexdigest()
    done = client.uploads.complete(upload.id, part_ids=[early.id, late.id], md5=md5)
    assert done.status == "completed"
    assert done.file
    assert (done.file.filename, done.file.bytes, done.file.purpose) == ("a.jsonl", len(DATA), "fine-tune")
    assert done.file.expires_at == done.file.created_at + 7200
    assert client.files.content(done.file.id).content == DATA
    assert not (home / "uploads" / upload.id).exists()
    assert "completed" in str(refused(client.uploads.complete, upload.id, part_ids=[early.id]))
    assert "completed" in str(refused(client.uploads.cancel, upload.id))


def test_the_clients_own_helper_works(client: OpenAI, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(DATA)
    done = client.uploads.upload_file_chunked(
        file=tmp_path / "train.jsonl", mime_type="text/jsonl", purpose="fine-tune", part_size=999
    )
    assert done.file
    assert client.files.content(done.file.id).content == DATA


def test_what_does_not_fit_together_is_refused_and_can_be_mended(client: OpenAI) -> None:
    upload = begin(client)
    first = client.uploads.parts.create(upload.id, data=DATA[:1000])
    error = refused(client.uploads.complete, upload.id, part_ids=[first.id])
    assert error.param == "part_ids"
    assert "1000 bytes" in error.message
    assert f"{len(DATA)}" in error.message
    assert refused(client.uploads.parts.create, upload.id, data=DATA).param == "data"
    assert refused(client.uploads.complete, upload.id, part_ids=[first.id] * 2).param == "part_ids"
    assert refused(client.uploads.complete, upload.id, part_ids=[]).param == "part_ids"
    rest = client.uploads.parts.create(upload.id, data=DATA[1000:])
    parts = [first.id, rest.id]
    assert refused(client.uploads.complete, upload.id, part_ids=parts, md5="0" * 32).param == "md5"
    assert "line 1" in str(refused(client.uploads.complete, upload.id, part_ids=parts[::-1]))
    assert client.uploads.complete(upload.id, part_ids=parts).status == "completed"


def test_a_cancelled_upload_takes_nothing_more(client: OpenAI, home: Path) -> None:
    upload = begin(client)
    client.uploads.parts.create(upload.id, data=b"x")
    assert client.uploads.cancel(upload.id).status == "cancelled"
    assert "cancelled" in str(refused(client.uploads.parts.create, upload.id, data=b"x"))
    assert not (home / "uploads" / upload.id).exists()


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"purpose": "x"}, "purpose"), ({"size": 0}, "bytes"), ({"size": 100_001}, "bytes"),
     ({"filename": ""}, "filename")],
)  # fmt: skip
def test_an_upload_that_cannot_be_is_refused(client: OpenAI, fields: dict[str, Any], param: str) -> None:
    assert refused(begin, client, **fields).param == param


def test_an_unknown_upload_is_a_404(client: OpenAI) -> None:
    for call in (client.uploads.cancel, lambda one: client.uploads.parts.create(one, data=b"x")):
        with pytest.raises(openai.NotFoundError, match="upload_none"):
            call("upload_none")
