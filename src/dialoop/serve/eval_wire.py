"""OpenAI's evaluation objects <-> ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from dialoop.errors import UnknownModelError, UnsupportedError, echo
from dialoop.evals.graders import StringCheck, TextSimilarity
from dialoop.evals.model_graders import Grader
from dialoop.serve.errors import HttpError
from dialoop.serve.fields import Metadata
from dialoop.store.evals import Eval, EvalItem, EvalRun
from dialoop.types import Served

MANNER = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)
REFUSED = {
    "python": "the server runs no code that it is sent",
    "multi": "OpenAI has it for reinforcement alone",
}
"""Graders that are not offered, and why."""
_GRADERS: TypeAdapter[Any] = TypeAdapter(Grader)
Name = Annotated[str, Field(min_length=1, max_length=256)]


class Custom(BaseModel):
    """Rows of the caller's own form."""

    model_config = MANNER

    type: Literal["custom"]
    """Rows are given with a run."""
    item_schema: dict[str, Any]
    """A JSON Schema; each row must have its `required` fields."""
    include_sample_schema: bool = False
    """Whether a run asks a model, so that graders see its `sample`."""

    def told(self) -> dict[str, Any]:
        """With the schema of what graders see."""
        properties = {"item": self.item_schema}
        if self.include_sample_schema:
            properties["sample"] = SAMPLE_SCHEMA
        schema = {"type": "object", "properties": properties, "required": list(properties)}
        return {"type": "custom", "schema": schema}


class StoredSource(BaseModel):
    """Completions that were stored."""

    model_config = MANNER

    type: Literal["stored_completions", "logs"]
    """They are what graders see."""
    metadata: Metadata | None = None
    """Only those that have these pairs."""

    def told(self) -> dict[str, Any]:
        """With the schema of what graders see."""
        properties = {"item": {"type": "object"}, "sample": SAMPLE_SCHEMA}
        schema = {"type": "object", "properties": properties, "required": ["item", "sample"]}
        return {"type": self.type, "metadata": self.metadata, "schema": schema}


SAMPLE_SCHEMA = {
    "type": "object",
    "properties": {"output_text": {"type": "string"}, "model": {"type": "string"}, "finish_reason": {}},
    "required": ["output_text"],
}


class CreateEval(BaseModel):
    """The body of POST /v1/evals."""

    model_config = MANNER

    name: Name | None = None
    """What people call it."""
    data_source_config: Annotated[Custom | StoredSource, Field(discriminator="type")]
    """What is evaluated on."""
    testing_criteria: list[dict[str, Any]] = Field(min_length=1, max_length=100)
    """How answers are graded: string_check, text_similarity, score_model, label_model."""
    metadata: Metadata | None = None
    """Up to 16 pairs."""


class UpdateEval(BaseModel):
    """The body of POST /v1/evals/{id}."""

    model_config = MANNER

    name: Name | None = None
    """Another name."""
    metadata: Metadata | None = None
    """Takes the place of all metadata."""


class Row(BaseModel):
    """A row of the data."""

    model_config = MANNER

    item: dict[str, Any]
    """What graders call `item`."""
    sample: dict[str, Any] | None = None
    """What graders call `sample`, where it is graded and not made."""


class FileContent(BaseModel):
    """Rows in the request."""

    model_config = MANNER

    type: Literal["file_content"]
    """Named by this."""
    content: list[Row] = Field(min_length=1, max_length=10_000)
    """The rows."""


class FileId(BaseModel):
    """Rows in a file."""

    model_config = MANNER

    type: Literal["file_id"]
    """Named by this."""
    id: str = Field(max_length=128)
    """JSON lines `{"item": {...}}`."""


class Stored(BaseModel):
    """Stored completions as rows."""

    model_config = MANNER

    type: Literal["stored_completions"]
    """Named by this."""
    model: str | None = None
    """Only those of this model."""
    metadata: Metadata | None = None
    """Only those that have these pairs."""
    created_after: int | None = None
    """Unix seconds."""
    created_before: int | None = None
    """Unix seconds."""
    limit: int = Field(1000, ge=1, le=10_000)
    """Most of them, the oldest first."""


class Template(BaseModel):
    """Messages made from each row."""

    model_config = MANNER

    type: Literal["template"]
    """Named by this."""
    template: list[dict[str, Any]] = Field(min_length=1, max_length=100)
    """Messages whose text may hold `{{item.FIELD}}`."""


class ItemReference(BaseModel):
    """Messages that lie in each row."""

    model_config = MANNER

    type: Literal["item_reference"]
    """Named by this."""
    item_reference: str = Field(pattern=r"^item(\.[\w-]+)+$", max_length=256)
    """Where, such as `item.messages`."""


