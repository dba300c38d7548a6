"""OpenAI's fine-tuning objects <-> ours."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dialoop.errors import UnsupportedError, echo, nearest
from dialoop.serve.errors import HttpError
from dialoop.serve.fields import Metadata
from dialoop.store.fine_tuning import Checkpoint, Event, Job

B = TypeVar("B", bound=BaseModel)
MANNER = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)
_TAGS = {"int", "float", "literal"}


class Hyperparameters(BaseModel):
    """What OpenAI lets choose; `auto` goes by the number of rows and the model's width."""

    model_config = MANNER

    n_epochs: Annotated[int, Field(ge=1, le=50)] | Literal["auto"] = "auto"
    """Passes over the training rows."""
    batch_size: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = "auto"
    """Rows of one update."""
    learning_rate_multiplier: Annotated[float, Field(gt=0, le=1000, strict=False)] | Literal["auto"] = "auto"
    """Multiplies the rate that `auto` takes."""


class Supervised(BaseModel):
    """Supervised fine-tuning."""

    model_config = MANNER

    hyperparameters: Hyperparameters = Hyperparameters()
    """Its hyperparameters."""


class DpoHyperparameters(Hyperparameters):
    """Those of preferences."""

    beta: Annotated[float, Field(gt=0, le=2, strict=False)] | Literal["auto"] = "auto"
    """How dear it is to leave the model as it was; `auto` is 0.1."""


class Dpo(BaseModel):
    """Direct preference optimisation."""

    model_config = MANNER

    hyperparameters: DpoHyperparameters = DpoHyperparameters()
    """Its hyperparameters."""


class Method(BaseModel):
    """How it is trained."""

    model_config = MANNER

    type: Literal["supervised", "dpo", "reinforcement"]
    """`supervised` learns conversations, `dpo` preferences; `reinforcement` is refused."""
    supervised: Supervised | None = None
    """For `supervised`."""
    dpo: Dpo | None = None
    """For `dpo`."""
    reinforcement: dict[str, Any] | None = None
    """For `reinforcement`."""


class Ours(BaseModel):
    """Tables of a recipe (`dialoop tune`): the tuning method and what OpenAI has no names for."""

    model_config = MANNER

    kind: Literal["tune", "classify", "pair", "tag"] | None = None
    """What is made: a model that answers, or one with a head, which tells the classes of texts, whether
    answers fit, or the tags of words."""
    method: dict[str, Any] | None = None
    """Such as `{"kind": "lora", "rank": 8}` or `{"kind": "full"}`."""
    objective: dict[str, Any] | None = None
    """Such as `{"kind": "orpo"}`, with OpenAI's method `dpo`, or `{"kind": "distill", "teacher": MODEL}`."""
    optim: dict[str, Any] | None = None
    """Optimiser: `learning_rate`, `schedule`, `warmup` and so on."""
    train: dict[str, Any] | None = None
    """Loop: `max_length`, `batch_tokens`, `mask`, `patience` and so on."""
    regularisation: dict[str, Any] | None = None
    """What holds it back: `label_smoothing`, `neftune`, `class_weights` and so on."""
    loss: Literal["binary", "in-batch"] | None = None
    """Of kind `pair`: each answer by itself, or against others of the same update."""
    negatives: int | None = Field(None, ge=0)
    """Of kind `pair`: answers of other rows beside each right one."""
    crf: bool | None = None
    """Of kind `tag`: score whole sequences of tags."""


