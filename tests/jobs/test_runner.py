"""Fine-tuning jobs in their processes: killed, left by a server, taken up by the next, and none the worse."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI, Stream
from openai.types.fine_tuning import FineTuningJobEvent

from dialoop.backends.echo import EchoEngine
from dialoop.cli.tuned import with_tuning
from dialoop.store.registry import Store
from dialoop.types import ModelRef
from tests.serve.running import serving
from tests.tiny import tiny_model

ROWS = "\n".join(
    json.dumps({"messages": [
        {"role": "user", "content": f"Where is order {i}? 订单 {i}"},
        {"role": "assistant", "content": "Your order has been shipped. 您的订单已经发货。"},
    ]}) for i in range(40)
).encode()  # fmt: skip
ASKED: Any = {
    "model": "tiny", "suffix": "shop", "seed": 3,
    "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 4, "batch_size": 1}}},
}  # fmt: skip


@contextmanager
def shop(home: Path) -> Iterator[tuple[OpenAI, Store]]:
    """A server whose answers need no torch; its jobs do."""
    store, ref = Store.open(home), ModelRef("tiny", tiny_model())
    models, tuning = with_tuning(
        EchoEngine(name="tiny"), store, [ref], lambda ref: EchoEngine(name=ref.name), limit=1
    )
    with (
        serving(models, store=store, tuning=tuning) as url,
        OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client, store


def live(client: OpenAI, job_id: str) -> Stream[FineTuningJobEvent]:
    return client.get(
        f"/fine_tuning/jobs/{job_id}/events?stream=true", cast_to=FineTuningJobEvent, stream=True,
        stream_cls=Stream[FineTuningJobEvent],
    )  # fmt: skip


def told(events: Stream[FineTuningJobEvent], words: str) -> None:
    """Wait for an event with these words."""
    assert any(words in event.message for event in events), f"no event told of {words!r}"


def trained(client: OpenAI, **fields: Any) -> str:
    """The model of a job that went well."""
    job = client.fine_tuning.jobs.create(**fields)
    told(live(client, job.id), "The job ")
    done = client.fine_tuning.jobs.retrieve(job.id)
    assert done.status == "succeeded", done.error
    assert done.fine_tuned_model
    return done.fine_tuned_model


def weights(store: Store, alias: str) -> str:
    return store.models.get(alias).files["adapter_model.safetensors"]


def test_a_job_that_is_killed_and_left_ends_as_one_that_was_not(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with shop(home) as (client, store):
        file = client.files.create(file=("rows.jsonl", ROWS), purpose="fine-tune").id
        jobs = client.fine_tuning.jobs
        plain, disturbed = (jobs.create(training_file=file, **ASKED).id for _ in range(2))
        told(live(client, plain), "successfully completed")
        made = jobs.retrieve(plain)
        told(live(client, disturbed), "Step ")
        os.kill(int((home / "jobs" / disturbed / ".process").read_text()), signal.SIGKILL)
        told(live(client, disturbed), "killed by SIGKILL")
        client.files.delete(file)  # a job keeps what it was given
    with shop(home) as (client, store):
        told(live(client, disturbed), "successfully completed")
        again = client.fine_tuning.jobs.retrieve(disturbed)
        steps = [e.data["step"] for e in live(client, disturbed) if e.type == "metrics"]
        assert steps == list(range(1, 161))
        assert made.fine_tuned_model
        assert again.fine_tuned_model
        assert weights(store, made.fine_tuned_model) == weights(store, again.fine_tuned_model)
        assert (again.status, again.trained_tokens) == ("succeeded", made.trained_tokens)
        served = {model.id for model in client.models.list()}
        kept = [each.fine_tuned_model_checkpoint for each in client.fine_tuning.jobs.checkpoints.list(plain)]
        assert len(kept) == 3
        assert kept[0] == made.fine_tuned_model
        assert {*kept, again.fine_tuned_model, "tiny"} <= served
        chat = client.chat.completions.create(model=kept[-1], messages=[{"role": "user", "content": "hello"}])
        assert chat.choices[0].message.content == "hello"
        lines = client.files.content(again.result_files[0]).text.splitlines()
        assert lines[0] == "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"
        assert len(lines) == 161
        accuracies = [float(line.split(",")[2]) for line in lines[1:]]
        assert accuracies[0] < accuracies[-1] <= 1
        last = next(iter(client.fine_tuning.jobs.checkpoints.list(plain)))
        assert last.metrics.train_mean_token_accuracy is not None
        assert not [path for path in (home / "jobs").iterdir() if path.is_dir()]


PAIRS = "\n".join(
    json.dumps({
        "input": {"messages": [{"role": "user", "content": f"Where is order {i}? 订单 {i}"}]},
        "preferred_output": [{"role": "assistant", "content": "It has been shipped. 已经发货。"}],
        "non_preferred_output": [{"role": "assistant", "content": "No idea. 不知道。"}],
    }) for i in range(12)
).encode()  # fmt: skip


def test_a_dpo_job_learns_preferences_and_its_models_answer(tmp_path: Path) -> None:
    hyperparameters = {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 200.0}
    with shop(tmp_path) as (client, store):
        file = client.files.create(file=("pairs.jsonl", PAIRS), purpose="fine-tune").id
        job = client.fine_tuning.jobs.create(
            model="tiny", training_file=file, validation_file=file, seed=3,
            method={"type": "dpo", "dpo": {"hyperparameters": hyperparameters}},
            extra_body={"dialoop": {"method": {"kind": "ia3"}}},
        )  # fmt: skip
        told(live(client, job.id), "successfully completed")
        done = client.fine_tuning.jobs.retrieve(job.id)
        assert done.method
        assert done.method.type == "dpo"
        assert done.method.dpo
        assert done.method.dpo.hyperparameters
        assert done.method.dpo.hyperparameters.model_dump() == {**hyperparameters, "beta": 0.1}
        assert done.model_extra
        assert done.model_extra["dialoop"]["recipe"]["objective"]["kind"] == "dpo"
        metrics = [event.data for event in live(client, job.id) if event.type == "metrics"]
        assert [each["step"] for each in metrics] == list(range(1, 7))
        assert metrics[-1]["train_reward_margin"] > metrics[0]["train_reward_margin"]
        assert metrics[-1]["full_valid_reward_margin"] == metrics[-1]["valid_reward_margin"] > 0
        lines = client.files.content(done.result_files[0]).text.splitlines()
        assert lines[0].startswith("step,train_loss,train_preference_accuracy,train_reward_margin,valid_loss")
        assert len(lines) == 7
        kept = list(client.fine_tuning.jobs.checkpoints.list(job.id))
        assert [each.step_number for each in kept] == [6, 3]
        named = [each.fine_tuned_model_checkpoint for each in kept]
        assert named[0] == done.fine_tuned_model
        assert {*named} < {model.id for model in client.models.list()}
        said = client.chat.completions.create(model=named[1], messages=[{"role": "user", "content": "hello"}])
        assert said.choices[0].message.content == "hello"
        assert store.models.get(done.fine_tuned_model or "").files.keys() >= {"adapter_model.safetensors"}


def test_a_job_refuses_rows_of_the_other_method(tmp_path: Path) -> None:
    same = json.loads(PAIRS.splitlines()[0])
    same["non_preferred_output"] = same["preferred_output"]
    dpo: Any = {"type": "dpo"}
    with shop(tmp_path) as (client, _):
        for text, method, words in (
            (ROWS, dpo, "40 rows cannot be used: line 1: no preference"),
            (PAIRS, ASKED["method"], "take the method dpo for preferences"),
            (PAIRS + b"\n" + json.dumps(same).encode(), dpo, "line 13: both outputs are the same"),
        ):
            file = client.files.create(file=("rows.jsonl", text), purpose="fine-tune").id
            job = client.fine_tuning.jobs.create(model="tiny", training_file=file, method=method)
            told(live(client, job.id), "The job failed")
            error = client.fine_tuning.jobs.retrieve(job.id).error
            assert error
            assert words in error.message


def test_an_adapter_is_trained_on_by_the_next_job(tmp_path: Path) -> None:
    few = "\n".join(ROWS.decode().splitlines()[:12]).encode()
    quick: Any = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1, "batch_size": 6}}}
    with shop(tmp_path) as (client, store):
        rows, pairs = (
            client.files.create(file=("rows.jsonl", text), purpose="fine-tune").id for text in (few, PAIRS)
        )
        first = trained(
            client, model="tiny", training_file=rows, method=quick,
            extra_body={"dialoop": {"method": {"kind": "lora", "rank": 3}}},
        )  # fmt: skip
        dpo: Any = {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 1, "batch_size": 4}}}
        second = trained(client, model=first, training_file=pairs, method=dpo, suffix="polite")
        assert second.startswith("ft:tiny:default:polite:")
        before, after = (store.models.get(name) for name in (first, second))
        assert (before.kind, after.kind, after.base) == ("lora", "lora", before.ref)
        assert after.recipe["method"]["kind"] == "continue"
        assert weights(store, first) != weights(store, second)
        ref = store.models.resolve(second)
        assert (ref.base, ref.adapter) == (tiny_model(), after.path)
        assert json.loads((after.path / "adapter_config.json").read_text())["r"] == 3
        with pytest.raises(openai.BadRequestError, match="leave dialoop"):
            client.fine_tuning.jobs.create(
                model=first, training_file=rows, extra_body={"dialoop": {"method": {"kind": "ia3"}}}
            )
        third = client.fine_tuning.jobs.create(model=second, training_file=pairs, method=dpo).id
        with pytest.raises(openai.ConflictError, match=f"is trained on by {third}: wait, or cancel"):
            client.models.delete(second)
        client.fine_tuning.jobs.cancel(third)
        assert client.models.delete(first).deleted
        assert not before.path.exists()
        assert store.models.resolve(second) == ref
        assert [getattr(each, "ref", each) for each in store.models.lineage(second)] == [
            after.ref, before.ref, str(tiny_model())
        ]  # fmt: skip
    with shop(tmp_path) as (client, store):
        assert {model.id for model in client.models.list()} == {"tiny", second}
        assert client.chat.completions.create(model=second, messages=[{"role": "user", "content": "Hi"}])
        assert client.models.delete(second).deleted


def test_a_whole_model_goes_after_the_adapters_that_lie_on_it(tmp_path: Path) -> None:
    few = "\n".join(ROWS.decode().splitlines()[:12]).encode()
    quick: Any = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1, "batch_size": 6}}}
    with shop(tmp_path) as (client, store):
        file = client.files.create(file=("rows.jsonl", few), purpose="fine-tune").id

        def made(model: str, **method: Any) -> str:
            asked: Any = {"dialoop": {"method": method} if method else {}}
            return trained(client, model=model, training_file=file, method=quick, extra_body=asked)

        whole = made("tiny", kind="full")
        first = made(whole, kind="lora", rank=2)
        second = made(first)
        assert client.models.delete(first).deleted
        with pytest.raises(openai.ConflictError, match=f"is the base of {store.models.get(second).ref}"):
            client.models.delete(whole)
        assert store.models.resolve(second).base == store.models.get(whole).path
        assert client.models.delete(second).deleted
        assert client.models.delete(whole).deleted


def test_a_job_makes_a_classifier(tmp_path: Path) -> None:
    texts = {"order": ("Where is order {}?", "订单 {} 在哪里？"), "thanks": ("Thanks, {}!", "谢谢你，{}。")}
    text = "\n".join(
        json.dumps({"text": form.format(i), "label": label}, ensure_ascii=False)
        for label, forms in texts.items() for form in forms for i in range(4)
    ).encode()  # fmt: skip
    with shop(tmp_path) as (client, store):
        file = client.files.create(file=("rows.jsonl", text), purpose="fine-tune").id
        model = trained(
            client, model="tiny", training_file=file, validation_file=file, seed=1,
            extra_body={"dialoop": {"kind": "classify", "train": {"epochs": 6, "batch_rows": 4}}},
        )  # fmt: skip
        (job,) = client.fine_tuning.jobs.list()
        made = store.models.get(model)
        assert (made.kind, made.metrics["classes"]) == ("classify", ["order", "thanks"])
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= made.files.keys()
        lines = client.files.content(job.result_files[0]).text.splitlines()
        assert lines[0] == "step,train_loss,train_accuracy,valid_loss,valid_accuracy"
        first, last = ([float(each or "nan") for each in line.split(",")] for line in (lines[1], lines[-1]))
        assert last[1] < first[1]
        assert last[4] > 0.5


def test_bad_rows_fail_a_job_with_their_lines(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y", "weight": 0}]}
    few = "\n".join(ROWS.decode().splitlines()[:9]).encode()
    with shop(tmp_path) as (client, _):
        for text, words in (
            (ROWS + b"\n" + json.dumps(row).encode(), "line 41: no assistant"),
            (few, "has 9 rows"),
        ):
            file = client.files.create(file=("rows.jsonl", text), purpose="fine-tune").id
            job = client.fine_tuning.jobs.create(training_file=file, **ASKED)
            told(live(client, job.id), "The job failed")
            failed = client.fine_tuning.jobs.retrieve(job.id)
            assert failed.status == "failed"
            assert failed.error
            assert (failed.error.param, failed.error.code) == ("training_file", "invalid_training_file")
            assert words in failed.error.message