class Jsonl(BaseModel):
    """Rows that are graded as they are."""

    model_config = MANNER

    type: Literal["jsonl"]
    """Named by this."""
    source: Annotated[FileContent | FileId, Field(discriminator="type")]
    """Where the rows are."""


class Completions(BaseModel):
    """Rows that a model answers, and graders judge."""

    model_config = MANNER

    type: Literal["completions"]
    """Named by this."""
    source: Annotated[FileContent | FileId | Stored, Field(discriminator="type")]
    """Where the rows are."""
    model: str | None = None
    """Who is asked; None = stored completions are graded as they were answered."""
    input_messages: Annotated[Template | ItemReference, Field(discriminator="type")] | None = None
    """What is asked; stored completions have it in `item.input`."""
    sampling_params: dict[str, Any] = {}
    """temperature, top_p, max_completion_tokens, seed and so on, as for a chat completion."""


class CreateRun(BaseModel):
    """The body of POST /v1/evals/{id}/runs."""

    model_config = MANNER

    name: Name | None = None
    """What people call it."""
    data_source: Annotated[Jsonl | Completions, Field(discriminator="type")]
    """Rows, and who answers them."""
    metadata: Metadata | None = None
    """Up to 16 pairs."""


def graders_of(criteria: Sequence[Mapping[str, Any]], served: Sequence[Served] | None = None) -> list[Any]:
    """The graders. served: models that they may ask, None = not checked.

    Raises HttpError naming the one at fault, UnsupportedError for those that run code, UnknownModelError.
    """
    made = []
    for place, criterion in enumerate(criteria):
        where, kind = f"testing_criteria.{place}", criterion.get("type")
        if kind in REFUSED:
            raise UnsupportedError(
                f"{where}: {echo(kind)} is not supported: {REFUSED[kind]}: use string_check, "
                f"text_similarity, score_model or label_model",
                param=where,
            )
        try:
            made.append(_GRADERS.validate_python(dict(criterion)))
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            field = ".".join(str(part) for part in problem["loc"][1:])
            named = f"{where}.{field}" if field else where
            raise HttpError(400, f"{named}: {problem['msg']}", param=named) from None
    names = [grader.name for grader in made]
    if len(set(names)) < len(names):
        raise HttpError(
            400, "testing_criteria: two have the same name: name each its own", param="testing_criteria"
        )
    return made if served is None else [_with_model(grader, served) for grader in made]


def _with_model(grader: Any, served: Sequence[Served]) -> Any:
    """The grader, its model known to be served; embeddings are of an encoder rather than of a decoder."""
    if isinstance(grader, StringCheck) or getattr(grader, "evaluation_metric", "cosine") != "cosine":
        return grader
    kinds = ("encoder", "decoder") if isinstance(grader, TextSimilarity) else ("decoder",)
    known = [each.name for kind in kinds for each in served if each.kind == kind]
    name = grader.model or next(iter(known), "")
    if name not in known:
        raise UnknownModelError(name, known)
    return grader.model_copy(update={"model": name})


def eval_to_openai(found: Eval) -> dict[str, Any]:
    """The eval object."""
    return {
        "id": found.id,
        "object": "eval",
        "name": found.name,
        "data_source_config": found.data_source_config,
        "testing_criteria": list(found.testing_criteria),
        "metadata": found.metadata,
        "created_at": found.created // 1_000_000,
    }


def run_to_openai(run: EvalRun, counts: Mapping[str, int]) -> dict[str, Any]:
    """The run object. counts: items by status."""
    summary = run.summary or {}
    return {
        "id": run.id,
        "object": "eval.run",
        "eval_id": run.parent_id,
        "name": run.name,
        "model": run.model,
        "status": run.status,
        "created_at": run.created // 1_000_000,
        "data_source": run.data_source,
        "metadata": run.metadata,
        "error": run.error,
        "report_url": "",
        "result_counts": {
            "total": sum(counts.values()),
            "passed": counts.get("pass", 0),
            "failed": counts.get("fail", 0),
            "errored": counts.get("error", 0),
        },
        "per_testing_criteria_results": summary.get("per_testing_criteria_results", []),
        "per_model_usage": summary.get("per_model_usage", []),
    }


def item_to_openai(item: EvalItem, eval_id: str) -> dict[str, Any]:
    """The output item object."""
    return {
        "id": item.id,
        "object": "eval.run.output_item",
        "eval_id": eval_id,
        "run_id": item.parent_id,
        "created_at": item.created // 1_000_000,
        "datasource_item": item.item,
        "datasource_item_id": item.seq,
        "results": list(item.results),
        "sample": item.sample,
        "status": item.status,
    }
