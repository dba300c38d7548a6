"""Trials: users parted among arms, always the same way, rated, and read at any time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import BadRequestError
from typer.testing import CliRunner

from dialoop.cli.app import app
from dialoop.cli.site import check_trials, read_site
from dialoop.config.trials import TrialSettings, subject_of
from dialoop.errors import ConfigError
from dialoop.store.registry import Store
from dialoop.types import CompleteRequest, Delta, Served, Tokenized, Usage
from tests.serve.running import serving
from tests.serve.scripted import Scripted
from tests.serve.test_responses import asking

SHORT = 'name = "short"\n[wording.en]\nsystem = "Be short."\n'
DESK = TrialSettings.model_validate({
    "arms": [{"name": "plain", "model": "echo"}, {"name": "short", "model": "echo", "prompt": "short"}]
})  # fmt: skip
TOML = """
[[trials.desk.arms]]
name = "plain"
model = "echo"

[[trials.desk.arms]]
name = "short"
model = "echo"
prompt = "short"
"""
USERS = [f"user {i}" for i in range(200)]


def arm_of(user: str) -> str:
    return DESK.arm_of("desk", subject_of("desk", user)).name


def ask(client: Any, user: str | None, **fields: Any) -> Any:
    given = {} if user is None else {"user": user}
    messages: Any = [{"role": "user", "content": "Hi"}]
    return client.chat.completions.with_raw_response.create(
        model="desk", messages=messages, **given, **fields
    )


def test_a_user_has_the_same_arm_always_and_shares_are_as_the_weights_say() -> None:
    uneven = TrialSettings.model_validate({
        "arms": [{"name": "a", "model": "m", "weight": 3}, {"name": "b", "model": "m", "weight": 1}]
    })  # fmt: skip
    subjects = [subject_of("x", f"{i}") for i in range(4000)]
    found = Counter(uneven.arm_of("x", subject).name for subject in subjects)
    assert found == Counter(uneven.arm_of("x", subject).name for subject in subjects)
    assert 0.72 < found["a"] / 4000 < 0.78
    other = [uneven.arm_of("y", subject).name for subject in subjects]
    assert other != [uneven.arm_of("x", subject).name for subject in subjects]


def test_chats_and_responses_go_to_the_users_arm(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.prompts.add(SHORT)
    engine = Scripted()
    with asking(engine, tmp_path, trials={"desk": DESK}) as client:
        assert "desk" in [each.id for each in client.models.list()]
        for user in USERS[:8]:
            told = ask(client, user)
            assert told.headers["x-dialoop-arm"] == f"desk/{arm_of(user)}"
            system = [turn["content"] for turn in engine.messages if turn["role"] == "system"]
            assert system == (["Be short."] if arm_of(user) == "short" else [])
            client.responses.create(model="desk", input="Hi", user=user)
            assert len(engine.messages) == 1 + len(system)
        assert ask(client, USERS[0], stream=True).headers["x-dialoop-arm"] == f"desk/{arm_of(USERS[0])}"
        assert ask(client, None).headers["x-dialoop-arm"] == "desk/plain"
        short = next(user for user in USERS if arm_of(user) == "short")
        with pytest.raises(BadRequestError, match="brings its own"):
            ask(client, short, extra_body={"prompt": {"id": "short"}})
        assert "x-dialoop-arm" not in client.chat.completions.with_raw_response.create(
            model="echo", messages=[{"role": "user", "content": "Hi"}]
        ).headers  # fmt: skip


class Completing(Scripted):
    """Two models, which say who was asked to go on."""

    def models(self) -> tuple[Served, ...]:
        (echo,) = super().models()
        return (echo, replace(echo, name="echo-2"))

    async def complete(self, request: CompleteRequest) -> AsyncGenerator[Delta, None]:
        yield Delta(0, f" by {request.model}", finish_reason="stop", usage=Usage(1, 2))

    async def tokenize(self, model: str, text: object, *, framed: bool = True) -> Tokenized:
        return Tokenized((1,), ("a",), 8)

    async def detokenize(self, model: str, ids: object) -> str:
        return "a"


def test_texts_go_on_by_the_users_arm_where_the_arms_are_models_alone(tmp_path: Path) -> None:
    two = TrialSettings.model_validate(
        {"arms": [{"name": "old", "model": "echo"}, {"name": "new", "model": "echo-2"}]}
    )
    with asking(Completing(), tmp_path, trials={"two": two, "desk": DESK}) as client:
        ask_for = client.completions.with_raw_response.create
        seen = set()
        for user in USERS[:8]:
            arm = two.arm_of("two", subject_of("two", user))
            told = ask_for(model="two", prompt="On and", user=user)
            assert told.headers["x-dialoop-arm"] == f"two/{arm.name}"
            assert told.parse().choices[0].text == f" by {arm.model}"
            streamed = ask_for(model="two", prompt="On and", user=user, stream=True)
            assert streamed.headers["x-dialoop-arm"] == f"two/{arm.name}"
            assert "".join(c.text for e in streamed.parse() for c in e.choices) == f" by {arm.model}"
            seen.add(arm.name)
        assert seen == {"old", "new"}
        assert ask_for(model="two", prompt="On and").headers["x-dialoop-arm"] == "two/old"
        assert "x-dialoop-arm" not in ask_for(model="echo", prompt="On and").headers
        for user in USERS[:8]:
            with pytest.raises(BadRequestError, match="arm short puts a prompt around messages"):
                ask_for(model="desk", prompt="On and", user=user)


def test_ratings_are_kept_by_pseudonym_and_read_by_the_command(tmp_path: Path) -> None:
    (tmp_path / "dialoop.toml").write_text(TOML, encoding="utf-8")
    with Store.open(tmp_path) as store:
        store.prompts.add(SHORT)
    with (
        serving(Scripted(), store=Store.open(tmp_path), trials={"desk": DESK}) as url,
        httpx.Client() as http,
    ):
        for i, user in enumerate(USERS):
            liked = arm_of(user) == "short" or i % 4 == 0
            body = {"trial": "desk", "user": user, "value": int(liked), "target": "chatcmpl-1"}
            told = http.post(f"{url}/v1/feedback", json=body)
            assert told.status_code == 200, told.text
            assert told.json()["arm"] == arm_of(user)
        assert http.post(f"{url}/v1/feedback", json={"value": 1, "comment": "good"}).json()["arm"] is None
        for wrong, words in (
            ({"value": 1, "trial": "dusk", "user": "u"}, "there is no trial 'dusk'"),
            ({"value": 1, "trial": "desk"}, "trial came without user"),
            ({"value": "good"}, "value"),
        ):
            refused = http.post(f"{url}/v1/feedback", json=wrong)
            assert refused.status_code == 400
            assert words in refused.json()["error"]["message"]
    with Store.open(tmp_path) as store:
        kept = store.ratings.of_trial("desk")
    assert len(kept) == len(USERS)
    assert not any("user" in str(each.subject) for each in kept)
    done = CliRunner().invoke(app, ["--home", str(tmp_path), "trials", "read", "desk"])
    assert done.exit_code == 0, done.output
    assert "short is better than plain" in done.output
    found = json.loads(
        CliRunner().invoke(app, ["--home", str(tmp_path), "trials", "read", "desk", "--json"]).output
    )
    assert sum(arm["users"] for arm in found["arms"]) == len(USERS)
    assert found["readings"][0]["found"] == "better"
    listed = CliRunner().invoke(app, ["--home", str(tmp_path), "trials", "list"])
    assert "short" in listed.output


def test_arms_that_nobody_serves_are_told_of_and_a_models_name_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dialoop.toml").write_text(TOML, encoding="utf-8")
    check_trials(read_site(tmp_path), ["echo"])
    assert capsys.readouterr().err == ""
    check_trials(read_site(tmp_path), ["other"])
    assert "trial desk: nobody serves echo, the model of arm plain" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="a model has this name"):
        check_trials(read_site(tmp_path), ["desk"])


def test_ratings_of_arms_as_they_were_before_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "dialoop.toml").write_text(TOML, encoding="utf-8")
    with Store.open(tmp_path) as store:
        store.ratings.add("rating", 1.0, trial="desk", plan="older", arm="plain", subject="x")
        store.ratings.add("other", 1.0, trial="desk", plan=DESK.plan, arm="plain", subject="x")
    done = CliRunner().invoke(app, ["--home", str(tmp_path), "trials", "read", "desk"])
    assert "2 ratings were left out" in done.output
    assert "Too few users" in done.output
    wrong = CliRunner().invoke(app, ["--home", str(tmp_path), "trials", "read", "dask"])
    assert wrong.exit_code != 0
