"""Every method, objective and head: a job over HTTP, and its model asked by the official client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from openai import OpenAI, Stream
from openai.types.fine_tuning import FineTuningJobEvent

from tests.serve.running import WAIT, commanded
from tests.tiny import tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ANSWER = "Your order has been shipped. 您的订单已经发货。"
WORSE = "No idea. 不知道。"
METHODS: dict[str, dict[str, Any]] = {
    "full": {"kind": "full"},
    "freeze": {"kind": "freeze", "layers": 1},
    "lora": {"kind": "lora", "rank": 4},
    "rslora": {"kind": "lora", "rank": 4, "rslora": True},
    "dora": {"kind": "lora", "rank": 4, "dora": True},
    "lora over int8": {"kind": "lora", "rank": 4, "base_precision": "int8"},
    "houlsby": {"kind": "bottleneck", "size": 8, "placement": "houlsby"},
    "pfeiffer": {"kind": "bottleneck", "size": 8},
    "parallel": {"kind": "bottleneck", "size": 8, "placement": "parallel"},
    "bitfit": {"kind": "bitfit"},
    "ia3": {"kind": "ia3"},
    "prompt": {"kind": "prompt", "tokens": 4},
    "prefix": {"kind": "prefix", "tokens": 4, "hidden": 32},
    "p-tuning-v2": {"kind": "p-tuning-v2", "tokens": 4},
}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "dpo": {"kind": "dpo"},
    "conservative dpo": {"kind": "dpo", "label_smoothing": 0.1},
    "ipo": {"kind": "dpo", "loss": "ipo"},
    "orpo": {"kind": "orpo"},
    "simpo": {"kind": "simpo"},
}
GONE_ON = ("lora", "dora", "pfeiffer", "bitfit", "ia3", "prompt", "prefix")


def question(i: int) -> list[Any]:
    return [{"role": "user", "content": f"Where is order {i}? 订单 {i}"}]


def lines(rows: list[Any]) -> bytes:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


DIALOGUES = lines([{"messages": [*question(i), {"role": "assistant", "content": ANSWER}]} for i in range(16)])
PAIRS = lines([
    {
        "input": {"messages": question(i)},
        "preferred_output": [{"role": "assistant", "content": ANSWER}],
        "non_preferred_output": [{"role": "assistant", "content": WORSE}],
    }
    for i in range(16)
])  # fmt: skip
LABELLED = {
    "order": ("Where is my order?", "Has order 4 been shipped?", "我的订单在哪里？", "订单发货了吗？"),
    "return": ("I want to return shoes.", "Can I return it?", "我想退货。", "怎么退货？"),
    "thanks": ("Thank you!", "Thanks a lot", "谢谢。", "非常感谢"),
}
TAGGED = [
    (["I", "met", "Anna", "Smith", "in", "Paris"], ["O", "O", "B-PER", "I-PER", "O", "B-LOC"]),
    (["Paris", "is", "large"], ["B-LOC", "O", "O"]),
    (["王", "先生", "在", "北京"], ["B-PER", "I-PER", "O", "B-LOC"]),
    (["Anna", "called", "Smith"], ["B-PER", "O", "B-PER"]),
]
ANSWERS = {
    "Where is my order?": "It ships today.", "I want to return shoes.": "Please tell me the order number.",
    "我的订单在哪里？": "预计明天送达。", "我想退货。": "请告诉我订单号，谢谢。",
}  # fmt: skip


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    with (
        commanded(tmp_path_factory.mktemp("home"), str(tiny_model()), "--max-tuned", "1") as url,
        OpenAI(base_url=url, api_key="none", max_retries=0, timeout=WAIT) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def base(client: OpenAI) -> str:
    return client.models.list().data[0].id


def trained(client: OpenAI, rows: bytes, **fields: Any) -> tuple[str, list[float]]:
    """The model of a job that went well, and its training losses."""
    file = client.files.create(file=("rows.jsonl", rows), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(training_file=file.id, seed=1, **fields)
    events = list(client.get(
        f"/fine_tuning/jobs/{job.id}/events?stream=true", cast_to=FineTuningJobEvent, stream=True,
        stream_cls=Stream[FineTuningJobEvent],
    ))  # fmt: skip
    done = client.fine_tuning.jobs.retrieve(job.id)
    assert done.status == "succeeded", events[-1].message
    assert done.fine_tuned_model
    metrics: list[Any] = [event.data for event in events if event.type == "metrics"]
    return done.fine_tuned_model, [each["train_loss"] for each in metrics]


def supervised(**ours: Any) -> dict[str, Any]:
    hyperparameters = {"n_epochs": 6, "batch_size": 4}
    method = {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}
    return {"method": method, "extra_body": {"dialoop": ours}}


def preferring(**ours: Any) -> dict[str, Any]:
    hyperparameters = {"n_epochs": 4, "batch_size": 4, "learning_rate_multiplier": 5.0}
    return {
        "method": {"type": "dpo", "dpo": {"hyperparameters": hyperparameters}},
        "extra_body": {"dialoop": ours},
    }


def likelihoods(client: OpenAI, model: str) -> tuple[float, float]:
    """The log-probabilities of the better and of the worse answer."""
    body = {"model": model, "messages": question(3), "text_2": [ANSWER, WORSE]}
    told = client.post("/score", cast_to=dict, body=body)
    good, bad = (row["logprob"] for row in told["data"])
    return good, bad


def says(client: OpenAI, model: str) -> str:
    chat = client.chat.completions.create(model=model, messages=question(3), temperature=0, max_tokens=40)
    return chat.choices[0].message.content or ""


@pytest.mark.parametrize("name", METHODS)
def test_a_job_of_every_method_learns_and_its_model_answers(name: str, client: OpenAI, base: str) -> None:
    model, losses = trained(client, DIALOGUES, model=base, **supervised(method=METHODS[name]))
    assert losses[-1] < losses[0]
    assert likelihoods(client, model)[0] > likelihoods(client, base)[0] + 1
    assert says(client, model)
    assert client.models.delete(model).deleted


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_job_of_every_preference_objective_prefers(name: str, client: OpenAI, base: str) -> None:
    model, _ = trained(client, PAIRS, model=base, **preferring(objective=OBJECTIVES[name]))
    before, after = likelihoods(client, base), likelihoods(client, model)
    assert after[0] - after[1] > before[0] - before[1]
    assert says(client, model)


def test_a_job_learns_from_a_teacher_that_a_job_made(client: OpenAI, base: str) -> None:
    teacher, _ = trained(client, DIALOGUES, model=base, **supervised(method=METHODS["full"]))
    distil = {"kind": "distill", "teacher": teacher, "alpha": 0.2}
    model, losses = trained(client, DIALOGUES, model=base, **supervised(objective=distil))
    assert losses[-1] < losses[0]
    assert likelihoods(client, model)[0] > likelihoods(client, base)[0] + 1


@pytest.mark.parametrize("name", GONE_ON)
def test_imitation_is_followed_by_preference_on_the_same_adapter(
    name: str, client: OpenAI, base: str
) -> None:
    first, _ = trained(client, DIALOGUES, model=base, **supervised(method=METHODS[name]))
    second, _ = trained(client, PAIRS, model=first, **preferring())
    (plain, _), before, after = (likelihoods(client, model) for model in (base, first, second))
    assert after[0] - after[1] > before[0] - before[1]
    assert after[0] > plain
    assert says(client, second)


@pytest.mark.parametrize("method", ["full", "lora", "prompt"])
def test_a_job_makes_a_classifier_of_a_decoder(method: str, client: OpenAI, base: str) -> None:
    rows = [{"text": text, "label": label} for label, texts in LABELLED.items() for text in texts]
    model, losses = trained(client, lines(rows), model=base, extra_body={"dialoop": {
        "kind": "classify", "method": METHODS[method], "train": {"epochs": 40, "batch_rows": 4},
        "optim": {"learning_rate": 3e-2 if method == "prompt" else 5e-3},
    }})  # fmt: skip
    assert losses[-1] < losses[0]
    told = client.post("/classify", cast_to=dict, body={"model": model, "input": [r["text"] for r in rows]})
    right = [row["label"] == wanted["label"] for row, wanted in zip(told["data"], rows, strict=True)]
    assert sum(right) >= 10


@pytest.mark.parametrize("loss", ["binary", "in-batch"])
def test_a_job_makes_a_scorer_that_ranks(loss: str, client: OpenAI, base: str) -> None:
    rows = [
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}
        for asked, answer in ANSWERS.items()
    ] * 3
    model, _ = trained(client, lines(rows), model=base, extra_body={"dialoop": {
        "kind": "pair", "loss": loss, "negatives": 3, "train": {"epochs": 40, "batch_rows": 12},
        "optim": {"learning_rate": 5e-3},
    }})  # fmt: skip
    documents = list(ANSWERS.values())
    right = 0
    for asked, answer in ANSWERS.items():
        body = {"model": model, "query": asked, "documents": documents}
        best = client.post("/rerank", cast_to=dict, body=body)["results"][0]
        right += documents[best["index"]] == answer
    assert right >= 3


@pytest.mark.parametrize("crf", [False, True])
def test_a_job_makes_a_tagger(crf: bool, client: OpenAI, base: str) -> None:
    rows = [{"tokens": tokens, "tags": tags} for tokens, tags in TAGGED] * 3
    model, _ = trained(client, lines(rows), model=base, extra_body={"dialoop": {
        "kind": "tag", "crf": crf, "train": {"epochs": 40, "batch_rows": 4}, "optim": {"learning_rate": 5e-3},
    }})  # fmt: skip
    told = client.post(
        "/classify", cast_to=dict, body={"model": model, "words": [tokens for tokens, _ in TAGGED]}
    )
    right = sum(row["labels"] == tags for row, (_, tags) in zip(told["data"], TAGGED, strict=True))
    assert right >= 3
    (row,) = client.post("/classify", cast_to=dict, body={"model": model, "input": "Paris is large"})["data"]
    assert row["words"] == ["Paris", "is", "large"]
