"""Metrics of answers as sufficient statistics per case, so that a bootstrap resamples sums of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
from sacrebleu.tokenizers.tokenizer_re import TokenizerRegexp
from sacrebleu.tokenizers.tokenizer_zh import TokenizerZh

from dialoop.errors import EvalError, echo
from dialoop.evals.grams import Numbering, characters, common_grams, rarities
from dialoop.evals.rouge import rouge_l
from dialoop.evals.words import TOKENIZER_NAME, WordUnit, coded_words, normalised

_13A, _REST = Tokenizer13a(), TokenizerRegexp()  # type: ignore[no-untyped-call]
Stats = NDArray[np.float64]
Reads = Literal["text", "likelihood", "scores"]
RougeKind = Literal["rouge1", "rouge2", "rougeL"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A number over a set of cases.

    cases: (predictions, references) -> (N, k) statistics; where reads = "likelihood", of
    (log-likelihoods, tokens); where "scores", of (scores, grades) of each case's options.
    scores: (..., k) summed statistics -> (...) values, so that one call scores all resamples.
    higher_is_better: None where neither direction is (lengths, diversity).
    mixes_languages: whether one value over English and Chinese cases means anything.
    binary: whether each case is right or wrong: its first statistic is positive, or 0.
    """

    name: str
    cases: Callable[[Sequence[Any], Sequence[Any]], Stats]
    scores: Callable[[Stats], Stats]
    signature: str
    higher_is_better: bool | None = True
    mixes_languages: bool = True
    digits: int = 1
    reads: Reads = "text"
    binary: bool = False

    def aggregate(self, total: Stats) -> float:
        """The value for one (k,) sum of statistics; NaN where it is undefined."""
        return float(self.scores(np.asarray(total, dtype=np.float64)))

    def value(self, first: Sequence[Any], second: Sequence[Any]) -> float:
        """The value over all cases. Raises EvalError for sequences of unequal or no length."""
        return self.aggregate(self.cases(first, second).sum(0))


def same_length(first: Sequence[Any], second: Sequence[Any]) -> None:
    """Raises EvalError unless there is one of each for every case, and a case at all."""
    if len(first) != len(second) or not first:
        raise EvalError(
            f"{len(first)} predictions came for {len(second)} references: "
            f"give one of each for every case, and at least one case"
        )


def bleu(language: str) -> Metric:
    """Corpus BLEU, 0-100 (Papineni et al. 2002), as sacrebleu's; its tokenizer `zh` for Chinese, else 13a."""
    scorer = BLEU(tokenize="zh" if language == "zh" else "13a", force=True)
    parts, tokens = (_zh_parts, _zh_tokens) if language == "zh" else (_13a_parts, _13a_tokens)

    def cases(predictions: Sequence[str], references: Sequence[str]) -> Stats:
        same_length(predictions, references)
        numbering = Numbering(tokens)
        said, right = (numbering.coded(map(parts, texts)) for texts in (predictions, references))
        grams = common_grams(said, right, 4)
        return np.hstack([grams[:, 0, :2], grams[:, :, 2], grams[:, :, 0]])

    return Metric("BLEU", cases, bleu_scores, sacrebleu_signature(scorer), mixes_languages=False)


def _13a_parts(text: str) -> list[str]:
    """Between white space: the tokenizer's rules look no further."""
    return text.rstrip().replace("<skipped>", "").replace("-\n", "").split()


def _13a_tokens(part: str) -> list[str]:
    return str(_13A(part)).split()


def _zh_parts(text: str) -> list[str]:
    """Between white space and Chinese characters. A tab marks the ends of the text: there, and there alone,
    the tokenizer does not cut a stop from a number.
    """
    parts = text.strip().translate(_SPACED).split()
    if parts:
        parts[0] = f"\t{parts[0]}"
        parts[-1] = f"{parts[-1]}\t"
    return parts


def _zh_tokens(part: str) -> list[str]:
    first, last = ("" if part[end] == "\t" else " " for end in (0, -1))
    return str(_REST(f"{first}{part.strip()}{last}")).split()


class _Spaced(dict[int, str]):
    """What sacrebleu's `zh` tokenizer makes of each code point, asked of it once."""

    def __missing__(self, code: int) -> str:
        self[code] = f" {chr(code)} " if TokenizerZh._is_chinese_char(chr(code)) else chr(code)
        return self[code]


_SPACED = _Spaced()


def chrf() -> Metric:
    """Corpus chrF2, 0-100 (Popovic 2015), as sacrebleu's."""
    scorer = CHRF()

    def cases(predictions: Sequence[str], references: Sequence[str]) -> Stats:
        same_length(predictions, references)
        grams = common_grams(characters(predictions), characters(references), 6)
        grams[:, :, 0] *= grams[:, :, 1] > 0
        return grams.reshape(len(grams), -1)

    return Metric("chrF", cases, chrf_scores, sacrebleu_signature(scorer), mixes_languages=False)


def sacrebleu_signature(scorer: BLEU | CHRF | TER) -> str:
    """sacrebleu knows the number of references, and so its signature, only after a first score."""
    scorer.corpus_score(["a"], [["a"]])
    return str(scorer.get_signature())


