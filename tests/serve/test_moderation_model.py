"""A classifier that was trained here moderates beside the lists: from `dialoop tune` to the client."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from typer.testing import CliRunner

from dialoop.backends.echo import EchoEngine
from dialoop.backends.routed import Route, RoutedEngine
from dialoop.cli.app import app
from dialoop.engine.loaded import open_models
from dialoop.engine.local import LocalEngine
from dialoop.errors import ConfigError
from dialoop.safety.categories import CATEGORIES
from dialoop.safety.classifier import ClassifierSettings
from dialoop.safety.policy import SafetySettings
from dialoop.store.registry import Store
from dialoop.types import ModelRef
from tests.encoders import make_encoder
from tests.serve.running import commanded, serving
from tests.serve.test_command import invoke
from tests.tiny import tiny_model

TEXTS = {
    "none": ("Where is my order?", "Has it been shipped?", "我想退货。", "谢谢。", "Thank you!"),
    "violence": ("He hit the old man.", "They hit him again", "他打了老人。", "他们又打他", "She hit her."),
    "self-harm/intent": ("I want to die.", "I will end it", "我不想活了。", "我要结束一切", "I wish to die"),
}
MESSAGES: Any = [{"role": "user", "content": "Where is my order?"}]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a classifier of these texts, trained by its command."""
    home = tmp_path_factory.mktemp("home")
    base, rows, recipe = make_encoder(home / "bert"), home / "rows.jsonl", home / "recipe.toml"
    rows.write_text(
        "".join(
            json.dumps({"text": text, "label": label, "metadata": {"scenario": text}}) + "\n"
            for label, texts in TEXTS.items()
            for text in texts
        ),
        encoding="utf-8",
    )
    recipe.write_text(
        f'kind = "classify"\nname = "moderation"\nbase = "{base}"\n[data]\nsources = ["file:{rows}"]\n'
        f'test_sources = ["file:{rows}"]\n[data.clean]\nsteps = ["exact"]\n[data.split]\nvalid = 0.0\n'
        "[optim]\nlearning_rate = 3e-3\nwarmup = 0.1\n"
        "[train]\nepochs = 60\nbatch_rows = 5\nmax_length = 40\n",
        encoding="utf-8",
    )
    done = CliRunner().invoke(app, ["--home", str(home), "tune", str(recipe)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return home


@pytest.fixture(scope="module")
def judge(home: Path) -> ModelRef:
    with Store.open(home) as store:
        return replace(store.models.resolve("moderation"), name="moderation")


def moderated(judge: ModelRef, script: dict[str, str], home: Path | None = None, **settings: Any) -> Any:
    """A server whose chats are scripted and whose classifier is real; lists are left out."""
    classifier = ClassifierSettings.model_validate({"model": "moderation", **settings.pop("classifier", {})})
    engine = RoutedEngine([Route(EchoEngine(script)), Route(LocalEngine(open_models([judge])))])
    safety = SafetySettings(on=True, lists=(), classifier=classifier, **settings)
    return serving(engine, store=Store.open(home) if home else None, safety=safety)


def test_scores_are_its_probabilities_and_flags_go_by_the_threshold(judge: ModelRef, home: Path) -> None:
    with moderated(judge, {}, home) as url, OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        answer = client.moderations.create(
            input=["Thank you! They hit him again. Thank you!", "谢谢。", "我不想活了。"]
        )
        assert answer.model == "dialoop-lists+moderation"
        hit, thanks, die = (each.model_dump(by_alias=True) for each in answer.results)
    flagged = [{name for name, on in each["categories"].items() if on} for each in (hit, thanks, die)]
    assert flagged == [{"violence"}, set(), {"self-harm/intent"}]
    assert [each["flagged"] for each in (hit, thanks, die)] == [True, False, True]
    for each in (hit, thanks, die):
        scores = each["category_scores"]
        assert set(scores) == set(CATEGORIES)
        assert 0 < scores["violence"] < 1  # a probability, below the threshold too
        assert scores["sexual"] == 0  # no class of the model
    assert hit["category_scores"]["violence"] > 0.5 > thanks["category_scores"]["violence"]


def test_a_question_is_blocked_and_recorded_for_review(judge: ModelRef, tmp_path: Path) -> None:
    with (
        moderated(judge, {}, tmp_path, actions={"violence": "block"}) as url,
        OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        assert client.chat.completions.create(model="echo", messages=MESSAGES).choices
        bad: Any = [{"role": "user", "content": "Thank you! He hit the old man."}]
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(model="echo", messages=bad)
        assert refused.value.code == "content_filter"
    with Store.open(tmp_path) as store:
        (decision,) = store.moderation.list()
    assert (decision.category, decision.action, decision.side) == ("violence", "block", "input")
    assert decision.rule.startswith("moderation ")


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_held_back_by_sentences_and_masked_or_ended(judge: ModelRef, stream: bool) -> None:
    script = {"Where is my order?": "Has it been shipped? They hit him again. Thank you! 我不想活了。 谢谢。"}

    def said(**settings: Any) -> tuple[str, str | None]:
        with (
            moderated(judge, script, **settings) as url,
            OpenAI(base_url=f"{url}/v1", api_key="none") as client,
        ):
            if not stream:
                choice = client.chat.completions.create(model="echo", messages=MESSAGES).choices[0]
                return choice.message.content or "", choice.finish_reason
            chunks = [
                chunk.choices[0]
                for chunk in client.chat.completions.create(model="echo", messages=MESSAGES, stream=True)
            ]
            return "".join(each.delta.content or "" for each in chunks), chunks[-1].finish_reason

    masked = said(classifier={"action": "mask"})
    assert masked == ("Has it been shipped? *** Thank you! *** 谢谢。", "stop")
    assert said(actions={"self-harm/intent": "block"}) == (
        "Has it been shipped? They hit him again. Thank you! ", "content_filter"
    )  # fmt: skip


def test_the_command_serves_it_by_configuration_alone(home: Path) -> None:
    (home / "dialoop.toml").write_text(
        '[safety]\non = true\nactions = { violence = "block" }\n[safety.classifier]\nmodel = "moderation"\n',
        encoding="utf-8",
    )
    with commanded(home, str(tiny_model())) as url, OpenAI(base_url=url, api_key="none") as client:
        assert {each.id for each in client.models.list()} == {tiny_model().name, "moderation"}
        (found,) = client.moderations.create(input="They hit him again. I will kill you").results
        assert found.categories.violence
        assert found.categories.harassment_threatening  # the lists are there as well
        bad: Any = [{"role": "user", "content": "They hit him again"}]
        with pytest.raises(openai.BadRequestError, match="violence"):
            client.chat.completions.create(model=tiny_model().name, messages=bad)
        fine = client.chat.completions.create(model=tiny_model().name, messages=MESSAGES, max_tokens=4)
        assert fine.usage


def test_texts_can_be_checked_by_hand(home: Path) -> None:
    (home / "dialoop.toml").write_text('[safety]\nactions = { violence = "mask" }\n', encoding="utf-8")
    command = ["--home", str(home), "safety", "check", "Thank you! They hit him again.", "--json"]
    done = CliRunner().invoke(app, [*command, "--classifier", "moderation"], catch_exceptions=False)
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert (found["category"], found["action"], found["start"], found["end"]) == ("violence", "mask", 11, 30)
    assert found["entry"].startswith("moderation ")


def test_a_model_that_is_no_moderator_ends_the_command(tmp_path: Path) -> None:
    (tmp_path / "dialoop.toml").write_text(
        f'[safety.classifier]\nmodel = "{tiny_model()}"\n', encoding="utf-8"
    )
    error = invoke(tmp_path, str(tiny_model()), "--port", "0")
    assert isinstance(error, ConfigError)
    assert "has no head for classes" in str(error)
