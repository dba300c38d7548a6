"""/v1/evals through the official client, over an engine that repeats what it is told."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import replace
from typing import Any

import openai
import pytest
from openai import OpenAI

from dialoop.backends.echo import EchoEngine
from dialoop.evals.graders import similarity
from dialoop.store.registry import Store
from dialoop.types import ChatRequest, Delta, Embedded
from tests.serve.running import serving

ITEMS = [("hello", "hello"), ("退货", "退货"), ("hello", "goodbye")]
SCHEMA = {"type": "object", "properties": {"ask": {}, "want": {}}, "required": ["ask", "want"]}
EQUAL = {
    "type": "string_check", "name": "equal", "operation": "eq",
    "input": "{{sample.output_text}}", "reference": "{{item.want}}",
}  # fmt: skip
ALIKE = {
    "type": "text_similarity", "name": "alike", "evaluation_metric": "rouge_l", "pass_threshold": 0.9,
    "input": "{{ sample.output_text }}", "reference": "{{item.want}}",
}  # fmt: skip
TEMPLATE = {"type": "template", "template": [{"role": "user", "content": "{{item.ask}}"}]}


ASKED = [{"role": "user", "content": "judge: {{sample.output_text}}"}]
LABELS = {
    "type": "label_model", "name": "label", "model": "echo", "input": ASKED, "labels": ["good", "bad"],
    "passing_labels": ["good"],
}  # fmt: skip
SCORE = {
    "type": "score_model", "name": "score", "model": "echo", "input": ASKED, "range": [0, 10],
    "pass_threshold": 6,
}  # fmt: skip


class Judge(EchoEngine):
    """Keeps to whatever form its script has, and embeds texts by their letters."""

    def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        return super().chat(replace(request, sampling=replace(request.sampling, grammar=None)))

    async def embed(
        self, model: str, texts: Sequence[str | Sequence[int]], *, normalize: bool = True,
        dimensions: int | None = None,
    ) -> Embedded:  # fmt: skip
        return Embedded(tuple(tuple(float(str(text).count(c)) for c in "abcde") for text in texts), 1)


@pytest.fixture(scope="module")
def judging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    script = {
        "judge: abc": '{"label": "good"}', "judge: cba": '{"label": "bad"}',
        "judge: high": '{"score": 8.5}', "judge: low": '{"score": 2}', "judge: odd": '{"score": 11}',
    }  # fmt: skip
    store = Store.open(tmp_path_factory.mktemp("judge"))
    with (
        serving(Judge(script), store=store) as url,
        OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


def answers(*pairs: tuple[str, str]) -> dict[str, Any]:
    content = [{"item": {"ask": "", "want": want}, "sample": {"output_text": said}} for said, want in pairs]
    return {"type": "jsonl", "source": {"type": "file_content", "content": content}}


def scores(client: OpenAI, criterion: Any, *pairs: tuple[str, str]) -> list[tuple[str, float | None]]:
    """(status, score) of each row, in order."""
    made = created(client, criterion)
    run = ended(client, made, answers(*pairs))
    items = client.evals.runs.output_items.list(run.id, eval_id=made.id).data
    ordered = sorted(items, key=lambda item: item.datasource_item_id)
    return [(item.status, item.results[0].score if item.results else None) for item in ordered]


def test_a_model_labels_answers(judging: OpenAI) -> None:
    found = scores(judging, LABELS, ("abc", ""), ("cba", ""), ("neither", ""))
    assert found == [("pass", 1.0), ("fail", 0.0), ("error", None)]


def test_a_model_scores_answers_within_the_range(judging: OpenAI) -> None:
    found = scores(judging, SCORE, ("high", ""), ("low", ""), ("odd", ""))
    assert found == [("pass", 8.5), ("fail", 2.0), ("error", None)]


def test_vectors_of_a_served_model_compare_texts(judging: OpenAI) -> None:
    found = scores(
        judging, {**ALIKE, "evaluation_metric": "cosine"}, ("abc", "cba"), ("aab", "b"), ("", "a"), ("", "")
    )
    assert [status for status, _ in found] == ["pass", "fail", "fail", "pass"]
    assert [score for _, score in found] == pytest.approx([1, 1 / 5**0.5, 0, 1])


def test_a_judge_that_is_not_served_is_refused(judging: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="served: echo"):
        created(judging, {**LABELS, "model": "other"})


def test_a_model_that_keeps_to_no_form_is_an_error_of_the_row(client: OpenAI) -> None:
    assert scores(client, LABELS, ("abc", "")) == [("error", None)]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    store = Store.open(tmp_path_factory.mktemp("home"))
    with (
        serving(EchoEngine(), store=store) as url,
        OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


def created(client: OpenAI, *criteria: Any) -> Any:
    config = {"type": "custom", "item_schema": SCHEMA, "include_sample_schema": True}
    return client.evals.create(
        name="shop", data_source_config=config, testing_criteria=list(criteria or (EQUAL, ALIKE))
    )


def ended(client: OpenAI, made: Any, source: dict[str, Any]) -> Any:
    """The run once it has ended; the client's own waiting, by asking again."""
    run = client.evals.runs.create(made.id, data_source=source)
    while run.status in ("queued", "in_progress"):
        run = client.evals.runs.retrieve(run.id, eval_id=made.id)
    return run


