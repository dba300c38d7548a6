"""Makes the shipped moderation sample, always the same: `python tools/samples/moderation.py [FOLDER]`."""

from __future__ import annotations

import itertools
import json
import random
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SEED = "moderation-1"
LANGUAGES = ("en", "zh")
WORDINGS = 6
"""Of a line, where it has so many."""
MATERIAL = Path(__file__).parent / "moderation"
OUTPUT = Path(__file__).parents[2] / "src" / "dialoop" / "assets" / "samples"
_CHOICE = re.compile(r"\[([^\]]*)\]")


def wordings(line: str) -> list[str]:
    """All ways to say a line."""
    parts = _CHOICE.split(line)
    choices = [part.split("|") if place % 2 else [part] for place, part in enumerate(parts)]
    return ["".join(each) for each in itertools.product(*choices)]


def rows(language: str) -> Iterator[dict[str, Any]]:
    """Some wordings of each line; `scenario` is the line, which tests must not share with training."""
    material = tomllib.loads((MATERIAL / f"{language}.toml").read_text(encoding="utf-8"))
    for label, lines in material.items():
        for number, line in enumerate(lines):
            scenario = f"{language}/{label}/{number}"
            ways = wordings(line)
            drawn = random.Random(f"{SEED}/{scenario}").sample(ways, min(WORDINGS, len(ways)))
            for text in drawn:
                yield {
                    "text": text,
                    "label": label,
                    "metadata": {"language": language, "scenario": scenario},
                }


def jsonl() -> str:
    """The text of the file, both languages shuffled."""
    found = [row for language in LANGUAGES for row in rows(language)]
    random.Random(f"{SEED}/order").shuffle(found)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found)


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT
    (folder / "moderation.jsonl").write_text(jsonl(), encoding="utf-8", newline="\n")
