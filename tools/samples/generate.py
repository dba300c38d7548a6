"""Makes the shipped sample dialogues: `python tools/samples/generate.py [FOLDER]`, always the same bytes."""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from material import Material, Scenario, read_material, slots_of
from talk import ASKABLE, FULL_NAME, DrawnSlots, Talk, converse

SEED = "quillmoor-1"
LANGUAGES = ("en", "zh")
PER_SCENARIO = 9
SAME_ANSWER_AT_MOST = 4
ATTEMPTS = 300
OUTPUT = Path(__file__).parents[2] / "src" / "dialoop" / "assets" / "samples"


class Seen:
    """What the language's conversations hold so far: first messages and names once, an answer a few times."""

    def __init__(self) -> None:
        self.firsts: set[str] = set()
        self.answers: Counter[str] = Counter()

    def accepts(self, messages: list[dict[str, str]]) -> bool:
        first = next(message["content"] for message in messages if message["role"] == "user")
        answers = [message["content"] for message in messages if message["role"] == "assistant"]
        repeated = any(self.answers[answer] >= SAME_ANSWER_AT_MOST for answer in answers)
        if first in self.firsts or repeated:
            return False
        self.firsts.add(first)
        self.answers.update(answers)
        return True


def pairings(scenario: Scenario, rng: random.Random) -> Iterator[tuple[int, int]]:
    """Opening and answer indices that fit together, endlessly, each opening and each answer equally often."""
    fitting = {
        index: [number for number, answer in enumerate(scenario.answer) if fits(opening, answer)]
        for index, opening in enumerate(scenario.ask)
    }
    lonely = [scenario.ask[index][:64] for index, answers in fitting.items() if not answers]
    if lonely:
        raise ValueError(f"{scenario.name}: no answer fits {lonely[0]!r}: name the slots of an answer in it")
    used: Counter[int] = Counter()
    while True:
        for index in rng.sample(range(len(scenario.ask)), len(scenario.ask)):
            number = min(fitting[index], key=lambda answer: (used[answer], rng.random()))
            used[number] += 1
            yield index, number


def fits(opening: str, answer: str) -> bool:
    """Whether the answer needs only what the opening tells or what the desk can ask for."""
    wanted = {FULL_NAME.get(slot, slot) for slot in slots_of(answer)}
    return wanted <= slots_of(opening) | set(ASKABLE)


def one_conversation(
    material: Material, scenario: Scenario, pairing: tuple[int, int], exchanges: int, rng: random.Random
) -> Talk:
    opening, answer = scenario.ask[pairing[0]], scenario.answer[pairing[1]]
    talk = Talk(material, scenario, DrawnSlots(material.pools, scenario.pools, rng), rng)
    converse(talk, opening, answer, exchanges)
    return talk


def scenario_rows(material: Material, scenario: Scenario, seen: Seen) -> Iterator[dict[str, Any]]:
    """The conversations of one scenario, each with other first words than all before."""
    rng = random.Random(f"{SEED}/{material.language}/{scenario.name}")
    pairs = pairings(scenario, rng)
    for _ in range(PER_SCENARIO):
        pairing, exchanges = next(pairs), rng.choices((1, 2, 3, 4), (39, 28, 22, 11))[0]
        for _attempt in range(ATTEMPTS):
            talk = one_conversation(material, scenario, pairing, exchanges, rng)
            if seen.accepts(talk.messages):
                break
        else:
            raise ValueError(f"{scenario.name}: too little variety: write more openings or answers")
        yield row(talk, pairing[1])


def row(talk: Talk, answer: int) -> dict[str, Any]:
    """One line of the file, the customer's number still to be given."""
    scenario = talk.scenario
    text = "\n".join(message["content"] for message in talk.messages).lower()
    metadata = {
        "language": talk.material.language,
        "intent": scenario.intent,
        "scenario": scenario.name,
        "template": f"{scenario.name}/{answer}",
        "customer": "",
        "slots": {slot: value for slot, value in sorted(talk.slots.values.items()) if value.lower() in text},
    }
    return {"messages": talk.messages, "metadata": metadata}


def rows(language: str) -> list[dict[str, Any]]:
    """All conversations of a language, shuffled; every customer writes once."""
    material, seen = read_material(language), Seen()
    found = [made for scenario in material.scenarios for made in scenario_rows(material, scenario, seen)]
    random.Random(f"{SEED}/{language}/order").shuffle(found)
    for number, made in enumerate(found, start=1):
        made["metadata"]["customer"] = f"c{number:04d}"
    return found


def jsonl(language: str) -> str:
    """The text of the language's file."""
    return "".join(json.dumps(made, ensure_ascii=False) + "\n" for made in rows(language))


def main(folder: Path = OUTPUT) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for language in LANGUAGES:
        text = jsonl(language)
        (folder / f"{language}.jsonl").write_text(text, encoding="utf-8", newline="\n")
        print(f"{language}.jsonl: {text.count(chr(10))} conversations, {len(text.encode()):,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT)
