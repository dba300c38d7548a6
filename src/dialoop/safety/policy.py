"""What is looked for and what is done about it, as settings; and the finds of a whole text."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pydantic import Field

from dialoop.config import Settings
from dialoop.safety.categories import Action, Category
from dialoop.safety.classifier import Classifier, ClassifierSettings, Probabilities
from dialoop.safety.rules import SHIPPED, read_lists
from dialoop.safety.scan import Find, Group, Scan, compile_rules
from dialoop.safety.sentences import Sentences, sentences

MASK = "***"


class SafetySettings(Settings):
    """The filter of a server."""

    on: bool = False
    """Whether chats pass through it; /v1/moderations is there in any case."""
    lists: tuple[str, ...] = SHIPPED
    """Word lists: `en`, `zh` and `file:PATH`."""
    actions: Mapping[Category, Action] = Field(default_factory=dict)
    """What is done with a category, in place of what its lists say."""
    classifier: ClassifierSettings | None = None
    """A model that reads along; none unless it is named."""
    keep_content: bool = False
    """Keep with a decision the words that it was about; else the rule alone."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found in a text, in its order, and what the classifier says of its likeliest sentences."""

    finds: tuple[Find, ...] = ()
    probabilities: Probabilities = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules, ready to be looked for, and perhaps a model. keep_content: as in SafetySettings."""

    groups: tuple[Group, ...]
    keep_content: bool = False
    classifier: Classifier | None = None

    @classmethod
    def of(cls, settings: SafetySettings, engine: object = None, *, classifier: str = "") -> Policy:
        """Read the lists. Raises ConfigError.

        engine: who serves the classifier, None = it is left out.  classifier: its name there.
        """
        rules = read_lists(settings.lists)
        told = (replace(rule, action=settings.actions.get(rule.category, rule.action)) for rule in rules)
        reader = None
        if settings.classifier is not None and engine is not None:
            name = classifier or settings.classifier.model
            reader = Classifier.of(settings.classifier, engine, settings.actions, name)
        return cls(compile_rules(told), settings.keep_content, reader)

    @property
    def blocking(self) -> Policy:
        """The same rules and model; all that they find blocks."""
        groups = tuple(replace(group, action="block") for group in self.groups)
        return replace(self, groups=groups, classifier=self.classifier and self.classifier.blocking)

    @property
    def idle(self) -> bool:
        """Whether it finds nothing in any text."""
        return not self.groups and self.classifier is None

    def find(self, text: str) -> tuple[Find, ...]:
        """All that the lists find in a whole text, in its order."""
        return _in_order(Scan(self.groups).push(text, last=True))

    async def judge(self, texts: Sequence[str]) -> list[Judgement]:
        """What lists and classifier say of whole texts. Raises as the classifier's engine."""
        listed = await asyncio.to_thread(lambda: [self.find(text) for text in texts])
        if self.classifier is None:
            return [Judgement(finds) for finds in listed]
        parts = [sentences(text) for text in texts]
        told = iter(await self.classifier.read([each for part in parts for _, each in part]))
        return [
            self._judgement(finds, [(begin, each, next(told)) for begin, each in part])
            for finds, part in zip(listed, parts, strict=True)
        ]

    def watch(self) -> Watch:
        """For a text that comes in pieces."""
        return Watch(self)

    def _judgement(
        self, listed: tuple[Find, ...], told: Sequence[tuple[int, str, Probabilities]]
    ) -> Judgement:
        assert self.classifier is not None
        read = [find for each in told for find in self.classifier.finds(*each)]
        highest: dict[Category, float] = {}
        for _, _, probabilities in told:
            highest |= {name: max(p, highest.get(name, 0.0)) for name, p in probabilities.items()}
        return Judgement(_in_order([*listed, *read]), highest)


class Watch:
    """One text in pieces. What it finds, however the text is cut, is what is in the whole text."""

    def __init__(self, policy: Policy) -> None:
        self._scan, self._reader = Scan(policy.groups), policy.classifier
        self._sentences = Sentences()

    @property
    def seen(self) -> int:
        """Characters that came."""
        return self._scan.seen

    @property
    def sure(self) -> int:
        """Before this character nothing can be found any more."""
        return self._scan.sure if self._reader is None else min(self._scan.sure, self._sentences.begin)

    async def push(self, text: str, *, last: bool = False) -> list[Find]:
        """What `text` makes certain; last: nothing more comes. Raises as the classifier's engine."""
        finds = self._scan.push(text, last=last)
        if self._reader is not None and (whole := self._sentences.push(text, last=last)):
            told = await self._reader.read([sentence for _, sentence in whole])
            for (begin, sentence), probabilities in zip(whole, told, strict=True):
                finds += self._reader.finds(begin, sentence, probabilities)
        return finds


def _in_order(finds: Sequence[Find]) -> tuple[Find, ...]:
    return tuple(sorted(finds, key=lambda find: (find.start, find.category)))


def masked(text: str, finds: tuple[Find, ...]) -> str:
    """The text with MASK in place of what is to be masked; finds that overlap share one."""
    done, parts = 0, list[str]()
    for find in sorted((each for each in finds if each.action == "mask"), key=lambda each: each.start):
        if find.start >= done:
            parts += [text[done : find.start], MASK]
        done = max(done, find.end)
    return "".join([*parts, text[done:]])
