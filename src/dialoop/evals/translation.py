"""Metrics of translations beside BLEU and chrF: edits, and words that match by their stem."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
from sacrebleu.metrics.ter import TER

from dialoop.evals.metrics import Metric, Stats, ratio, sacrebleu_signature, same_length
from dialoop.evals.words import TOKENIZER_NAME, words_of


def ter(language: str) -> Metric:
    """Translation edit rate (Snover et al. 2006), sacrebleu's counts, in percent; Chinese by character."""
    chinese = language == "zh"
    scorer = TER(normalized=chinese, asian_support=chinese)

    def cases(predictions: Sequence[str], references: Sequence[str]) -> Stats:
        same_length(predictions, references)
        return np.array(scorer._extract_corpus_statistics(predictions, [references]), dtype=np.float64)

    signature = sacrebleu_signature(scorer)
    return Metric("TER", cases, _ter_scores, signature, higher_is_better=False, mixes_languages=False)


def _ter_scores(totals: Stats) -> Stats:
    """(..., 2) edits and words of the reference -> (...); edits without a reference are 100 %."""
    return np.asarray(np.where(totals[..., 1] > 0, 100 * ratio(totals), 100.0 * (totals[..., 0] > 0)))


def meteor() -> Metric:
    """Mean METEOR (Lavie and Agarwal 2007), nltk's, in percent; exact and stem matches, no synonyms."""

    def cases(predictions: Sequence[str], references: Sequence[str]) -> Stats:
        same_length(predictions, references)
        pairs = zip(words_of(predictions), words_of(references), strict=True)
        return np.array([[100 * meteor_of(p, r), 1.0] for p, r in pairs])

    signature = f"match:exact+stem|tok:{TOKENIZER_NAME}|nltk:{version('nltk')}"
    return Metric("METEOR", cases, ratio, signature, mixes_languages=False)


def meteor_of(said: Sequence[str], right: Sequence[str]) -> float:
    """Of one answer, 0 to 1."""
    from nltk.translate.meteor_score import single_meteor_score  # seconds on a cold disk

    return float(single_meteor_score(right, said, stemmer=_stemmer(), wordnet=_NoSynonyms()))


@cache
def _stemmer() -> Any:
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer()


class _NoSynonyms:
    """WordNet is a download of its own, in English alone."""

    def synsets(self, word: str) -> tuple[()]:
        return ()