class CreateJob(BaseModel):
    """The body of POST /v1/fine_tuning/jobs."""

    model_config = MANNER

    model: str = Field(max_length=256)
    """A served model, or a fine-tuned one of the project."""
    training_file: str = Field(max_length=128)
    """A file of purpose `fine-tune`."""
    validation_file: str | None = Field(None, max_length=128)
    """Another; its loss is told after each epoch, and the best weights are kept."""
    suffix: str | None = Field(None, min_length=1, max_length=64, pattern=r"\w")
    """A part of the new model's name."""
    seed: int | None = Field(None, ge=0, le=2**31 - 1)
    """Of the order of rows and of new weights; drawn where not given."""
    method: Method | None = None
    """Method and hyperparameters."""
    hyperparameters: Hyperparameters | None = None
    """Where they stood before `method`; deprecated."""
    metadata: Metadata | None = None
    """Up to 16 pairs, which lists can be filtered by."""
    integrations: list[Any] | None = None
    """Refused: nothing is sent elsewhere."""
    dialoop: Ours = Ours()
    """Our own settings."""

    @property
    def asked(self) -> dict[str, Any]:
        """The hyperparameters, wherever they stand. Raises UnsupportedError or HttpError."""
        if self.method is None:
            return (self.hyperparameters or Hyperparameters()).model_dump()
        if self.method.type == "reinforcement":
            raise UnsupportedError(
                "method.type = 'reinforcement' is not supported: use 'supervised' or 'dpo'",
                param="method.type",
            )
        if self.hyperparameters is not None:
            raise HttpError(
                400, f"hyperparameters came beside method: give method.{self.method.type}.hyperparameters "
                f"alone", param="hyperparameters",
            )  # fmt: skip
        if self.method.type == "dpo":
            return (self.method.dpo or Dpo()).hyperparameters.model_dump()
        return (self.method.supervised or Supervised()).hyperparameters.model_dump()

    @property
    def kind(self) -> str:
        """OpenAI's word for the method."""
        return "supervised" if self.method is None else self.method.type

    @property
    def chosen_seed(self) -> int:
        """Given, or drawn."""
        return secrets.randbelow(2**31) if self.seed is None else self.seed

    @property
    def settings(self) -> dict[str, Any]:
        """Our tables, without those that are absent."""
        return self.dialoop.model_dump(exclude_none=True)


def parse(model: type[B], body: Mapping[str, Any]) -> B:
    """`body` as `model`; an explicit null is absent. Raises HttpError that names the field, dotted."""
    try:
        return model.model_validate({name: value for name, value in body.items() if value is not None})
    except ValidationError as error:
        raise _refused(model, dict(error.errors(include_url=False)[0])) from None


def _refused(model: type[BaseModel], problem: Mapping[str, Any]) -> HttpError:
    path = [str(part) for part in problem["loc"]]
    names = [part for part in path if (part.isidentifier() and part not in _TAGS) or part.isdecimal()]
    param = ".".join(names)[:64] or echo(path[-1])
    if problem["type"] == "missing":
        return HttpError(400, f"{param} is missing: add it", param=param)
    if problem["type"] == "extra_forbidden":
        known = model.model_fields if len(path) == 1 else ()
        return HttpError(400, f"unknown field {echo(path[-1])}{nearest(path[-1][:64], known)}", param=param)
    wanted = str(problem["msg"])
    return HttpError(
        400, f"{param} = {echo(problem['input'])}: {wanted[:1].lower()}{wanted[1:]}", param=param
    )


def job_to_openai(job: Job) -> dict[str, Any]:
    """The job object. OpenAI has no word for a paused job, which is told as queued; ours stands beside."""
    hyperparameters = {**job.hyperparameters}
    if not isinstance(epochs := hyperparameters["n_epochs"], str):
        hyperparameters["n_epochs"] = math.ceil(epochs)
    return {
        "id": job.id,
        "object": "fine_tuning.job",
        "created_at": job.created // 1_000_000,
        "error": job.error,
        "fine_tuned_model": job.fine_tuned_model,
        "finished_at": _seconds(job.finished),
        "hyperparameters": {name: value for name, value in hyperparameters.items() if name != "beta"},
        "model": job.model,
        "organization_id": job.project_id,
        "result_files": list(job.result_files),
        "status": "queued" if job.status == "paused" else job.status,
        "trained_tokens": job.trained_tokens,
        "training_file": job.training_file,
        "validation_file": job.validation_file,
        "seed": job.seed,
        "estimated_finish": _seconds(job.estimated_finish),
        "integrations": [],
        "metadata": job.metadata,
        "user_provided_suffix": job.suffix,
        "method": {"type": job.method, job.method: {"hyperparameters": hyperparameters}},
        "dialoop": {"status": job.status, "step": job.step, "steps": job.steps, "recipe": job.recipe},
    }


def event_to_openai(event: Event) -> dict[str, Any]:
    """The event object."""
    return {
        "id": event.id,
        "object": "fine_tuning.job.event",
        "created_at": event.created // 1_000_000,
        "level": event.level,
        "message": event.message,
        "type": event.type,
        "data": event.data or {},
    }


def checkpoint_to_openai(checkpoint: Checkpoint, job_id: str) -> dict[str, Any]:
    """The checkpoint object."""
    return {
        "id": checkpoint.id,
        "object": "fine_tuning.job.checkpoint",
        "created_at": checkpoint.created // 1_000_000,
        "fine_tuned_model_checkpoint": checkpoint.model,
        "fine_tuning_job_id": job_id,
        "metrics": checkpoint.metrics,
        "step_number": checkpoint.step,
    }


def _seconds(micros: int | None) -> int | None:
    return None if micros is None else micros // 1_000_000
