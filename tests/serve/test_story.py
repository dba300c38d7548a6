"""The platform's whole story with the official client alone, over `dialoop serve` and a tiny model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI, Stream
from openai.types.fine_tuning import FineTuningJobEvent

from tests.serve.running import WAIT, commanded
from tests.tiny import tiny_model

ANSWER = "Your order has been shipped. 您的订单已经发货。"


@contextmanager
def served(home: Path) -> Iterator[OpenAI]:
    with (
        commanded(home, str(tiny_model())) as url,
        OpenAI(base_url=url, api_key="none", max_retries=0, timeout=WAIT) as client,
    ):
        yield client


def question(i: int) -> list[Any]:
    return [{"role": "user", "content": f"Where is order {i}? 订单 {i}"}]


def rows(conversations: list[list[Any]]) -> bytes:
    return "\n".join(json.dumps({"messages": each}, ensure_ascii=False) for each in conversations).encode()


def trained(client: OpenAI, file: bytes, **fields: Any) -> str:
    """Upload, create a job, follow its events to the end; the model."""
    uploaded = client.files.create(file=("rows.jsonl", file), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(training_file=uploaded.id, suffix="shop", seed=1, **fields)
    events = client.get(
        f"/fine_tuning/jobs/{job.id}/events?stream=true", cast_to=FineTuningJobEvent, stream=True,
        stream_cls=Stream[FineTuningJobEvent],
    )  # fmt: skip
    told = [event.message for event in events]
    done = client.fine_tuning.jobs.retrieve(job.id)
    assert done.status == "succeeded", told[-1]
    assert any(message.startswith("Step 1/") for message in told)
    assert done.fine_tuned_model
    return done.fine_tuned_model


def evaluated(client: OpenAI, model: str) -> Any:
    """The run of `model` over questions whose answer is known, once it has ended."""
    made = client.evals.create(
        data_source_config={"type": "custom", "item_schema": {}, "include_sample_schema": True},
        testing_criteria=[{
            "type": "text_similarity", "name": "alike", "evaluation_metric": "rouge_l", "pass_threshold": 0.8,
            "input": "{{sample.output_text}}", "reference": "{{item.want}}",
        }],
    )  # fmt: skip
    content = [{"item": {"input": question(i), "want": ANSWER}} for i in range(3)]
    run = client.evals.runs.create(made.id, data_source={
        "type": "completions", "model": model, "source": {"type": "file_content", "content": content},
        "input_messages": {"type": "item_reference", "item_reference": "item.input"},
        "sampling_params": {"temperature": 0.0, "max_completion_tokens": 40},
    })  # fmt: skip
    while run.status in ("queued", "in_progress"):
        run = client.evals.runs.retrieve(run.id, eval_id=made.id)
    return run


def test_dialogues_become_a_better_model_whose_answers_become_the_next_training_file(tmp_path: Path) -> None:
    with served(tmp_path) as client:
        base = client.models.list().data[0].id
        first = [[*question(i), {"role": "assistant", "content": ANSWER}] for i in range(40)]
        model = trained(client, rows(first), model=base)
        assert model.startswith(f"ft:{base}:default:shop:")

        for i in range(12):
            said = client.chat.completions.create(
                model=model, messages=question(i), temperature=0, max_tokens=40, store=True,
                metadata={"team": "shop"},
            ).choices[0]  # fmt: skip
            assert said.message.content == ANSWER
        assert client.completions.create(model=model, prompt="Hello", max_tokens=4).usage
        stored = list(client.chat.completions.list(metadata={"team": "shop"}, limit=5))
        assert len(stored) == 12
        following = [
            [
                *(
                    {"role": m.role, "content": m.content}
                    for m in client.chat.completions.messages.list(kept.id)
                ),
                {"role": "assistant", "content": kept.choices[0].message.content},
            ]
            for kept in stored
        ]
        again = trained(client, rows(following), model=base)

        before, after = evaluated(client, base), evaluated(client, again)
        assert (before.status, before.result_counts.passed) == ("completed", 0)
        assert (after.status, after.result_counts.passed) == ("completed", 3)
        assert {base, model, again} <= {each.id for each in client.models.list()}
        assert client.models.delete(model).deleted
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model=model, messages=question(1))


@pytest.mark.slow
def test_every_weight_is_trained_and_served_beside_the_base_at_once(tmp_path: Path) -> None:
    with served(tmp_path) as client:
        base = client.models.list().data[0].id
        first = [[*question(i), {"role": "assistant", "content": ANSWER}] for i in range(40)]
        full: Any = {"dialoop": {"method": {"kind": "full"}, "optim": {"learning_rate": 3e-3}}}
        model = trained(client, rows(first), model=base, extra_body=full)
        assert evaluated(client, model).result_counts.passed == 3
    with served(tmp_path) as client:
        assert evaluated(client, model).result_counts.passed == 3
