"""What is looked for and what is done about it, as settings; and the finds of a whole text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pydantic import Field

from dialoop.config import Settings
from dialoop.safety.categories import Action, Category
from dialoop.safety.rules import SHIPPED, read_lists
from dialoop.safety.scan import Find, Group, Scan, compile_rules

MASK = "***"


class SafetySettings(Settings):
    """The filter of a server."""

    on: bool = False
    """Whether chats pass through it; /v1/moderations is there in any case."""
    lists: tuple[str, ...] = SHIPPED
    """Word lists: `en`, `zh` and `file:PATH`."""
    actions: Mapping[Category, Action] = Field(default_factory=dict)
    """What is done with a category, in place of what its lists say."""
    keep_content: bool = False
    """Keep with a decision the words that it was about; else the rule alone."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules, ready to be looked for. keep_content: as in SafetySettings."""

    groups: tuple[Group, ...]
    keep_content: bool = False

    @classmethod
    def of(cls, settings: SafetySettings) -> Policy:
        """Read the lists. Raises ConfigError."""
        rules = read_lists(settings.lists)
        told = (replace(rule, action=settings.actions.get(rule.category, rule.action)) for rule in rules)
        return cls(compile_rules(told), settings.keep_content)

    @property
    def blocking(self) -> Policy:
        """The same rules, all of which block."""
        return replace(self, groups=tuple(replace(group, action="block") for group in self.groups))

    def find(self, text: str) -> tuple[Find, ...]:
        """All that is found in a whole text, in its order."""
        finds = Scan(self.groups).push(text, last=True)
        return tuple(sorted(finds, key=lambda find: (find.start, find.category)))


def masked(text: str, finds: tuple[Find, ...]) -> str:
    """The text with MASK in place of what is to be masked; finds that overlap share one."""
    done, parts = 0, list[str]()
    for find in sorted((each for each in finds if each.action == "mask"), key=lambda each: each.start):
        if find.start >= done:
            parts += [text[done : find.start], MASK]
        done = max(done, find.end)
    return "".join([*parts, text[done:]])