def bleu_scores(totals: Stats) -> Stats:
    """(..., 10) sums (both lengths, matches and totals for n = 1..4) -> (...) BLEU, `exp` smoothing."""
    hypothesis, reference = totals[..., 0], totals[..., 1]
    matches, grams = totals[..., 2:6], totals[..., 6:10]
    missed = np.cumsum((matches == 0) & (grams > 0), axis=-1)
    shown = np.where(matches > 0, matches, 0.5**missed)
    logs = np.log(np.where(grams > 0, shown / np.maximum(grams, 1), 1e-300))
    short = np.where(hypothesis < reference, 1 - reference / np.maximum(hypothesis, 1e-9), 0.0)
    defined = (matches.sum(-1) > 0) & (grams.min(-1) > 0)
    return np.asarray(np.where(defined, 100 * np.exp(short + logs.mean(-1)), 0.0))


def chrf_scores(totals: Stats, beta: float = 2.0) -> Stats:
    """(..., 18) sums (hypothesis, reference and matching n-grams for n = 1..6) -> (...) chrF."""
    hypothesis, reference, matches = totals[..., 0::3], totals[..., 1::3], totals[..., 2::3]
    used = (hypothesis > 0) & (reference > 0)
    orders = np.maximum(used.sum(-1), 1)
    precision = (used * matches / np.maximum(hypothesis, 1)).sum(-1) / orders
    recall = (used * matches / np.maximum(reference, 1)).sum(-1) / orders
    weighted = beta**2 * precision + recall
    return np.asarray(100 * (1 + beta**2) * precision * recall / np.where(weighted > 0, weighted, 1))


def rouge(kind: RougeKind, *, by: WordUnit = "characters") -> Metric:
    """Mean ROUGE F1, 0-100 (Lin 2004), no stemming; Chinese by characters or by rjieba's words."""
    name = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}[kind]

    def cases(predictions: Sequence[str], references: Sequence[str]) -> Stats:
        same_length(predictions, references)
        said, right = coded_words(predictions, references, by)
        if kind == "rougeL":
            f1 = [rouge_l(*pair) for pair in zip(said.each(), right.each(), strict=True)]
            return np.column_stack([100 * np.array(f1), np.ones(len(f1))])
        mine, theirs, common = common_grams(said, right, int(kind[-1]))[:, -1].T
        return np.column_stack([200 * common / np.maximum(mine + theirs, 1), np.ones(len(common))])

    tokenizer = TOKENIZER_NAME if by == "characters" else f"rjieba-{version('rjieba')}"
    signature = f"rouge:{kind}|f:1|stem:no|tok:{tokenizer}|as:rouge_score-0.1.2"
    return Metric(name if by == "characters" else f"{name} by words", cases, ratio, signature)


def exact_match() -> Metric:
    """Share of answers equal to the reference but for case, width and white space, in percent."""

    def cases(predictions: Sequence[str], references: Sequence[str]) -> Stats:
        same_length(predictions, references)
        pairs = zip(predictions, references, strict=True)
        return np.array([[100.0 * (normalised(p) == normalised(r)), 1.0] for p, r in pairs])

    return Metric("exact match", cases, ratio, "norm:nfkc+casefold+space", binary=True)


def length_ratio() -> Metric:
    """Words of all answers over words of all references."""

    def cases(predictions: Sequence[str], references: Sequence[str]) -> Stats:
        same_length(predictions, references)
        said, right = coded_words(predictions, references)
        return np.column_stack([said.lengths, right.lengths]).astype(np.float64)

    return Metric("length ratio", cases, ratio, f"tok:{TOKENIZER_NAME}", higher_is_better=None, digits=2)


def distinct(n: int) -> Metric:
    """Different n-grams over all n-grams of all answers (Li et al. 2016, arXiv:1510.03055).

    Each n-gram of a case counts 1/c, c its occurrences in all answers, so that sums over all cases
    are exact; a resample keeps these weights.
    """

    def cases(predictions: Sequence[str], references: Sequence[str]) -> Stats:
        same_length(predictions, references)
        said, _ = coded_words(predictions, references)
        return np.column_stack([rarities(said, n), np.maximum(said.lengths - n + 1, 0)])

    signature = f"n:{n}|tok:{TOKENIZER_NAME}"
    return Metric(f"distinct-{n}", cases, ratio, signature, higher_is_better=None, digits=3)


def perplexity() -> Metric:
    """exp(-log-likelihood / tokens) of the references under the model; natural logarithms."""

    def cases(log_likelihoods: Sequence[float], tokens: Sequence[int]) -> Stats:
        same_length(log_likelihoods, tokens)
        if any(not np.isfinite(x) or x > 0 for x in log_likelihoods):
            wrong = next(x for x in log_likelihoods if not np.isfinite(x) or x > 0)
            raise EvalError(f"a log-likelihood is {echo(wrong)}: give sums of finite natural logarithms <= 0")
        return np.column_stack([-np.asarray(log_likelihoods, float), np.asarray(tokens, float)])

    def scores(totals: Stats) -> Stats:
        with np.errstate(over="ignore"):
            return np.asarray(np.exp(ratio(totals)))

    return Metric(
        "perplexity", cases, scores, "log:e|per:token", higher_is_better=False, digits=2, reads="likelihood"
    )


def ratio(totals: Stats) -> Stats:
    """(..., 2) sums -> (...) the first over the second, NaN where the second is 0."""
    below = totals[..., 1]
    return np.asarray(np.where(below > 0, totals[..., 0] / np.where(below > 0, below, 1), np.nan))
