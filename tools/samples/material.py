"""Reads the hand-written material in `en/` and `zh/`: a TOML file an intent, `acts.toml` and `slots.toml`.

Markup in a sentence: `{order}` is a slot, `[a|b]` one of two wordings.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SLOT = re.compile(r"\{(\w+)\}")
ARTICLE = re.compile(r"\b([Aa]) \{(\w+)\}")
CHOICE = re.compile(r"\[([^\[\]]*)\]")
NOT_INTENTS = ("acts", "slots")


@dataclass(frozen=True)
class Act:
    """A pair of moves, the customer's and the desk's; `only` limits it to some scenarios."""

    name: str
    ask: tuple[str, ...]
    answer: tuple[str, ...]
    only: tuple[str, ...] = ()
    corrects: str = ""


@dataclass(frozen=True)
class Scenario:
    """One circumstance of an intent; `pools` says which slot draws from which other pool."""

    intent: str
    circumstance: str
    ask: tuple[str, ...]
    answer: tuple[str, ...]
    more: tuple[Act, ...]
    pools: dict[str, str]

    @property
    def name(self) -> str:
        return f"{self.intent}/{self.circumstance}"


@dataclass(frozen=True)
class Material:
    """All that is written for one language."""

    language: str
    scenarios: tuple[Scenario, ...]
    lines: dict[str, tuple[str, ...]]
    acts: tuple[Act, ...]
    pools: dict[str, tuple[str, ...]]


def slots_of(text: str) -> set[str]:
    """The slot names in a sentence, whichever of its wordings is taken."""
    return set(SLOT.findall(text))


def choose_wording(text: str, rng: random.Random) -> str:
    """Takes one wording of every `[a|b]`, left to right."""
    return CHOICE.sub(lambda found: rng.choice(found.group(1).split("|")), text)


def fill(text: str, values: dict[str, str]) -> str:
    """Puts the values into the slots, "a" becoming "an" before a vowel. Raises KeyError for a gap."""
    articled = ARTICLE.sub(lambda found: _article_at(found, values), text)
    return SLOT.sub(lambda found: _value_at(found, values), articled)


def _article_at(found: re.Match[str], values: dict[str, str]) -> str:
    ending = "n" if values[found[2]][0] in "aeiou" else ""
    return f"{found[1]}{ending} {{{found[2]}}}"


def _value_at(found: re.Match[str], values: dict[str, str]) -> str:
    """The slot's value, with a capital where it begins a sentence (an e-mail address stays as it is)."""
    value, before = values[found[1]], found.string[: found.start()].rstrip()
    starts = not before or (before[-1] in ".!?" and found.string[found.start() - 1] == " ")
    return value[:1].upper() + value[1:] if starts and "@" not in value else value


def _act(name: str, table: dict[str, Any]) -> Act:
    return Act(
        name=name,
        ask=tuple(table["ask"]),
        answer=tuple(table["answer"]),
        only=tuple(table.get("only", ())),
        corrects=table.get("corrects", ""),
    )


def _scenarios(path: Path) -> Iterable[Scenario]:
    intent = path.stem
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    acts = [_act(f"{intent}/more/{index}", table) for index, table in enumerate(tables.pop("more", []))]
    for circumstance, table in tables.items():
        yield Scenario(
            intent=intent,
            circumstance=circumstance,
            ask=tuple(table["ask"]),
            answer=tuple(table["answer"]),
            more=tuple(act for act in acts if not act.only or circumstance in act.only),
            pools=dict(table.get("pools", {})),
        )


def read_material(language: str, folder: Path = HERE) -> Material:
    """All material of one language, scenarios in the order of the file names and of the tables in them."""
    root = folder / language
    acts = tomllib.loads((root / "acts.toml").read_text(encoding="utf-8"))
    pools = tomllib.loads((root / "slots.toml").read_text(encoding="utf-8"))
    paths = sorted(path for path in root.glob("*.toml") if path.stem not in NOT_INTENTS)
    shared = acts.pop("more")
    return Material(
        language=language,
        scenarios=tuple(scenario for path in paths for scenario in _scenarios(path)),
        lines={name: tuple(lines) for name, lines in acts.items()},
        acts=tuple(_act(f"more/{index}", table) for index, table in enumerate(shared)),
        pools={name: tuple(values) for name, values in pools.items()},
    )
