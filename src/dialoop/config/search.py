"""What a search varies, within which bounds and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from dialoop.config.settings import Settings
from dialoop.errors import echo, nearest

Scalar = bool | int | float | str


class _Varied(Settings):
    when: dict[str, Scalar] = Field({})
    """Only varied where these other fields of the space, named before it, have these values."""


class FloatRange(_Varied):
    """A number between two bounds."""

    kind: Literal["float"] = "float"
    """Names the range."""
    low: float
    """Lowest."""
    high: float
    """Highest."""
    log: bool = False
    """Drawn evenly over its logarithm."""

    @model_validator(mode="after")
    def _is_a_range(self) -> FloatRange:
        _check(self.low, self.high, self.log)
        return self


class IntRange(_Varied):
    """A whole number between two bounds, both included."""

    kind: Literal["int"] = "int"
    """Names the range."""
    low: int
    """Lowest."""
    high: int
    """Highest."""
    step: int = Field(1, ge=1)
    """Distance of two neighbours; not beside `log`."""
    log: bool = False
    """Drawn evenly over its logarithm."""

    @model_validator(mode="after")
    def _is_a_range(self) -> IntRange:
        if self.log and self.step > 1:
            raise ValueError("log and step exclude each other: give one")
        _check(self.low, self.high, self.log)
        return self


class Choice(_Varied):
    """One of several values: names, numbers or whole tables."""

    kind: Literal["choice"] = "choice"
    """Names the range."""
    of: tuple[Any, ...] = Field(min_length=2)
    """The values."""


def _check(low: float, high: float, log: bool) -> None:
    if not low < high:
        raise ValueError(f"low = {low:g} is not below high = {high:g}: swap or widen them")
    if log and low <= 0:
        raise ValueError(f"low = {low:g} has no logarithm: give one above 0, or log = false")


Varied = Annotated[FloatRange | IntRange | Choice, Field(discriminator="kind")]
Pruner = Literal["asha", "median", "none"]


class SearchSettings(Settings):
    """Trials of one recipe, each with other values (Akiba et al. 2019, arXiv:1907.10902)."""

    space: dict[str, Varied] = Field({})
    """Dotted field of the recipe = its range, such as `"optim.learning_rate" = { kind = "float", ... }`."""
    trials: int = Field(20, ge=1)
    """Trials in all, of every call and worker; those that were stopped early count."""
    minutes: float | None = Field(None, gt=0)
    """Minutes of trials, all workers together, after which none begins; None = no limit."""
    pruner: Pruner = "asha"
    """Which trials are stopped early: `asha` lets the better half go on at validations 1, 2, 4 and so on
    (Li et al. 2020, arXiv:1810.05934); `median` stops those below the median of the others."""
    validations: int = Field(8, ge=1)
    """Validations of a trial, evenly over its updates."""
    startup: int = Field(6, ge=1)
    """Trials whose values are drawn at random, before a tree of Parzen estimators learns from them."""
    seed: int = 0
    """Of the values that are drawn."""

    @model_validator(mode="after")
    def _conditions_come_after(self) -> SearchSettings:
        before: list[str] = []
        for path, varied in self.space.items():
            for other in varied.when:
                if other not in before:
                    told = nearest(other, before) or ": name that one first"
                    raise ValueError(f"space.{path}.when names {echo(other)}, no field before it{told}")
            before.append(path)
        return self


def with_values(table: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's table with dotted fields set; another `kind` begins its table anew."""
    changed: dict[str, Any] = _copied(table)
    for path, value in values.items():
        *parents, last = path.split(".")
        place = changed
        for parent in parents:
            place = place.setdefault(parent, {})
        if last == "kind" and place.get("kind", value) != value:
            place.clear()
        place[last] = _copied(value)
    return changed


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list | tuple) else value
