"""Models with a head over HTTP: classes, and how well answers fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from dialoop.engine.loaded import open_models
from dialoop.engine.local import LocalEngine
from dialoop.engine.process import ProcessEngine
from dialoop.errors import UnsupportedError
from dialoop.train.head_answers import Answering
from dialoop.train.heads import teach
from dialoop.types import Classify, ModelRef
from tests.encoders import LONGEST, make_encoder
from tests.serve.running import serving
from tests.tiny import tiny_model
from tests.train.head_drill import LABELLED, PAIRS, ROWS, TAGGED, head_recipe

BY_HEART: dict[str, Any] = {
    "train__epochs": 150.0, "train__batch_rows": 4, "train__batch_tokens": 1024,
    "train__checkpoint_every": 500, "optim__learning_rate": 2e-3,
}  # fmt: skip
TEXTS = ["Where is my order?", "我想退货。", "Thank you!"]


@pytest.fixture(scope="module")
def refs(tmp_path_factory: pytest.TempPathFactory) -> list[ModelRef]:
    root = tmp_path_factory.mktemp("heads")
    encoder = make_encoder(root / "bert")
    made = []
    soft = {"kind": "prompt", "tokens": 3}
    for name, base, kind, method in (
        ("classes", encoder, "classify", {"kind": "full"}), ("said", tiny_model(), "classify", soft),
        ("fits", encoder, "pair", {"kind": "full"}), ("tags", encoder, "tag", {"kind": "full"}),
        ("chain", encoder, "tag", {"kind": "full"}), ("learnt", encoder, "tag", {"kind": "full"}),
    ):  # fmt: skip
        more: dict[str, Any] = {"crf": True} if name == "chain" else {}
        more |= BY_HEART if name == "learnt" else {"train__epochs": 12.0}
        recipe = head_recipe(kind, method=method, **more)
        artefact = teach(recipe, ModelRef("base", base), ROWS[kind], (), root / name).artefact
        assert artefact is not None
        made.append(ModelRef(name, artefact.base))
    return [*made, ModelRef("bert", encoder), ModelRef("tiny", tiny_model())]


@pytest.fixture(scope="module")
def url(refs: list[ModelRef]) -> Iterator[str]:
    with serving(LocalEngine(open_models(refs))) as url:
        yield url


def post(url: str, path: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{url}{path}", json=body, timeout=60)


@pytest.mark.parametrize("model", ["classes", "said"])
def test_classes_have_the_shape_that_vllm_gives_them(url: str, model: str, refs: list[ModelRef]) -> None:
    found = post(url, "/v1/classify", model=model, input=TEXTS).json()
    assert (found["object"], found["model"], found["id"][:8]) == ("list", model, "classify")
    assert [row["index"] for row in found["data"]] == [0, 1, 2]
    assert found["usage"]["prompt_tokens"] == found["usage"]["total_tokens"] > 0
    answering = Answering.load(next(ref.base for ref in refs if ref.name == model), LONGEST)
    assert [row["label"] for row in found["data"]] == answering.labels_for(TEXTS)
    for row in found["data"]:
        assert (row["num_classes"], len(row["probs"])) == (3, 3)
        assert sum(row["probs"]) == pytest.approx(1)
        assert row["label"] == answering.labels[row["probs"].index(max(row["probs"]))]


def test_one_text_alone_is_classified_as_among_others(url: str) -> None:
    texts = [row.text for row in LABELLED]
    together = post(url, "/classify", model="classes", input=texts).json()["data"]
    (alone,) = post(url, "/classify", model="classes", input=texts[3]).json()["data"]
    assert alone["probs"] == pytest.approx(together[3]["probs"], abs=1e-5)


@pytest.mark.parametrize("model", ["bert", "tiny", "fits"])
def test_a_model_that_has_no_classes_is_refused_or_gives_its_one(url: str, model: str) -> None:
    answer = post(url, "/v1/classify", model=model, input="Hello")
    if model == "fits":
        assert answer.json()["data"][0]["num_classes"] == 1
        return
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported")
    assert "dialoop tune" in answer.json()["error"]["message"]


def test_a_scorer_ranks_documents_by_how_well_they_fit(url: str, refs: list[ModelRef]) -> None:
    asked, answers = PAIRS[0].history.messages[-1].content, [pair.answer for pair in PAIRS]
    found = post(url, "/v1/rerank", model="fits", query=asked, documents=answers).json()["results"]
    answering = Answering.load(next(ref.base for ref in refs if ref.name == "fits"), LONGEST)
    wanted = answering.fits([(asked, answer) for answer in answers])
    assert [row["relevance_score"] for row in found] == pytest.approx(sorted(wanted, reverse=True), abs=1e-5)
    assert found[0]["index"] == wanted.index(max(wanted))


def test_a_scorer_scores_answers_to_a_whole_history(url: str, refs: list[ModelRef]) -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"},
                {"role": "user", "content": "Thanks"}]  # fmt: skip
    rows = post(url, "/v1/score", model="fits", messages=messages, text_2=["Bye.", "谢谢。"]).json()["data"]
    answering = Answering.load(next(ref.base for ref in refs if ref.name == "fits"), LONGEST)
    wanted = answering.fits([("Hi\nYes?\nThanks", text) for text in ("Bye.", "谢谢。")])
    assert [row["score"] for row in rows] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/classify", {"model": "classes", "input": "word " * 200}, "input"),
        ("/v1/classify", {"model": "classes", "input": ""}, "input"),
        ("/v1/score", {"model": "fits", "text_1": "word " * 200, "text_2": "a"}, "messages"),
        ("/v1/embeddings", {"model": "classes", "input": "a"}, "model"),
        ("/v1/score", {"model": "classes", "text_1": "a", "text_2": "b"}, "model"),
        ("/v1/classify", {"model": "tags", "words": ["word"] * 90}, "input"),
        ("/v1/classify", {"model": "tags", "input": "   "}, "input"),
        ("/v1/classify", {"model": "tags", "input": "a", "words": ["a"]}, "input"),
        ("/v1/classify", {"model": "tags"}, "input"),
        ("/v1/classify", {"model": "classes", "words": ["a", "b"]}, "input"),
        ("/v1/chat/completions", {"model": "tags", "messages": [{"role": "user", "content": "a"}]}, "model"),
        ("/v1/chat/completions", {"model": "fits", "messages": [{"role": "user", "content": "a"}]}, "model"),
    ],
)  # fmt: skip
def test_what_a_head_cannot_do_is_refused_by_its_field(
    url: str, path: str, body: dict[str, Any], param: str
) -> None:
    answer = post(url, path, **body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


SENTENCES = [list(row.tokens) for row in TAGGED]


@pytest.mark.parametrize("model", ["tags", "chain"])
def test_words_that_are_given_get_the_tags_that_the_model_gives_them(
    url: str, model: str, refs: list[ModelRef]
) -> None:
    found = post(url, "/v1/classify", model=model, words=SENTENCES).json()
    answering = Answering.load(next(ref.base for ref in refs if ref.name == model), LONGEST)
    wanted, _ = answering.tags_for(SENTENCES)
    assert [tuple(row["labels"]) for row in found["data"]] == wanted
    assert [row["words"] for row in found["data"]] == SENTENCES
    assert found["usage"]["prompt_tokens"] > sum(map(len, SENTENCES))
    for row in found["data"]:
        assert all(0 < score <= 1 for score in row["scores"])
        assert len(row["scores"]) == len(row["words"])
    (alone,) = post(url, "/classify", model=model, words=SENTENCES[1]).json()["data"]
    assert alone["labels"] == found["data"][1]["labels"]
    assert alone["scores"] == pytest.approx(found["data"][1]["scores"], abs=1e-5)


def test_spans_of_a_text_stand_where_its_words_do(url: str) -> None:
    text = "I met Anna Smith in Paris."
    (row,) = post(url, "/v1/classify", model="learnt", input=text).json()["data"]
    assert row["words"] == ["I", "met", "Anna", "Smith", "in", "Paris", "."]
    assert row["labels"] == ["O", "O", "B-PER", "I-PER", "O", "B-LOC", "O"]
    told = [{k: v for k, v in span.items() if k != "score"} for span in row["spans"]]
    assert told == [
        {"entity_group": "PER", "word": "Anna Smith", "start": 6, "end": 16, "words": [2, 4]},
        {"entity_group": "LOC", "word": "Paris", "start": 20, "end": 25, "words": [5, 6]},
    ]
    assert row["spans"][0]["score"] == pytest.approx(sum(row["scores"][2:4]) / 2)
    (given,) = post(url, "/v1/classify", model="learnt", words=row["words"]).json()["data"]
    assert given["labels"] == row["labels"]
    assert [(s["entity_group"], s["word"], s["start"]) for s in given["spans"]] == [
        ("PER", "Anna Smith", None), ("LOC", "Paris", None)
    ]  # fmt: skip


async def test_a_process_of_its_own_classifies_alike(refs: list[ModelRef]) -> None:
    mine = [ref for ref in refs if ref.name in ("classes", "fits")]
    engine, local = ProcessEngine(mine), LocalEngine(open_models(mine))
    assert isinstance(engine, Classify)
    try:
        assert [each.kind for each in engine.models()] == ["classifier", "scorer"]
        far, near = [await each.classify("classes", TEXTS) for each in (engine, local)]
        for one, other in zip(far.rows, near.rows, strict=True):
            assert one.label == other.label
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
        with pytest.raises(UnsupportedError, match="a classifier"):
            await engine.score("classes", PAIRS[0].history, ["a"])
    finally:
        await engine.aclose()
        await local.aclose()
