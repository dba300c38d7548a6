"""OpenAI's graders that compare texts: string checks and text similarity, right for Chinese too."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from sacrebleu.metrics.bleu import BLEU

from dialoop.data.language import detect
from dialoop.errors import EvalError, echo
from dialoop.evals.embedding import cosine
from dialoop.evals.rouge import common_length, rouge_l, rouge_n
from dialoop.evals.translation import meteor_of
from dialoop.evals.words import words

_PLACE = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")
_PATH = re.compile(r"(?:item|sample)(?:\.[\w-]+)+")
Similarity = Literal[
    "fuzzy_match",
    "bleu",
    "gleu",
    "meteor",
    "cosine",
    "rouge_1",
    "rouge_2",
    "rouge_3",
    "rouge_4",
    "rouge_5",
    "rouge_l",
]


@dataclass(frozen=True, slots=True)
class Grade:
    """score: 0 to 1."""

    score: float
    passed: bool


def checked_template(text: str) -> str:
    """Raises ValueError for a place that names nothing."""
    for path in _PLACE.findall(text):
        if _PATH.fullmatch(path) is None:
            raise ValueError(
                f"{{{{{path[:64]}}}}} names nothing: write {{{{item.FIELD}}}} or {{{{sample.output_text}}}}"
            )
    return text


class _Grader(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    name: str = Field(min_length=1, max_length=128)
    """Names its results."""
    input: str = Field(max_length=32_768)
    """What is graded; `{{item.FIELD}}` and `{{sample.output_text}}` are filled in."""
    reference: str = Field(max_length=32_768)
    """What it is compared with; filled in likewise."""

    @field_validator("input", "reference")
    @classmethod
    def _places(cls, text: str) -> str:
        return checked_template(text)

    def asks(self, values: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
        """The path and body of what a model must tell before the grade; None: nothing."""
        return None

    def _texts(self, values: Mapping[str, Any]) -> tuple[str, str]:
        return filled(self.input, values), filled(self.reference, values)


class StringCheck(_Grader):
    """Whether a text is, is not or contains another."""

    type: Literal["string_check"]
    """Names the grader."""
    operation: Literal["eq", "ne", "like", "ilike"]
    """Equal, not equal, contains, contains whatever the case."""

    def grade(self, values: Mapping[str, Any], reply: Mapping[str, Any] | None = None) -> Grade:
        """values: `item` and `sample`. Raises EvalError for a field that is not there."""
        text, reference = self._texts(values)
        match self.operation:
            case "eq":
                passed = text == reference
            case "ne":
                passed = text != reference
            case "like":
                passed = reference in text
            case "ilike":
                passed = reference.casefold() in text.casefold()
        return Grade(float(passed), passed)


class TextSimilarity(_Grader):
    """How alike two texts are."""

    type: Literal["text_similarity"]
    """Names the grader."""
    evaluation_metric: Similarity
    """How it is measured; words are right for Chinese too."""
    pass_threshold: Annotated[float, Field(ge=0, le=1, strict=False)]
    """The score from which it passes."""
    model: str | None = Field(None, max_length=256)
    """Whose embeddings `cosine` compares; an encoder that is served, or the first model, unless given."""

    def grade(self, values: Mapping[str, Any], reply: Mapping[str, Any] | None = None) -> Grade:
        """values: `item` and `sample`.  reply: the embeddings. Raises EvalError for what is not there."""
        text, reference = self._texts(values)
        if self.evaluation_metric != "cosine":
            score = similarity(self.evaluation_metric, text, reference)
        elif reply is None:
            score = float(text.strip() == reference.strip())
        else:
            first, second = (each["embedding"] for each in reply["data"])
            score = min(1.0, max(0.0, cosine(first, second)))
        return Grade(score, score >= self.pass_threshold)

    def asks(self, values: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
        """The embeddings of both texts, where they are compared so and neither is empty."""
        texts = self._texts(values)
        if self.evaluation_metric != "cosine" or not all(text.strip() for text in texts):
            return None
        return "/v1/embeddings", {"model": self.model, "input": list(texts)}


def filled(template: str, values: Mapping[str, Any]) -> str:
    """`template` with each `{{path}}` replaced by what lies there. Raises EvalError where nothing does."""
    return _PLACE.sub(lambda place: _text(found(place[1], values)), template)


def found(path: str, values: Mapping[str, Any]) -> Any:
    """What lies at a dotted path. Raises EvalError where nothing does."""
    value: Any = values
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            raise EvalError(f"{path[:64]} is not there: {echo(key)} is missing in the row or its sample")
        value = value[key]
    return value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def similarity(metric: Similarity, text: str, reference: str) -> float:
    """From 0, nothing alike, to 1; of every metric but `cosine`, which needs a model."""
    if metric == "fuzzy_match":
        return _indel(text, reference)
    if metric == "bleu":
        chinese = detect(reference) == "zh"
        scorer = BLEU(tokenize="zh" if chinese else "13a", effective_order=True)
        return min(float(scorer.sentence_score(text, [reference]).score) / 100, 1.0)
    if metric == "meteor":
        return meteor_of(words(text), words(reference))
    if metric == "gleu":
        return _gleu(text, reference)
    said, right = words(text), words(reference)
    return rouge_l(said, right) if metric == "rouge_l" else rouge_n(int(metric[-1]), said, right)


def _gleu(text: str, reference: str) -> float:
    """Sentence GLEU (Wu et al. 2016, arXiv:1609.08144): n-grams up to 4 in common, over the longer's."""
    said, wanted = _grams(words(text)), _grams(words(reference))
    most = max(said.total(), wanted.total())
    return (said & wanted).total() / most if most else 1.0


def _grams(tokens: Sequence[str]) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[i : i + n]) for n in range(1, 5) for i in range(len(tokens) - n + 1))


def _indel(text: str, reference: str) -> float:
    """2 LCS / (both lengths), as rapidfuzz's ratio."""
    most = len(text) + len(reference)
    return 2 * common_length(text, reference) / most if most else 1.0
