"""A classifier beside the lists: sentence by sentence, in whole texts and in streams alike."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialoop.errors import ConfigError
from dialoop.safety.classifier import ClassifierSettings, check_labels, labels_of
from dialoop.safety.filtering import AnswerFilter
from dialoop.safety.policy import Policy, SafetySettings, masked
from dialoop.safety.sentences import LONGEST, Sentences, sentences
from dialoop.types import Classification, Classified

LABELS = ("none", "violence", "self-harm")
TEXTS = st.lists(st.sampled_from(["hit", "sad", "ok", " ", ". ", "。", "!", "\n", "x" * 70, "3.14"])).map(
    "".join
)


class Reader:
    """Says violence of what has `hit` and self-harm of what has `sad`, and remembers what it read."""

    def __init__(self) -> None:
        self.read: list[str] = []

    async def classify(self, model: str, texts: Sequence[str | Sequence[int]]) -> Classification:
        rows = []
        for text in map(str, texts):
            self.read.append(text)
            shares = (0.1, 0.8 * ("hit" in text), 0.6 * ("sad" in text))
            rows.append(Classified(LABELS[shares.index(max(shares))], shares))
        return Classification(tuple(rows), 1, LABELS)


def policy_of(reader: Reader, **settings: object) -> Policy:
    classifier = ClassifierSettings.model_validate({"model": "judge", **settings})
    return Policy.of(SafetySettings(lists=(), classifier=classifier, actions={"self-harm": "mask"}), reader)


@given(TEXTS, st.lists(st.integers(0, 400), max_size=6))
def test_sentences_are_the_same_however_a_text_is_cut(text: str, places: list[int]) -> None:
    cuts = sorted(min(place, len(text)) for place in places)
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    parts = Sentences()
    found = [each for piece in pieces for each in parts.push(piece)] + parts.push("", last=True)
    assert found == sentences(text)
    assert "".join(sentence for _, sentence in found) == text
    assert all(0 < len(sentence) <= LONGEST for _, sentence in found)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("One. Two!  Three", ["One.", " Two!", "  Three"]),
        ("It is 3.14 km at a.example.com", ["It is 3.14 km at a.example.com"]),
        ("你好。“再见！”他说", ["你好。", "“再见！”", "他说"]),
        ("What?!... so\nit", ["What?!...", " so\n", "it"]),
    ],
)
def test_sentences_end_where_people_end_them(text: str, parts: list[str]) -> None:
    assert [sentence for _, sentence in sentences(text)] == parts


def test_a_text_is_as_likely_as_its_likeliest_sentence() -> None:
    reader = Reader()
    (judged,) = asyncio.run(policy_of(reader).judge(["All ok. I hit you!  So sad. …"]))
    assert judged.probabilities == {"violence": 0.8, "self-harm": 0.6}
    assert [(find.category, find.action, find.entry) for find in judged.finds] == [
        ("violence", "flag", "judge 0.80"), ("self-harm", "mask", "judge 0.60")
    ]  # fmt: skip
    assert reader.read == ["All ok.", " I hit you!", "  So sad."]


def test_what_was_read_before_is_not_read_again() -> None:
    reader = Reader()
    policy = policy_of(reader)
    first = asyncio.run(policy.judge(["I hit. I hit.", "So sad."]))
    again = asyncio.run(policy.blocking.judge(["I hit. I hit.", "So sad.", "ok"]))
    assert reader.read == ["I hit.", " I hit.", "So sad.", "ok"]
    assert [each.probabilities for each in again[:2]] == [each.probabilities for each in first]


def test_each_category_counts_from_its_threshold_on() -> None:
    policy = policy_of(Reader(), threshold=0.7, thresholds={"self-harm": 0.5}, action="block")
    hit, sad = asyncio.run(policy.judge(["hit", "sad"]))
    assert [(find.category, find.action) for find in (*hit.finds, *sad.finds)] == [
        ("violence", "block"), ("self-harm", "mask")
    ]  # fmt: skip
    (stricter,) = asyncio.run(policy_of(Reader(), threshold=0.9).judge(["hit"]))
    assert (stricter.finds, stricter.probabilities["violence"]) == ((), 0.8)


@given(TEXTS, st.lists(st.integers(0, 400), max_size=5))
def test_a_streamed_answer_is_judged_like_the_whole(text: str, places: list[int]) -> None:
    policy = policy_of(Reader())

    async def said() -> tuple[str, list[str]]:
        answer, out, found = AnswerFilter(policy), "", list[str]()
        cuts = sorted(min(place, len(text)) for place in places)
        for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True):
            passed = await answer.push(text[a:b])
            out, found = out + passed.text, found + [answer.excerpt(find) for find in passed.finds]
        passed = await answer.end()
        return out + passed.text, found + [answer.excerpt(find) for find in passed.finds]

    (judged,) = asyncio.run(policy.judge([text]))
    out, found = asyncio.run(said())
    assert out == masked(text, judged.finds)
    assert sorted(found) == sorted(text[find.start : find.end] for find in judged.finds)


def test_an_answer_is_held_back_by_a_sentence_at_most() -> None:
    async def heard() -> list[tuple[str, bool]]:
        answer = AnswerFilter(policy_of(Reader(), action="block"))
        passed = [await answer.push(piece) for piece in ("All is ", "well. I", " hit", " you. ")]
        return [(each.text, each.blocked) for each in passed]

    assert asyncio.run(heard()) == [("", False), ("All is well.", False), ("", False), (" ", True)]


def test_a_model_without_categories_is_no_classifier(tmp_path: Path) -> None:
    settings = ClassifierSettings(model="intents")
    with pytest.raises(ConfigError, match="has no head for classes"):
        check_labels(settings, tmp_path)
    config = {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "refund", "1": "track"}}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ConfigError, match="has the classes refund, track"):
        check_labels(settings, tmp_path)
    config["id2label"] = {"0": "none", "1": "hate"}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    check_labels(settings, tmp_path)
    assert labels_of(tmp_path) == ("none", "hate")


def test_an_engine_that_tells_no_classes_cannot_be_asked() -> None:
    settings = SafetySettings(classifier=ClassifierSettings(model="judge"))
    with pytest.raises(ConfigError, match="tells no classes"):
        Policy.of(settings, object())
