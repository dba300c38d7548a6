"""Read the hand-written material: intents (alternating turns), slot pools and fact tables."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from small_talk_fill import SLOT
from small_talk_tables import Row, computed_pools, computed_tables, ordering

MATERIAL = Path(__file__).parent / "material"
Lines = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Intent:
    """One thing people say and what follows: `turns` alternates user and assistant lines to choose from."""

    topic: str
    turns: tuple[Lines, ...]
    system: Lines
    table: str
    weight: float
    alone: bool

    @property
    def exchanges(self) -> int:
        """Number of user and assistant pairs."""
        return len(self.turns) // 2

    @property
    def slotted(self) -> bool:
        """Whether any line carries a slot."""
        return any(SLOT.search(line) for lines in self.turns for line in lines)


@dataclass(frozen=True, slots=True)
class Material:
    """All the material of one language."""

    language: str
    intents: tuple[Intent, ...]
    pools: Mapping[str, Sequence[str]]
    tables: Mapping[str, Sequence[Row]]
    systems: Lines
    brief_systems: Lines

    def of(self, topic: str) -> list[Intent]:
        """Return the single-exchange intents of a topic that may stand beside others."""
        return [one for one in self.intents if one.topic == topic and one.exchanges == 1 and not one.alone]


def _lines(text: str) -> Lines:
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _intent(entry: Mapping[str, object], path: Path) -> Intent:
    turns = entry["turns"]
    if not isinstance(turns, list) or not turns or len(turns) % 2:
        raise ValueError(
            f"{path.name}: an intent of {entry.get('topic')} has odd turns; wanted user, "
            "assistant pairs; add the missing answer"
        )
    return Intent(
        topic=str(entry["topic"]),
        turns=tuple(_lines(turn) for turn in turns),
        system=_lines(str(entry.get("system", ""))),
        table=str(entry.get("table", "")),
        weight=float(str(entry.get("weight", 1.0))),
        alone=bool(entry.get("alone", False) or entry.get("system")),
    )


def _table(entry: Mapping[str, str]) -> list[Row]:
    if "order" in entry:
        return ordering(part.strip() for part in entry["order"].split(";") if part.strip())
    keys = entry["keys"].split()
    text = entry["rows"] if entry.get("split") == "lines" else entry["rows"].replace(";", "\n")
    cells = (part.split("=") for part in text.splitlines() if part.strip())
    return [dict(zip(keys, (cell.strip() for cell in row), strict=True)) for row in cells]


def load_material(language: str) -> Material:
    """Read `material/shared` and `material/<language>`; raises ValueError on a malformed intent."""
    intents: list[Intent] = []
    pools: dict[str, Sequence[str]] = dict(computed_pools(language))
    tables: dict[str, Sequence[Row]] = dict(computed_tables(language))
    systems: dict[str, Lines] = {}
    rooms = ("shared", language)
    for path in (path for room in rooms for path in sorted((MATERIAL / room).glob("*.toml"))):
        with path.open("rb") as stream:
            content = tomllib.load(stream)
        intents += [_intent(entry, path) for entry in content.get("intent", [])]
        tables |= {name: _table(entry) for name, entry in content.get("table", {}).items()}
        systems |= {name: _lines(text) for name, text in content.get("systems", {}).items()}
        for name, text in content.get("pool", {}).items():
            pools[name] = [part.strip() for part in text.replace("\n", ";").split(";") if part.strip()]
    return Material(language, tuple(intents), pools, tables, systems["any"], systems["brief"])
