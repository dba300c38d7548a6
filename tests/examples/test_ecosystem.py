"""Other people's clients over `dialoop serve` and the shipped model, by the scripts in examples/ecosystem.

DIALOOP_ENVIRONMENTS: where their environments lie, a directory each; docs/ecosystem.md makes them.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

import dialoop
from tests.serve.running import commanded

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
ENVIRONMENTS = Path(os.environ.get("DIALOOP_ENVIRONMENTS", ROOT / ".environments"))
BASE = Path(dialoop.__file__).parent / "assets" / "dialoop-base"
KEY = "sk-of-the-examples"
QUESTION = [{"role": "user", "content": "Where is my order A48213?"}]
DESK = ROOT / "examples/ecosystem/lm_eval/desk.jsonl"
ROWS = [json.loads(line) for line in DESK.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with commanded(tmp_path_factory.mktemp("home"), DIALOOP_API_KEY=KEY) as url:
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
        yield client


def shown(name: str, url: str, home: Path) -> dict[str, Any]:
    """What an example shows, by name; it sees nothing of this environment and keeps its caches in `home`."""
    python = ENVIRONMENTS / name.replace("_", "-") / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{python} is not there: `make environments` makes it (docs/ecosystem.md)")
    given = {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": KEY, "DIALOOP_TOKENIZER": str(BASE)}
    offline = {"HOME": str(home), "HF_HUB_OFFLINE": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    done = subprocess.run(
        [python, ROOT / f"examples/ecosystem/with_{name}.py"], cwd=ROOT, capture_output=True, text=True,
        timeout=800, env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **given, **offline},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-5000:]
    lines = (line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    return {name: json.loads(value) for name, value in lines}


def said(client: OpenAI, messages: Any, **fields: Any) -> str:
    asked: dict[str, Any] = {"model": "dialoop-base", "temperature": 0, "max_tokens": 64, **fields}
    return client.chat.completions.create(messages=messages, **asked).choices[0].message.content or ""


@pytest.mark.parametrize("name", ["langchain", "litellm", "llama_index"])
def test_a_client_chats_streams_calls_fills_in_forms_and_embeds(
    name: str, url: str, client: OpenAI, tmp_path: Path
) -> None:
    told = shown(name, url, tmp_path)
    assert told["chat"] == said(client, QUESTION)
    assert "".join(told["stream"]) == told["chat"]
    assert sum(piece != "" for piece in told["stream"]) > 1
    assert told["calls"]
    for called, given in told["calls"]:
        assert (called, set(given)) == ("days_left", {"order"})
        assert given["order"] in ("A48213", "B10042")
    assert told["answered"]
    for form in (told["json_schema"], told.get("function_calling", told["json_schema"])):
        assert form["topic"] in ("order", "return", "other")
        assert isinstance(form["urgent"], bool)
    found = client.embeddings.create(model="dialoop-base", input=["Where is my order?", "我的订单在哪里？"])
    for ours, theirs in zip(found.data, told["vectors"], strict=True):
        assert theirs == pytest.approx(ours.embedding, abs=1e-6)
        assert math.hypot(*theirs) == pytest.approx(1, abs=1e-5)
    assert told.get("found", ["我的订单在哪里？"]) == ["我的订单在哪里？"]
    assert sorted(told.get("ranking", [0, 1])) == [0, 1]


def likelihoods(client: OpenAI, question: str, choices: list[str]) -> list[float]:
    """log P(choice | question) of a chat, by the log-probabilities of prompts."""
    messages = [{"role": "user", "content": question}]
    found = []
    for choice in choices:
        ids = [
            client.post(
                "/../tokenize", cast_to=dict, body={"model": "dialoop-base", "messages": messages}
            )["tokens"],
            client.post(
                "/../tokenize", cast_to=dict, body={"model": "dialoop-base", "prompt": choice}
            )["tokens"],
        ]  # fmt: skip
        answer: Any = client.completions.create(
            model="dialoop-base", prompt=ids[0] + ids[1], max_tokens=1, extra_body={"prompt_logprobs": 0}
        ).choices[0]
        told = zip(ids[1], answer.prompt_logprobs[len(ids[0]) :], strict=True)
        found.append(sum(place[str(token)]["logprob"] for token, place in told))
    return found


def test_the_harness_grades_answers_and_the_likelihoods_of_choices(
    url: str, client: OpenAI, tmp_path: Path
) -> None:
    told = shown("lm_eval", url, tmp_path)
    for row, answer, pairs in zip(ROWS, told["answers"], told["likelihoods"], strict=True):
        question = [{"role": "user", "content": row["question"]}]
        assert answer == said(client, question, max_tokens=32, stop=["\n"])
        ours = likelihoods(client, row["question"], row["choices"])
        assert [pair[0] for pair in pairs] == pytest.approx(ours, abs=1e-3)
        assert max(range(2), key=ours.__getitem__) == row["answer"]
    assert told["acc"] == 1.0
    assert 0 <= told["exact_match"] <= 1
