"""Write short polite conversations, English and Chinese, for the last training stage of the base model.

Usage: `python tools/base/small_talk.py OUT.jsonl [--per-language 12000] [--seed 1]`; a path that ends in
`.gz` is compressed. The same seed and material give the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from math import sqrt
from pathlib import Path

from small_talk_fill import Slots
from small_talk_material import Intent, Lines, Material, load_material

MOST_REPEATS = 36
MOST_EXCHANGES = 4
LONGEST = {"en": 40, "zh": 60}
SYSTEM_SHARE = 0.2
SWITCH_SHARE = 0.03
SENTENCE_END = re.compile(r"[.!?](?=\s|$)|[。！？]")

Messages = list[dict[str, str]]


class Writer:
    """Draws conversations of one language; `other` supplies turns for the rare switch of language."""

    def __init__(self, material: Material, other: Material, rng: random.Random) -> None:
        self._material = material
        self._other = other
        self._rng = rng
        self._weights = [_weight(intent, material) for intent in material.intents]
        self._answers: Counter[str] = Counter()
        self._seen: set[str] = set()

    def conversations(self, count: int) -> Iterator[dict[str, object]]:
        """Yield `count` distinct rows; RuntimeError when the material is too small for that."""
        made, misses = 0, 0
        while made < count:
            row = self._attempt()
            if row is not None:
                made, misses = made + 1, 0
                yield row
                continue
            misses += 1
            if misses > 5000:
                raise RuntimeError(f"{made} distinct conversations made, {count} wanted: add material")

    def _attempt(self) -> dict[str, object] | None:
        plan = self._plan()
        messages = self._speak(plan)
        answers = [said["content"] for said in messages if said["role"] == "assistant"]
        key = json.dumps(messages, ensure_ascii=False)
        if key in self._seen or any(self._refuses(text) for text in answers):
            return None
        self._seen.add(key)
        self._answers.update(answers)
        topic = max(plan, key=lambda part: part.exchanges * 10 + part.weight).topic
        messages = self._system(plan, answers) + messages
        return {"messages": messages, "metadata": {"language": self._material.language, "topic": topic}}

    def _refuses(self, answer: str) -> bool:
        """Whether the answer is worn out or too long (English words, Chinese characters)."""
        language = self._material.language
        size = len(answer.split()) if language == "en" else len(answer)
        return size > LONGEST[language] or self._answers[answer] >= MOST_REPEATS

    def _plan(self) -> list[Intent]:
        core = self._rng.choices(self._material.intents, self._weights)[0]
        plan = [core]
        if core.alone:
            return plan
        if core.exchanges == 1 and self._rng.random() < 0.3:
            more = self._rng.choices(self._material.intents, self._weights)[0]
            if not more.alone and more.topic not in ("goodbye", "greetings") and more is not core:
                plan.append(more)
        if plan[0].topic not in ("greetings", "goodbye", "thanks") and self._rng.random() < 0.12:
            plan.insert(0, self._rng.choice(self._material.of("greetings")))
        if plan[-1].topic not in ("greetings", "goodbye", "thanks") and self._rng.random() < 0.15:
            plan.append(self._rng.choice(self._material.of(self._rng.choice(("thanks", "goodbye")))))
        while sum(part.exchanges for part in plan) > MOST_EXCHANGES:
            plan.pop()
        return plan

    def _speak(self, plan: Sequence[Intent]) -> Messages:
        messages: Messages = []
        room = sum(part.exchanges for part in plan) < MOST_EXCHANGES and not plan[0].alone
        self._switched = room and self._rng.random() < SWITCH_SHARE
        if self._switched:
            messages += self._turns(self._rng.choice(self._other.of("greetings")), self._other)
        for part in plan:
            messages += self._turns(part, self._material)
        return messages

    def _turns(self, intent: Intent, material: Material) -> Messages:
        row = self._rng.choice(material.tables[intent.table]) if intent.table else {}
        self._slots = Slots(material.pools, self._rng, row)
        messages: Messages = []
        for at, lines in enumerate(intent.turns):
            text = self._slots.fill(self._rng.choice(lines))
            role = "assistant" if at % 2 else "user"
            messages.append({"role": role, "content": text if at % 2 else self._loosen(text, intent)})
        return messages

    def _loosen(self, text: str, intent: Intent) -> str:
        """Type as people type: now and then no capital, no full stop."""
        draw = self._rng.random()
        if draw < 0.12:
            text = text.rstrip(".?!。？！") or text
        if draw < 0.06 and not intent.slotted:
            text = text.lower()
        return text

    def _system(self, plan: Sequence[Intent], answers: Sequence[str]) -> Messages:
        lines = self._system_lines(plan, answers)
        if not lines:
            return []
        return [{"role": "system", "content": self._slots.fill(self._rng.choice(lines))}]

    def _system_lines(self, plan: Sequence[Intent], answers: Sequence[str]) -> Lines:
        if plan[0].system:
            return plan[0].system
        # A switch or a translation answers in another language than a system line may ask for.
        if self._switched or plan[0].alone or self._rng.random() >= SYSTEM_SHARE:
            return ()
        single = all(len(SENTENCE_END.findall(text)) == 1 for text in answers)
        return self._material.brief_systems if single else self._material.systems


def _weight(intent: Intent, material: Material) -> float:
    """More draws for what holds more distinct conversations: slots, tables, many lines."""
    lines = sum(len(turn) for turn in intent.turns) / len(intent.turns)
    spread = 2.5 if intent.table and len(material.tables[intent.table]) > 30 else 1.0
    return max(intent.weight, 1.5) * spread * (2.0 if intent.slotted else 3.5) * sqrt(min(lines, 12))


def write_rows(seed: int, per_language: int) -> list[dict[str, object]]:
    """Return the shuffled rows of both languages, `per_language` each."""
    english, chinese = load_material("en"), load_material("zh")
    rows: list[dict[str, object]] = []
    for own, other in ((english, chinese), (chinese, english)):
        rng = random.Random(f"{seed}/{own.language}")
        rows += Writer(own, other, rng).conversations(per_language)
    random.Random(seed).shuffle(rows)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file named on the command line and print the counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--per-language", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    rows = write_rows(chosen.seed, chosen.per_language)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    chosen.out.write_bytes(gzip.compress(text, mtime=0) if chosen.out.suffix == ".gz" else text)
    print(f"{len(rows)} conversations, {len(text)} bytes of JSON lines: {chosen.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
