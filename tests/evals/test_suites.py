"""Metrics of every task: parity with their libraries, in English and in Chinese, and what they mean."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import rjieba
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz import fuzz
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import TER

from dialoop.errors import EvalError
from dialoop.evals.embedding import cosine, embedding_similarity, vectors_of
from dialoop.evals.form import endless, equal_json, refuses, right_refusals, valid_json
from dialoop.evals.graders import similarity
from dialoop.evals.metrics import rouge
from dialoop.evals.rouge import rouge_l, rouge_n
from dialoop.evals.suites import TASKS, task_named
from dialoop.evals.translation import meteor, meteor_of, ter
from dialoop.evals.words import chinese_words, words
from dialoop.types import Embedded

tokens = st.lists(st.sampled_from("abcde"), max_size=12)
PAIRS = {
    "en": (["the order is here", "no", "please wait a day"], ["the order was here", "yes", "please wait"]),
    "zh": (["您的包裹明天送达", "好的", "请稍等一下"], ["您的包裹后天送达", "不行", "请稍等"]),
}


class Tokens:
    """Tokens as they are, for rouge-score."""

    def tokenize(self, text: str) -> list[str]:
        return text.split()


@settings(max_examples=60)
@given(tokens, tokens)
def test_rouge_of_tokens_equals_rouge_scores_own(said: list[str], right: list[str]) -> None:
    kinds = ["rouge1", "rouge2", "rouge3", "rougeL"]
    theirs = RougeScorer(kinds, tokenizer=Tokens()).score(" ".join(right), " ".join(said))
    ours = [rouge_n(1, said, right), rouge_n(2, said, right), rouge_n(3, said, right), rouge_l(said, right)]
    assert ours == pytest.approx([theirs[kind].fmeasure for kind in kinds])


@pytest.mark.parametrize("by", ["characters", "words"])
def test_chinese_rouge_equals_rouge_scores_own_on_the_same_tokens(by: str) -> None:
    cut = words if by == "characters" else chinese_words
    said, right = PAIRS["zh"]
    scorer = RougeScorer(["rougeL"], tokenizer=Tokens())
    theirs = [
        scorer.score(" ".join(cut(r)), " ".join(cut(s)))["rougeL"].fmeasure
        for s, r in zip(said, right, strict=True)
    ]
    metric = rouge("rougeL", by=by)  # type: ignore[arg-type]
    assert metric.value(said, right) == pytest.approx(100 * float(np.mean(theirs)))
    assert 0 < metric.value(said, right) < 100
    assert ("tok:rjieba" if by == "words" else "tok:cjk-char+word") in metric.signature


def test_chinese_words_are_rjiebas_without_punctuation() -> None:
    text = "您的包裹，明天送达！OK"
    assert chinese_words(text) == [w for w in rjieba.cut(text.lower()) if w not in "，！"]
    assert rouge("rougeL", by="words").name == "ROUGE-L by words"


@settings(max_examples=60)
@given(st.text(max_size=12), st.text(max_size=12))
def test_fuzzy_matches_are_rapidfuzzs_ratio(text: str, other: str) -> None:
    assert similarity("fuzzy_match", text, other) == pytest.approx(fuzz.ratio(text, other) / 100)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_ter_equals_sacrebleus(language: str) -> None:
    said, right = PAIRS[language]
    chinese = language == "zh"
    theirs = TER(normalized=chinese, asian_support=chinese).corpus_score(said, [right])
    ours = ter(language)
    assert ours.value(said, right) == pytest.approx(theirs.score)
    assert ours.higher_is_better is False
    assert f"version:{sacrebleu.__version__}" in ours.signature
    assert ours.value([""], [""]) == 0


def test_meteor_is_nltks_without_synonyms() -> None:
    # The example of nltk's own documentation, whose pairs match exactly or by stem alone.
    said = "it is a guide to action which ensures that the military always obeys the commands of the party"
    right = "it is a guide to action that ensures that the military will forever heed party commands"
    assert meteor_of(said.split(), right.split()) == pytest.approx(0.6944, abs=5e-5)
    assert meteor_of(["orders"], ["order"]) > 0
    assert meteor().value(*PAIRS["zh"]) > 0


@pytest.mark.parametrize(("text", "refused"), [
    ("I'm sorry, but I can't help with that.", True),
    ("I cannot share other customers' data.", True),
    ("抱歉，我无法提供他人的地址。", True),
    ("我不能帮助您做这件事。", True),
    ("Your order can be returned within 30 days.", False),
    ("您可以在三十天内退货。", False),
    ("You cannot miss it, the shop is on the left.", False),
])  # fmt: skip
def test_refusals_are_known_in_both_languages(text: str, refused: bool) -> None:
    assert refuses(text) is refused


def test_a_refusal_is_right_where_the_reference_refuses() -> None:
    no, yes = "I can't help with that.", "It will come tomorrow."
    assert right_refusals().value([no, no, yes], [no, yes, yes]) == pytest.approx(200 / 3)


def test_json_is_valid_from_end_to_end_and_equal_by_value() -> None:
    right = ['{"a": 1, "b": [2]}'] * 4
    said = ['{"b": [2], "a": 1}', '{"a": 1}', 'Here: {"a": 1}', '{"a": NaN}']
    assert valid_json().value(said, right) == 50
    assert equal_json().value(said, right) == 25


def test_answers_without_end_are_counted() -> None:
    assert endless().value(["yes " * 40, "yes"], ["yes", "yes"]) == 50
    assert endless().higher_is_better is False


class Letters:
    """Embeds texts by counts of letters."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def embed(
        self, model: str, texts: list[str], *, normalize: bool = True, dimensions: int | None = None
    ) -> Embedded:
        self.asked += texts
        return Embedded(tuple(tuple(float(text.count(c)) for c in "abc") for text in texts), 1)


def test_similarity_in_meaning_is_the_cosine_of_an_engines_vectors() -> None:
    engine = Letters()

    def embed(texts: list[str]) -> np.ndarray:
        return asyncio.run(vectors_of(engine, "letters", texts))  # type: ignore[arg-type]

    metric = embedding_similarity(embed, "letters")  # type: ignore[arg-type]
    assert metric.value(["ab", "c", ""], ["ba", "a", "a"]) == pytest.approx(100 / 3)
    assert engine.asked == ["ab", "c", "ba", "a"]
    assert "model:letters" in metric.signature
    assert cosine([1, 0], [1, 1]) == pytest.approx(2**-0.5)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_task_judges_both_languages_and_a_perfect_answer_best(name: str, language: str) -> None:
    task = task_named(name)
    said, right = PAIRS[language]
    found = [m for m in task.metrics(language, right) if m.reads == "text"]
    for metric in found:
        perfect, other = metric.value(right, right), metric.value(said, right)
        if metric.higher_is_better is not None:
            assert perfect >= other if metric.higher_is_better else perfect <= other
    names = {m.name for m in task.metrics(language, right)}
    assert set(task.headline) | set(task.baseline) <= names
    assert task.side().higher_is_better


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(EvalError, match="did you mean 'translation'"):
        task_named("translate")