def rows(*items: Any) -> dict[str, Any]:
    return {"type": "file_content", "content": [{"item": item} for item in items]}


def test_a_model_answers_a_file_and_every_answer_is_graded(client: OpenAI) -> None:
    lines = "\n".join(json.dumps({"item": {"ask": ask, "want": want}}) for ask, want in ITEMS)
    file = client.files.create(file=("rows.jsonl", lines.encode()), purpose="evals")
    made = created(client)
    run = ended(client, made, {
        "type": "completions", "model": "echo", "input_messages": TEMPLATE,
        "source": {"type": "file_id", "id": file.id}, "sampling_params": {"temperature": 0.0},
    })  # fmt: skip
    assert run.status == "completed"
    assert run.result_counts.model_dump() == {"total": 3, "passed": 2, "failed": 1, "errored": 0}
    told = {each.testing_criteria: (each.passed, each.failed) for each in run.per_testing_criteria_results}
    assert told == {"equal": (2, 1), "alike": (2, 1)}
    assert run.per_model_usage[0].invocation_count == 3
    items = list(client.evals.runs.output_items.list(run.id, eval_id=made.id, limit=2))
    assert sorted(item.datasource_item_id for item in items) == [0, 1, 2]
    failed = client.evals.runs.output_items.list(run.id, eval_id=made.id, status="fail").data
    assert [item.sample.output[0].content for item in failed] == ["hello"]
    one = client.evals.runs.output_items.retrieve(failed[0].id, eval_id=made.id, run_id=run.id)
    assert one.model_dump() == failed[0].model_dump()


def test_rows_with_their_answers_are_graded_as_they_are(client: OpenAI) -> None:
    made = created(client, EQUAL)
    content = [
        {"item": {"ask": "", "want": want}, "sample": {"output_text": said}}
        for want, said in (("a", "a"), ("b", "c"))
    ]
    run = ended(client, made, {"type": "jsonl", "source": {"type": "file_content", "content": content}})
    assert (run.result_counts.passed, run.result_counts.failed) == (1, 1)
    assert run.per_model_usage == []


def test_stored_completions_are_graded_as_they_were_answered(client: OpenAI) -> None:
    for text in ("one", "two"):
        client.chat.completions.create(
            model="echo", messages=[{"role": "user", "content": text}], store=True, metadata={"set": text}
        )
    check = {**EQUAL, "reference": "one"}
    config = {"type": "stored_completions", "metadata": {"set": "one"}}
    made = client.evals.create(data_source_config=config, testing_criteria=[check])
    source = {"type": "stored_completions", "metadata": {"set": "one"}}
    run = ended(client, made, {"type": "completions", "source": source})
    assert run.result_counts.model_dump() == {"total": 1, "passed": 1, "failed": 0, "errored": 0}


