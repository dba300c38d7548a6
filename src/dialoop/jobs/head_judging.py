"""A trained head beside what it must beat, on the test rows."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dialoop.chat.pairs import history_text
from dialoop.config import FullMethod
from dialoop.config.heads import ClassifyRecipe, PairRecipe, TagRecipe
from dialoop.data.dataset import Dataset
from dialoop.data.language import detect
from dialoop.data.spans import repaired
from dialoop.evals.baselines import bm25_ranking, majority, memorised_tags, tfidf_regression
from dialoop.evals.classes import class_report, confusion, span_report
from dialoop.evals.head_report import HeadReport, System, by_language
from dialoop.evals.labels import calibration_error
from dialoop.evals.ranking import ndcg, recall_at, reciprocal_rank
from dialoop.jobs.choices import choices_of
from dialoop.models.encoder import is_encoder
from dialoop.models.head_config import HeadKind, head_kind
from dialoop.models.headed_method import attach_head
from dialoop.train.head_answers import Answering
from dialoop.train.heads import FITS, classes_of, longest_text, tags_of
from dialoop.types import Labelled, ModelRef, Pair, Tagged

RANKED = (recall_at(1), recall_at(3), reciprocal_rank(), ndcg(10))
Values = Mapping[str, float]
Identity = Mapping[str, Any]


def judge_classes(
    recipe: ClassifyRecipe,
    dataset: Dataset[Labelled],
    base: ModelRef,
    made: ModelRef,
    identity: Identity,
) -> HeadReport:
    """The commonest class, TF-IDF with a logistic regression, the base with a new head, and the tuned one."""
    texts, gold = [row.text for row in dataset.test], [row.label for row in dataset.test]
    longest = longest_text(base.base, recipe.train.max_length)
    models = {
        "before": _untaught(base, "sequence", classes_of(dataset.train), recipe, longest),
        "after": Answering.load(made.base, longest),
    }
    sure = {name: model.log_probabilities(texts) for name, model in models.items()}
    found = {
        "majority": majority(dataset.train, len(gold)),
        "TF-IDF + LR": tfidf_regression(dataset.train, texts),
        **{name: model.likeliest(sure[name]) for name, model in models.items()},
    }
    places = by_language([_language(row.metadata, row.text) for row in dataset.test])

    def values(system: str, rows: Sequence[int]) -> Values:
        report = class_report([gold[i] for i in rows], [found[system][i] for i in rows])
        told = {
            "accuracy": report.accuracy, "macro F1": report.average("macro").f1,
            "weighted F1": report.average("weighted").f1,
        }  # fmt: skip
        if system in sure:
            labels = models[system].labels
            grades = [[float(label == gold[i]) for label in labels] for i in rows]
            told["ECE"] = calibration_error().value([sure[system][i] for i in rows], grades) / 100
        return told

    details = {"Classes, after": class_report(gold, found["after"])}
    report = _report(f"{recipe.name}: classes of texts", found, places, values, details, identity)
    return replace(report, confusion=confusion(gold, found["after"]))


def judge_tags(
    recipe: TagRecipe, dataset: Dataset[Tagged], base: ModelRef, made: ModelRef, identity: Identity
) -> HeadReport:
    """O everywhere, each word's commonest tag, the base with a new head, and the tuned one."""
    sentences, gold = [row.tokens for row in dataset.test], [row.tags for row in dataset.test]
    longest = longest_text(base.base, recipe.train.max_length)
    known = memorised_tags([(row.tokens, row.tags) for row in dataset.train])
    after, cut = Answering.load(made.base, longest).tags_for(sentences)
    untaught = _untaught(base, "token", tags_of(dataset.train), recipe, longest)
    found = {
        "all O": [("O",) * len(tokens) for tokens in sentences],
        "word's commonest tag": [repaired([known.get(t, "O") for t in tokens]) for tokens in sentences],
        "before": untaught.tags_for(sentences)[0],
        "after": after,
    }
    places = by_language([_language(row.metadata, " ".join(row.tokens)) for row in dataset.test])

    def values(system: str, rows: Sequence[int]) -> Values:
        right, said = [gold[i] for i in rows], [found[system][i] for i in rows]
        words, spans = class_report(_flat(right), _flat(said)), span_report(right, said)
        return {
            "token micro F1": words.average("micro").f1, "token macro F1": words.average("macro").f1,
            "span precision": spans.average("micro").precision, "span recall": spans.average("micro").recall,
            "span F1": spans.average("micro").f1,
        }  # fmt: skip

    details = {
        "Tags of words, after": class_report(_flat(gold), _flat(after)),
        "Whole spans, strict, after": span_report(gold, after),
    }
    told = {**identity, "sentences cut": cut}
    return _report(f"{recipe.name}: tags of words", found, places, values, details, told)


