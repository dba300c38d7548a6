"""A model with a head as a moderator: how likely each sentence falls into each category."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from dialoop.config import Settings
from dialoop.errors import ConfigError, echo
from dialoop.safety.categories import CATEGORIES, Action, Category
from dialoop.safety.scan import Find
from dialoop.types import Classify

AT_ONCE = 32
"""Sentences of one question to the model."""
REMEMBERED = 4096
"""Sentences whose answers are kept."""
Share = Annotated[float, Field(gt=0, le=1)]
Probabilities = Mapping[Category, float]


class ClassifierSettings(Settings):
    """Which model, and from where on what it says counts."""

    model: str = Field(min_length=1)
    """A registered model with a head for classes (`dialoop tune moderation`), or its directory. Classes that
    are no categories are harmless."""
    threshold: Share = 0.5
    """A sentence falls into a category from this probability on."""
    thresholds: Mapping[Category, Share] = Field(default_factory=dict)
    """The same, of single categories."""
    action: Action = "flag"
    """What is done with a sentence that it finds, where `actions` says nothing of the category."""


@dataclass(frozen=True, slots=True)
class Classifier:
    """A served model, what counts as found, and what is done about it."""

    engine: Classify
    model: str
    thresholds: Mapping[Category, float]
    actions: Mapping[Category, Action]
    _known: dict[str, Probabilities] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(
        cls, settings: ClassifierSettings, engine: object, actions: Mapping[Category, Action], model: str
    ) -> Classifier:
        """model: its name with `engine`. Raises ConfigError for an engine that classifies nothing."""
        if not isinstance(engine, Classify):
            raise ConfigError(
                f"safety.classifier.model = {echo(settings.model)}: what is served here tells no classes: "
                f"leave it out"
            )
        return cls(
            engine, model,
            {name: settings.thresholds.get(name, settings.threshold) for name in CATEGORIES},
            {name: actions.get(name, settings.action) for name in CATEGORIES},
        )  # fmt: skip

    @property
    def blocking(self) -> Classifier:
        """The same, where all that is found blocks."""
        return replace(self, actions=dict.fromkeys(CATEGORIES, "block"))

    async def read(self, sentences: Sequence[str]) -> list[Probabilities]:
        """The probabilities of each sentence; none of one without a letter. Raises as the engine."""
        worded = [each for each in dict.fromkeys(sentences) if any(map(str.isalnum, each))]
        found: dict[str, Probabilities] = {each: self._known[each] for each in worded if each in self._known}
        new = [each for each in worded if each not in found]
        for first in range(0, len(new), AT_ONCE):
            some = new[first : first + AT_ONCE]
            told = await self.engine.classify(self.model, some)
            for sentence, row in zip(some, told.rows, strict=True):
                shares = dict(zip(told.labels, row.probabilities, strict=True))
                found[sentence] = {name: shares[name] for name in CATEGORIES if name in shares}
        self._remember(found)
        return [found.get(each, {}) for each in sentences]

    def _remember(self, found: Mapping[str, Probabilities]) -> None:
        """Of a dialogue all turns but the last were read before."""
        for sentence, told in found.items():
            self._known.pop(sentence, None)
            self._known[sentence] = told
        while len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]

    def finds(self, begin: int, sentence: str, told: Probabilities) -> list[Find]:
        """What is found in a sentence that begins there; the spaces around it are not part of it."""
        start = begin + len(sentence) - len(sentence.lstrip())
        end = begin + len(sentence.rstrip())
        return [
            Find(name, self.actions[name], f"{self.model} {share:.2f}", start, end, read=True)
            for name, share in told.items()
            if share >= self.thresholds[name]
        ]


def check_labels(settings: ClassifierSettings, folder: Path) -> None:
    """Raises ConfigError for a model whose classes are no categories."""
    labels = labels_of(folder)
    if not set(labels) & set(CATEGORIES):
        told = f"has the classes {', '.join(labels[:8])[:64]}" if labels else "has no head for classes"
        raise ConfigError(
            f"safety.classifier.model = {echo(settings.model)}: it {told}: name one whose classes are among "
            f"{', '.join(CATEGORIES)}, such as dialoop tune moderation makes"
        )


def labels_of(folder: Path) -> tuple[str, ...]:
    """The classes of the model in a directory; () where it has none."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ()
    kinds: Iterable[str] = config.get("architectures") or ()
    named = config.get("id2label") or {}
    whole = any(kind.endswith("ForSequenceClassification") for kind in kinds)
    return tuple(map(str, named.values())) if whole else ()
