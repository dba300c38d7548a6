"""OpenAI's graders that ask a model: a score, or one of several labels, each as JSON that a schema allows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from dialoop.errors import EvalError, echo
from dialoop.evals.graders import Grade, StringCheck, TextSimilarity, checked_template, filled

Role = Literal["system", "developer", "user", "assistant"]
MOST_TOKENS = 64
_TAKEN = {"model", "messages", "response_format", "stream", "n", "store", "tools", "tool_choice"}


class GraderText(BaseModel):
    """A part of a message."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    type: Literal["input_text", "output_text", "text"]
    """What it is; all are read alike."""
    text: str = Field(max_length=32_768)
    """The text."""


class GraderMessage(BaseModel):
    """A message to the model that grades."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    role: Role
    """Whose."""
    content: str | GraderText | list[GraderText]
    """The text; `{{item.FIELD}}` and `{{sample.output_text}}` are filled in."""
    type: Literal["message"] = "message"
    """As in OpenAI's document."""

    @field_validator("content")
    @classmethod
    def _places(cls, content: str | GraderText | list[GraderText]) -> str | GraderText | list[GraderText]:
        checked_template(_text(content))
        return content

    def told(self, values: Mapping[str, Any]) -> dict[str, str]:
        """As a chat message."""
        return {"role": self.role, "content": filled(_text(self.content), values)}


def _text(content: str | GraderText | list[GraderText]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part.text for part in (content if isinstance(content, list) else [content]))


class _ModelGrader(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    name: str = Field(min_length=1, max_length=128)
    """Names its results."""
    model: str = Field(min_length=1, max_length=256)
    """Who grades."""
    input: list[GraderMessage] = Field(min_length=1, max_length=100)
    """What it is asked."""

    @property
    def field(self) -> str:
        """The field of the JSON that is the grade."""
        raise NotImplementedError

    @property
    def schema_of_field(self) -> dict[str, Any]:
        """What it may be."""
        raise NotImplementedError

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Of the request."""
        return {}

    def asks(self, values: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """The path and the body of the request. Raises EvalError for a field that is not there."""
        schema = {
            "type": "object", "properties": {self.field: self.schema_of_field}, "required": [self.field],
            "additionalProperties": False,
        }  # fmt: skip
        form = {"type": "json_schema", "json_schema": {"name": "grade", "strict": True, "schema": schema}}
        messages = [message.told(values) for message in self.input]
        body = {"temperature": 0.0, "max_completion_tokens": MOST_TOKENS, **self.parameters}
        return "/v1/chat/completions", {
            **body, "model": self.model, "messages": messages, "response_format": form,
        }  # fmt: skip

    def said(self, reply: Mapping[str, Any]) -> Any:
        """The grade in the model's answer. Raises EvalError where there is none."""
        text = reply["choices"][0]["message"]["content"] or ""
        try:
            return json.loads(text)[self.field]
        except (ValueError, KeyError, TypeError):
            raise EvalError(
                f"{self.model} answered {echo(text)} instead of JSON with {self.field!r}"
            ) from None


class LabelModel(_ModelGrader):
    """One of several labels, some of which pass."""

    type: Literal["label_model"]
    """Names the grader."""
    labels: list[str] = Field(min_length=2, max_length=200)
    """What the model chooses from."""
    passing_labels: list[str] = Field(min_length=1, max_length=200)
    """Those that pass."""

    @model_validator(mode="after")
    def _known(self) -> LabelModel:
        strange = [label for label in self.passing_labels if label not in self.labels]
        if strange:
            raise ValueError(f"passing_labels: {echo(strange[0])} is none of the labels")
        return self

    @property
    def field(self) -> str:
        """Its name."""
        return "label"

    @property
    def schema_of_field(self) -> dict[str, Any]:
        """One of the labels."""
        return {"type": "string", "enum": self.labels}

    def grade(self, values: Mapping[str, Any], reply: Mapping[str, Any] | None = None) -> Grade:
        """reply: the chat completion. Raises EvalError for what is no label."""
        label = self.said(reply or {})
        if label not in self.labels:
            raise EvalError(f"{self.model} answered {echo(label)}, which is none of the labels")
        passed = label in self.passing_labels
        return Grade(float(passed), passed)


class ScoreModel(_ModelGrader):
    """A number in a range."""

    type: Literal["score_model"]
    """Names the grader."""
    range: Annotated[list[Annotated[float, Field(strict=False)]], Field(min_length=2, max_length=2)] = [
        0.0,
        1.0,
    ]
    """The lowest and the highest score."""
    pass_threshold: Annotated[float, Field(strict=False)] | None = None
    """The score from which it passes; the middle of the range unless given."""
    sampling_params: dict[str, Any] = {}
    """temperature, top_p, seed and so on, as for a chat completion."""

    @model_validator(mode="after")
    def _ordered(self) -> ScoreModel:
        if taken := sorted(self.sampling_params.keys() & _TAKEN):
            raise ValueError(f"sampling_params: {taken[0]} is not for graders: leave it out")
        if not self.range[0] < self.range[1]:
            raise ValueError("range: give the lowest score and then a higher one")
        if self.pass_threshold is not None and not self.range[0] <= self.pass_threshold <= self.range[1]:
            raise ValueError(f"pass_threshold: give a score from {self.range[0]} to {self.range[1]}")
        return self

    @property
    def field(self) -> str:
        """Its name."""
        return "score"

    @property
    def schema_of_field(self) -> dict[str, Any]:
        """A number in the range."""
        return {"type": "number", "minimum": self.range[0], "maximum": self.range[1]}

    @property
    def parameters(self) -> Mapping[str, Any]:
        """As given."""
        return self.sampling_params

    def grade(self, values: Mapping[str, Any], reply: Mapping[str, Any] | None = None) -> Grade:
        """reply: the chat completion. Raises EvalError for what is no number in the range."""
        score = self.said(reply or {})
        low, high = self.range
        if not isinstance(score, int | float) or isinstance(score, bool) or not low <= score <= high:
            raise EvalError(f"{self.model} answered {echo(score)}, which is no score from {low} to {high}")
        bound = (low + high) / 2 if self.pass_threshold is None else self.pass_threshold
        return Grade(float(score), score >= bound)


Grader = Annotated[StringCheck | TextSimilarity | LabelModel | ScoreModel, Field(discriminator="type")]
