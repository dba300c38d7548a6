"""/v1/moderations and moderated chats through the official client, and the decisions for review."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
from tests.safety.test_moderated import Calling
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


@pytest.fixture
def open_client() -> Iterator[OpenAI]:
    """Of a server whose own filter is off."""
    script = {"bad": "Well, I will kill you. Bye.", "rude": "you bastard"}
    with serving(EchoEngine(script)) as url, OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        yield client


def moderated(client: OpenAI, text: str, stream: bool = False, n: int = 2, **modes: str) -> Any:
    policy = {side: {"mode": mode} for side, mode in modes.items()}
    wish = {"model": "omni-moderation-latest", **({"policy": policy} if policy else {})}
    asked: dict[str, Any] = {"model": "echo", "messages": [{"role": "user", "content": text}], "n": n}
    if not stream:
        return client.chat.completions.create(**asked, moderation=wish)
    with client.chat.completions.stream(
        **asked, moderation=wish, stream_options={"include_usage": True}
    ) as events:
        for _ in events:
            pass
        return events.current_completion_snapshot


def flagged(told: Any) -> list[list[str]]:
    return [[name for name, found in each.categories.items() if found] for each in told.results]


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_is_scored_where_that_is_asked_for(open_client: OpenAI, stream: bool) -> None:
    said = moderated(open_client, "bad", stream)
    assert [each.message.content for each in said.choices] == ["Well, I will kill you. Bye."] * 2
    assert flagged(said.moderation.input) == [[]]
    assert flagged(said.moderation.output) == [["harassment/threatening"]] * 2
    alone = open_client.moderations.create(input="Well, I will kill you. Bye.").results[0]
    scored = said.moderation.output.results[0]
    assert scored.category_scores == alone.category_scores.model_dump(by_alias=True)
    assert (scored.type, scored.model, said.moderation.output.type) == (
        "moderation_result",
        "dialoop-lists",
        "moderation_results",
    )
    assert said.usage.completion_tokens
    assert flagged(moderated(open_client, "you bastard", stream).moderation.input) == [["harassment"]]
    plain = open_client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "bad"}])
    assert plain.moderation is None


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_flagged_is_blocked_where_that_is_asked_for(open_client: OpenAI, stream: bool) -> None:
    """Whatever the list's own action: `bastard` is only masked where the server's filter is on."""
    cut = moderated(open_client, "rude", stream, output="block", input="score")
    assert [(each.message.content, each.finish_reason) for each in cut.choices] == [
        ("you ", "content_filter")
    ] * 2
    assert flagged(cut.moderation.output) == [["harassment"]] * 2
    with pytest.raises(openai.BadRequestError) as refused:
        moderated(open_client, "you bastard", stream, input="block")
    assert (refused.value.code, refused.value.param) == ("content_filter", "messages[0]")
    assert moderated(open_client, "you bastard", stream, input="score").choices[0].finish_reason == "stop"


def respond(client: OpenAI, text: str, stream: bool, **modes: str) -> Any:
    policy: Any = {side: {"mode": mode} for side, mode in modes.items()}
    wish: Any = {"model": "omni-moderation-latest", "policy": policy}
    said: Any = client.responses.create(model="echo", input=text, moderation=wish, stream=stream)
    return list(said)[-1].response if stream else said


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_is_scored_and_blocked_as_a_chat_is(open_client: OpenAI, stream: bool) -> None:
    said = respond(open_client, "bad", stream, input="block").moderation
    assert said.input.flagged is False
    assert (said.output.type, said.output.flagged) == ("moderation_result", True)
    cut = respond(open_client, "rude", stream, output="block")
    assert (cut.output_text, cut.status) == ("you ", "incomplete")
    assert (cut.incomplete_details.reason, cut.moderation.output.flagged) == ("content_filter", True)
    with pytest.raises(openai.BadRequestError) as refused:
        respond(open_client, "you bastard", stream, input="block")
    assert (refused.value.code, refused.value.param) == ("content_filter", "input")
    assert open_client.responses.create(model="echo", input="bad").moderation is None


def test_an_unknown_moderation_model_is_named(open_client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        open_client.chat.completions.create(
            model="echo", messages=[{"role": "user", "content": "Hi"}], moderation={"model": "mine"}
        )
    assert refused.value.param == "moderation.model"


def test_what_a_call_says_is_scored_and_blocked_like_text() -> None:
    engine = Calling('{"n": 1}', '{"why": "you b\\u0061stard"}')
    with serving(engine) as url, OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        for stream in (False, True):
            scored = moderated(client, "Hi", stream, n=1).model_dump()
            assert len(scored["choices"][0]["message"]["tool_calls"]) == 2
            assert scored["moderation"]["output"]["results"][0]["categories"]["harassment"]
            cut = moderated(client, "Hi", stream, n=1, output="block").model_dump()
            assert len(cut["choices"][0]["message"]["tool_calls"]) == 1
            assert cut["choices"][0]["finish_reason"] == "content_filter"


def test_calls_are_filtered_over_http_too(tmp_path: Path) -> None:
    """A call that is masked stays JSON, streamed or not, and is reviewed under its place."""
    engine = Calling('{"why": "you bastard"}')
    asked: Any = {"model": "echo", "messages": [{"role": "user", "content": "Hi"}]}
    with (
        serving(engine, store=Store.open(tmp_path), safety=SafetySettings(on=True)) as url,
        OpenAI(base_url=f"{url}/v1", api_key="none") as client,
    ):
        whole = client.chat.completions.create(**asked).choices[0].message.tool_calls
        with client.chat.completions.stream(**asked) as events:
            streamed = events.get_final_completion().choices[0].message.tool_calls
        for calls in (whole, streamed):
            assert calls
            assert json.loads(calls[0].function.arguments) == {"why": "you ***"}  # type: ignore[union-attr]
    with Store.open(tmp_path) as store:
        assert {each.place for each in store.moderation.list()} == {"choices[0].tool_calls[0]"}
