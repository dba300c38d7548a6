"""/v1/moderations and moderated chats through the official client, and the decisions for review."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from openai import OpenAI
from typer.testing import CliRunner

from dialoop.backends.echo import EchoEngine
from dialoop.cli.app import app
from dialoop.safety.categories import CATEGORIES
from dialoop.safety.policy import SafetySettings
from dialoop.store.registry import Store
from tests.serve.running import serving


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def url(home: Path) -> Iterator[str]:
    engine = EchoEngine({"bad": "Well, I will kill you. Bye."})
    with serving(engine, store=Store.open(home), safety=SafetySettings(on=True)) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_a_text_has_openais_thirteen_categories(client: OpenAI) -> None:
    answer = client.moderations.create(input="I'll kill you, 傻逼")
    assert answer.id.startswith("modr-")
    (found,) = answer.results
    assert found.flagged
    told = found.model_dump(by_alias=True)
    for part in ("categories", "category_scores", "category_applied_input_types"):
        assert set(told[part]) == set(CATEGORIES)
    assert {name for name, flagged in told["categories"].items() if flagged} == {
        "harassment", "harassment/threatening",
    }  # fmt: skip
    assert (found.category_scores.harassment_threatening, found.category_scores.harassment) == (1.0, 0.75)
    assert found.category_applied_input_types.self_harm == ["text"]


def test_texts_have_a_result_each_and_parts_one_together(client: OpenAI) -> None:
    texts = client.moderations.create(input=["hello", "how to launder money"], model="omni-moderation-latest")
    assert [each.flagged for each in texts.results] == [False, True]
    parts = client.moderations.create(
        input=[{"type": "text", "text": "hello"}, {"type": "text", "text": "教我洗钱"}]
    )
    assert [each.categories.illicit for each in parts.results] == [True]


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "input"),
        ({"input": []}, 400, "input"),
        ({"input": 5}, 400, "input"),
        ({"input": ["a", 5]}, 400, "input"),
        ({"input": ["a"] * 1025}, 400, "input"),
        ({"input": [{"type": "image_url", "image_url": {"url": "http://x"}}]}, 400, "input"),
        ({"input": "a", "model": "gpt-4"}, 404, "model"),
        ({"input": "a", "inputs": "b"}, 400, "inputs"),
    ],
)
def test_what_cannot_be_moderated_is_refused(url: str, body: object, status: int, param: str) -> None:
    answer = httpx.post(f"{url}/v1/moderations", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


def chat(client: OpenAI, text: str, stream: bool = False) -> tuple[str, str | None]:
    asked = {"model": "echo", "messages": [{"role": "user", "content": text}], "stream": stream}
    answer = client.chat.completions.create(**asked)  # type: ignore[call-overload]
    if not stream:
        return answer.choices[0].message.content, answer.choices[0].finish_reason
    chunks = list(answer)
    return "".join(c.choices[0].delta.content or "" for c in chunks), chunks[-1].choices[0].finish_reason


def test_chats_are_moderated_streamed_or_not_and_all_is_kept_for_review(client: OpenAI, home: Path) -> None:
    for stream in (False, True):
        assert chat(client, "bad", stream) == ("Well, ", "content_filter")
        assert chat(client, "you bastard!", stream) == ("you ***!", "stop")
        with pytest.raises(openai.BadRequestError) as caught:
            chat(client, "怎么制作炸弹", stream)
        assert (caught.value.code, caught.value.param) == ("content_filter", "messages[0]")
    rows = CliRunner().invoke(app, ["--home", str(home), "safety", "decisions", "--json"])
    told = [json.loads(line) for line in rows.stdout.splitlines()]
    assert [each["action"] for each in told].count("block") == 4
    assert [each["side"] for each in told].count("input") == 4
    assert all(each["request_id"].startswith("req-") and each["content"] is None for each in told)
    flagged = CliRunner().invoke(app, ["--home", str(home), "safety", "decisions", "--action", "mask"])
    assert [line.split("\t")[1] for line in flagged.stdout.splitlines()] == ["mask", "mask"]


def test_another_project_sees_none_of_it(home: Path) -> None:
    with Store.open(home) as store:
        assert store.moderation.list()
        other = store.of(store.projects.ensure("other"))
        assert other.moderation.list() == ()
    asked = ["--home", str(home), "safety", "decisions"]
    shown = CliRunner().invoke(app, [*asked, "--project", "other"])
    assert (shown.exit_code, shown.stdout) == (0, "")
    assert CliRunner().invoke(app, asked).stdout


def test_texts_and_files_can_be_checked_by_hand(tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("hello\nyou bastard\n", encoding="utf-8")
    runner = CliRunner()
    found = runner.invoke(app, ["--home", str(tmp_path), "safety", "check", str(file)])
    assert (found.exit_code, found.stdout) == (1, "2\tharassment\tmask\tbastard\t4\t11\n")
    assert runner.invoke(app, ["--home", str(tmp_path), "safety", "check", "hello"]).exit_code == 0
    mine = tmp_path / "mine.txt"
    mine.write_text("[illicit flag]\nhello\n", encoding="utf-8")
    told = runner.invoke(
        app, ["--home", str(tmp_path), "safety", "check", "hello", "--list", f"file:{mine}", "--json"]
    )
    assert json.loads(told.stdout)["category"] == "illicit"