def test_what_a_row_lacks_is_told_of_that_row(client: OpenAI) -> None:
    made = created(client, {**EQUAL, "reference": "{{item.other}}"})
    source = {"type": "completions", "model": "echo", "input_messages": TEMPLATE,
              "source": rows({"ask": "a", "want": "a"})}  # fmt: skip
    run = ended(client, made, source)
    assert (run.status, run.result_counts.errored) == ("completed", 1)
    item = client.evals.runs.output_items.list(run.id, eval_id=made.id).data[0]
    assert item.status == "error"
    assert item.sample.error.code == "invalid_item"


@pytest.mark.parametrize(("criterion", "words"), [
    ({"type": "python", "name": "x", "source": ""}, "the server runs no code that it is sent"),
    ({"type": "label_model", "name": "x"}, "testing_criteria.0.model: Field required"),
    ({**LABELS, "passing_labels": ["fine"]}, "'fine' is none of the labels"),
    ({**SCORE, "range": [1, 0]}, "give the lowest score"),
    ({**SCORE, "pass_threshold": 11}, "give a score from 0.0 to 10.0"),
    ({**SCORE, "sampling_params": {"stream": True}}, "stream is not for graders"),
    ({**EQUAL, "operation": "near"}, "testing_criteria.0.operation"),
    ({**EQUAL, "input": "{{row.want}}"}, "names nothing"),
    ({**ALIKE, "pass_threshold": 2}, "testing_criteria.0.pass_threshold"),
])  # fmt: skip
def test_graders_that_cannot_grade_are_refused(client: OpenAI, criterion: Any, words: str) -> None:
    with pytest.raises(openai.BadRequestError, match=words.replace(".", r"\.")):
        created(client, criterion)


@pytest.mark.parametrize(("source", "status", "words"), [
    ({"type": "completions", "source": rows({"ask": "", "want": ""})}, 400, "model is missing"),
    ({"type": "completions", "model": "ecko", "source": rows({"ask": "", "want": ""})}, 404, "served: echo"),
    ({"type": "completions", "model": "echo", "source": rows({"ask": "", "want": ""})}, 400, "messages is m"),
    ({"type": "jsonl", "source": rows({"ask": ""})}, 400, "row 1 has no 'want'"),
    ({"type": "jsonl", "source": {"type": "file_id", "id": "file-1"}}, 400, "no file"),
])  # fmt: skip
def test_runs_that_cannot_run_are_refused(client: OpenAI, source: Any, status: int, words: str) -> None:
    with pytest.raises(openai.APIStatusError, match=words) as refused:
        client.evals.runs.create(created(client).id, data_source=source)
    assert refused.value.status_code == status


def test_evals_are_listed_renamed_and_deleted_with_their_runs(client: OpenAI) -> None:
    made = created(client, EQUAL)
    run = ended(client, made, {"type": "jsonl", "source": rows({"ask": "", "want": ""})})
    assert client.evals.update(made.id, name="other").name == "other"
    assert client.evals.retrieve(made.id).testing_criteria == made.testing_criteria
    assert made.id in [each.id for each in client.evals.list()]
    with pytest.raises(openai.BadRequestError, match="cannot be canceled"):
        client.evals.runs.cancel(run.id, eval_id=made.id)
    assert [each.id for each in client.evals.runs.list(made.id, status="completed")] == [run.id]
    assert client.evals.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.evals.runs.retrieve(run.id, eval_id=made.id)


@pytest.mark.parametrize("metric", ["fuzzy_match", "bleu", "gleu", "meteor", "rouge_1", "rouge_2", "rouge_l"])
@pytest.mark.parametrize(("text", "other"), [
    ("你好，请问有什么可以帮您？", "今天天气真不错啊朋友"),
    ("please tell me the order number", "quite another"),
])  # fmt: skip
def test_similarity_is_one_for_equal_texts_and_less_for_others_in_both_languages(
    metric: Any, text: str, other: str
) -> None:
    # METEOR holds even a single run of matches against an answer.
    assert similarity(metric, text, text) == pytest.approx(1, abs=3e-3 if metric == "meteor" else 1e-9)
    assert similarity(metric, text, other) < 0.4
    half = text[: len(text) // 2]
    assert similarity(metric, text, other) < similarity(metric, half, text) < 1
