"""Files through the official client."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from dialoop.backends.echo import EchoEngine
from dialoop.store.registry import Store
from tests.serve.running import serving

LIMIT = 200_000
ROW = {"messages": [{"role": "user", "content": "退货"}, {"role": "assistant", "content": "好的"}]}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def url(home: Path) -> Iterator[str]:
    with serving(EchoEngine(), store=Store.open(home), max_file_bytes=LIMIT) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client
        for file in client.files.list():
            client.files.delete(file.id)


def jsonl(*rows: Any) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def upload(client: OpenAI, data: bytes, name: str = "train.jsonl", **fields: Any) -> openai.types.FileObject:
    return client.files.create(file=(name, data), **{"purpose": "user_data", **fields})


def refused(client: OpenAI, data: bytes, **fields: Any) -> openai.BadRequestError:
    with pytest.raises(openai.BadRequestError) as caught:
        upload(client, data, **fields)
    return caught.value


def test_what_is_uploaded_comes_back(client: OpenAI) -> None:
    data = bytes(range(256)) * 700 + b"\r\n--x"
    made = upload(client, data, 'dir/数据 "1".bin')
    assert (made.object, made.bytes, made.purpose, made.status) == (
        "file",
        len(data),
        "user_data",
        "processed",
    )
    assert made.id.startswith("file-")
    assert made.filename.startswith("数据")
    assert client.files.retrieve(made.id) == made
    answer = client.files.content(made.id)
    assert answer.content == data
    assert answer.response.headers["content-length"] == str(len(data))
    assert client.files.delete(made.id).deleted
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError, match=made.id):
            call(made.id)


def test_an_empty_file_of_no_rows_is_kept(client: OpenAI) -> None:
    made = upload(client, b"", "nothing")
    assert (made.bytes, client.files.content(made.id).content) == (0, b"")


def test_files_are_listed_page_by_page_in_both_orders(client: OpenAI) -> None:
    made = [upload(client, b"x", f"{i}.txt", purpose="evals" if i == 2 else "user_data").id for i in range(5)]
    assert [file.id for file in client.files.list()] == made[::-1]
    assert [file.id for file in client.files.list(order="asc", limit=2)] == made
    assert [file.id for file in client.files.list(purpose="evals")] == [made[2]]
    page = client.files.list(limit=2, after=made[3])
    assert [file.id for file in page.data] == [made[2], made[1]]
    assert page.has_more
    client.files.delete(made[1])
    assert [file.id for file in page.get_next_page().data] == [made[0]]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=10001", "limit"),
        ("order=up", "order"),
        ("purpose=x", "purpose"),
        ("lmit=1", "lmit"),
    ],
)
def test_a_wrong_query_is_named(url: str, query: str, param: str) -> None:
    answer = httpx.get(f"{url}/v1/files?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_a_training_file_is_read_when_it_comes(client: OpenAI) -> None:
    asked, said = {"messages": ROW["messages"][:1]}, ROW["messages"][1:]
    pair = {"input": asked, "preferred_output": said, "non_preferred_output": said}
    assert upload(client, b"\xef\xbb\xbf" + jsonl(ROW) + b"\n", purpose="fine-tune").status == "processed"
    assert upload(client, jsonl(pair, pair), purpose="fine-tune").status == "processed"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no rows"),
        (jsonl(ROW) + b"{nope\n", "line 2: not JSON"),
        (jsonl(ROW, ["a"]), "line 2: a list of 1 items"),
        (jsonl(ROW) + b"\n" + "你".encode()[:2], "line 3: not UTF-8"),
        (jsonl(ROW, {"messages": ROW["messages"][:1]}), "line 2: no assistant message"),
        (jsonl(ROW, {"messages": [{"role": "userr", "content": "a"}]}), r"line 2: messages\[0\].role"),
        (jsonl(ROW, {"prompt": "a", "completion": "b"}), "line 2: looks like pairs"),
        (jsonl({"text": "alone"}), "line 1: no conversation"),
        (b'{"messages": NaN}', "line 1"),
    ],
)
def test_the_first_bad_line_of_a_training_file_is_told(client: OpenAI, data: bytes, said: str) -> None:
    error = refused(client, data, purpose="fine-tune")
    assert (error.param, error.code) == ("file", "invalid_file_format")
    with pytest.raises(openai.BadRequestError, match=said):
        raise error
    assert list(client.files.list()) == []


def test_a_file_too_long_is_refused_whether_or_not_its_length_is_told(
    client: OpenAI, url: str, home: Path
) -> None:
    with pytest.raises(openai.APIStatusError, match=str(LIMIT)) as caught:
        upload(client, b"x" * (LIMIT + 2**17))
    assert caught.value.status_code == 413
    assert caught.value.response.json()["error"]["param"] == "file"
    head = b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
    chunks = (head, *[b"x" * 1000] * 250, b"\r\n--b--\r\n")
    kind = {"content-type": "multipart/form-data; boundary=b"}
    answer = httpx.post(f"{url}/v1/files", content=iter(chunks), headers=kind)
    assert answer.status_code == 413
    assert [p.name for p in (home / "files").rglob("*") if p.is_file()] == [".staging.lock"]


def test_a_file_expires(client: OpenAI) -> None:
    kept = upload(client, b"x", expires_after={"anchor": "created_at", "seconds": 3600})
    assert kept.expires_at == kept.created_at + 3600
    for wrong in ({"anchor": "created_at", "seconds": 3599}, {"anchor": "now", "seconds": 4000}):
        assert str(refused(client, b"x", expires_after=wrong).param).startswith("expires_after.")


def test_a_form_says_what_it_lacks(url: str) -> None:
    def post(**arguments: Any) -> dict[str, Any]:
        answer = httpx.post(f"{url}/v1/files", **arguments)
        assert answer.status_code in (400, 415), answer.text
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return {**error, "status": answer.status_code}

    file = {"file": ("a.txt", b"x")}
    assert post(files=file)["param"] == "purpose"
    assert post(files={"purpose": (None, "evals")})["param"] == "file"
    assert post(files={"purpose": (None, "evals"), "file": (None, b"x")})["param"] == "file"
    assert post(files=file, data={"purpose": "fine-tuning"})["message"].endswith("did you mean 'fine-tune'?")
    assert post(files=file, data={"purpose": "evals", "porpose": "evals"})["param"] == "porpose"
    assert post(files=file, data={"purpose": "x" * 5000})["param"] == "purpose"
    assert (
        post(files=[("file", ("a", b"x")), ("file", ("b", b"x"))], data={"purpose": "evals"})["param"]
        == "file"
    )
    assert post(json={"purpose": "evals"})["status"] == 415
    kind = {"content-type": "multipart/form-data; boundary=b"}
    assert post(content=b"--c\r\nnope", headers=kind)["status"] == 400
    cut = b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nhalf'
    assert "last boundary" in post(content=cut, headers=kind)["message"]


def test_other_projects_files_are_unknown(client: OpenAI, home: Path, tmp_path: Path) -> None:
    (home / "theirs").write_bytes(b"secret")
    with Store.open(home) as store:
        other = store.of(add_project(store))
        theirs = other.files.adopt(home / "theirs", filename="theirs", purpose="evals")
        with pytest.raises(openai.NotFoundError):
            client.files.content(theirs.id)
        with pytest.raises(openai.NotFoundError):
            client.files.delete(theirs.id)
        assert theirs.id not in [file.id for file in client.files.list()]
        assert other.files.get(theirs.id) == theirs
        other.files.delete(theirs.id)


def add_project(store: Store) -> str:
    import sqlalchemy as sa

    from dialoop.store.database import writing
    from dialoop.store.identity import new_id, now_micros
    from dialoop.store.tables import projects

    project = new_id("proj")
    with writing(store.engine).begin() as connection:
        connection.execute(sa.insert(projects).values(id=project, name=project, created=now_micros()))
    return project


def test_a_large_file_streams_through_a_form_object(client: OpenAI) -> None:
    data = io.BytesIO(jsonl(*[ROW] * 1500))
    data.name = "many.jsonl"
    made = client.files.create(file=data, purpose="fine-tune")
    assert (made.filename, made.bytes) == ("many.jsonl", len(data.getvalue()))
