"""Tasks: which metrics judge the answers to a set of conversations.

The reference of a case is its last assistant turn: a reply, a translation, a label, tags or JSON. A model
answers freely, or chooses: then P(option | history) or, of an encoder, nearness in meaning decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from dialoop.errors import EvalError, echo, nearest
from dialoop.evals import metrics
from dialoop.evals.choices import From
from dialoop.evals.form import endless, equal_json, refusals, right_refusals, valid_json
from dialoop.evals.labels import accuracy, calibration_error, macro_f1
from dialoop.evals.metrics import Metric
from dialoop.evals.ranking import ndcg, recall_at, reciprocal_rank
from dialoop.evals.spans import written_spans
from dialoop.evals.translation import meteor, ter

By = Literal["whole", "token", "vectors"]
Suite = Callable[[str, Sequence[str]], Sequence[Metric]]


@dataclass(frozen=True, slots=True)
class Task:
    """suite: (language, references) -> metrics, of a language or, for `all`, of those it may share.

    headline: metrics that decide whether a model is better.  baseline: those that must beat the nearest
    neighbour.  side: of single cases: it slices, and finds the best and the worst.
    options: what an answer is chosen from; None = it is free.  by: what tells how good an option is: the
    probability of the whole, that of a token on average, or the cosine of vectors.
    """

    name: str
    suite: Suite
    headline: tuple[str, ...]
    baseline: tuple[str, ...]
    side: Callable[[], Metric]
    options: From | None = None
    by: By = "whole"

    def metrics(self, language: str, references: Sequence[str]) -> tuple[Metric, ...]:
        """Those that mean something for the language."""
        found = self.suite(language, references)
        return tuple(m for m in found if language != "all" or m.mixes_languages)


def _reply(language: str, references: Sequence[str]) -> Sequence[Metric]:
    by_words = [metrics.rouge("rougeL", by="words")] if language == "zh" else []
    return [
        metrics.bleu(language), metrics.chrf(), metrics.rouge("rouge1"), metrics.rouge("rouge2"),
        metrics.rouge("rougeL"), *by_words, metrics.perplexity(), metrics.exact_match(),
        metrics.length_ratio(), metrics.distinct(1), metrics.distinct(2), endless(),
    ]  # fmt: skip


def _translation(language: str, references: Sequence[str]) -> Sequence[Metric]:
    return [
        metrics.bleu(language), metrics.chrf(), ter(language), meteor(), metrics.perplexity(),
        metrics.exact_match(), metrics.length_ratio(),
    ]  # fmt: skip


def _classification(language: str, references: Sequence[str]) -> Sequence[Metric]:
    return [accuracy(), macro_f1(references), calibration_error(), metrics.perplexity()]


def _selection(language: str, references: Sequence[str]) -> Sequence[Metric]:
    return [recall_at(1), recall_at(2), recall_at(5), reciprocal_rank(), metrics.perplexity()]


def _retrieval(language: str, references: Sequence[str]) -> Sequence[Metric]:
    return [ndcg(10), recall_at(1), recall_at(10), reciprocal_rank()]


def _tags(language: str, references: Sequence[str]) -> Sequence[Metric]:
    return [written_spans(), metrics.exact_match(), metrics.perplexity()]


def _json(language: str, references: Sequence[str]) -> Sequence[Metric]:
    return [valid_json(), equal_json(), metrics.rouge("rougeL"), metrics.perplexity()]


def _refusal(language: str, references: Sequence[str]) -> Sequence[Metric]:
    return [right_refusals(), refusals(), metrics.perplexity(), metrics.length_ratio()]


REPLY = Task(
    "reply", _reply, ("BLEU", "ROUGE-L", "perplexity"), ("BLEU", "ROUGE-L"), lambda: metrics.rouge("rougeL")
)
TASKS = MappingProxyType(
    {
        task.name: task
        for task in (
            REPLY,
            Task("translation", _translation, ("BLEU", "chrF", "TER"), ("BLEU", "chrF"), REPLY.side),
            Task(
                "classification", _classification, ("accuracy", "macro F1"), ("accuracy",), accuracy, "labels"
            ),
            Task("selection", _selection, ("recall@1", "MRR"), (), lambda: recall_at(1), "some", "token"),
            Task("retrieval", _retrieval, ("nDCG@10", "recall@10"), (), lambda: ndcg(10), "all", "vectors"),
            Task("tags", _tags, ("span F1",), ("span F1",), REPLY.side),
            Task("json", _json, ("valid JSON", "equal JSON"), ("equal JSON",), equal_json),
            Task("refusal", _refusal, ("right refusals",), ("right refusals",), right_refusals),
        )
    }
)


def task_named(name: str) -> Task:
    """Raises EvalError for a name that is none of `TASKS`."""
    if name not in TASKS:
        raise EvalError(f"no task {echo(name)}{nearest(name, TASKS)}")
    return TASKS[name]