def judge_pairs(
    recipe: PairRecipe, dataset: Dataset[Pair], base: ModelRef, made: ModelRef, identity: Identity
) -> HeadReport:
    """Which of several answers fits: by chance, by BM25, by P(answer | history) where the base is a decoder,
    by the base with a new head, and by the tuned one.

    Where test rows say themselves what fits, also the accuracy at P = 0.5.
    """
    choices = choices_of(recipe, dataset.test)
    longest = longest_text(base.base, recipe.train.max_length)
    tuned = Answering.load(made.base, longest)
    found = {"BM25": bm25_ranking([row.answer for row in dataset.train], *choices.texts)}
    if not is_encoder(base.base) and head_kind(base.base) is None:
        found["P(answer | history)"] = choices.by_likelihood(base)
    found["before"] = choices.by_head(_untaught(base, "sequence", FITS, recipe, longest))
    found["after"] = choices.by_head(tuned)
    systems: dict[str, list[list[float]] | None] = {"chance": None, **found}
    grades = choices.grades

    def values(system: str, rows: Sequence[int]) -> Values:
        if (scores := systems[system]) is None:
            return {"recall@1": float(np.mean([1 / len(grades[i]) for i in rows]))}
        some, right = [scores[i] for i in rows], [grades[i] for i in rows]
        return {metric.name: metric.value(some, right) / 100 for metric in RANKED}

    told = {**identity, "candidates": recipe.candidates, "loss": recipe.loss}
    details = {}
    if not all(row.fits for row in dataset.test):
        scores = tuned.fits([(history_text(row.history), row.answer) for row in dataset.test])
        gold, said = ([_word(fits) for fits in side] for side in (
            [row.fits for row in dataset.test], [score >= 0.5 for score in scores]))  # fmt: skip
        details["Fits or not, after"] = class_report(gold, said)
    places = by_language(choices.languages)
    return _report(f"{recipe.name}: answers that fit", systems, places, values, details, told)


def _word(fits: bool) -> str:
    return "fits" if fits else "does not fit"


def _untaught(base: ModelRef, kind: HeadKind, labels: Sequence[str], recipe: Any, longest: int) -> Answering:
    """The base with the head that training begins with."""
    model = attach_head(base, kind, labels, FullMethod(), seed=recipe.train.seed)
    with tempfile.TemporaryDirectory() as folder:
        return Answering.load(model.save(Path(folder)).base, longest)


def _flat(sentences: Sequence[Sequence[str]]) -> list[str]:
    return [tag for tags in sentences for tag in tags]


def _language(metadata: Mapping[str, Any], text: str) -> str:
    return str(metadata.get("language") or detect(text))


def _report(
    title: str,
    found: Mapping[str, Any],
    places: Mapping[str, Sequence[int]],
    values: Callable[[str, Sequence[int]], Values],
    details: Mapping[str, Any],
    identity: Identity,
) -> HeadReport:
    systems = tuple(
        System(name, {language: values(name, rows) for language, rows in places.items()}) for name in found
    )
    counts = {language: len(rows) for language, rows in places.items()}
    return HeadReport(title, systems, details, counts, identity)
