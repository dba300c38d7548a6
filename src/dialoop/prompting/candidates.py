"""Prompts that might be better: other instructions, other examples, or both."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dialoop.config.prompts import ExampleSettings, FewShotSettings, PromptSettings, TurnSettings
from dialoop.prompting.selection import label_of
from dialoop.types import Conversation

_SENTENCE = re.compile(r"(?<=[。！？])\s*|(?<=[.!?])\s+")
_EXPRESSION = re.compile(r"\{[{%].*?[%}]\}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A prompt, and how it came to be, such as `hand-given` or `mutated: a sentence left out`."""

    settings: PromptSettings
    origin: str

    @property
    def hash(self) -> str:
        """Of what it says."""
        return self.settings.hash


def with_instruction(settings: PromptSettings, language: str, system: str) -> PromptSettings:
    """The same prompt with another system message."""
    wording = settings.wording[language].model_copy(update={"system": system})
    return settings.model_copy(update={"wording": {**settings.wording, language: wording}})


def with_examples(
    settings: PromptSettings, examples: Sequence[Conversation], few_shot: FewShotSettings | None = None
) -> PromptSettings:
    """The same prompt with these examples, of which `few_shot` says which are shown (None: all)."""
    shown = tuple(_example(each) for each in examples)
    return settings.model_copy(update={"examples": shown, "few_shot": few_shot or FewShotSettings()})


def _example(example: Conversation) -> ExampleSettings:
    turns = tuple(
        TurnSettings(role="system" if m.role == "developer" else m.role, content=m.content)
        for m in (*example.history.messages, *example.messages[len(example.history.messages) :][:1])
    )
    intent = example.metadata.get("intent")
    return ExampleSettings(messages=turns, label=None if intent is None else str(intent))


def sentences(text: str) -> list[str]:
    """A text cut after sentences and lines; template code stays in one piece."""
    held: list[str] = []

    def hold(found: re.Match[str]) -> str:
        held.append(found[0])
        return f"\x00{len(held) - 1}\x00"

    covered = _EXPRESSION.sub(hold, text.strip())
    # A block such as {% if %} ... {% endif %} is one piece with all that it holds.
    if any(each.startswith("{%") for each in held):
        first, last = covered.index("\x00"), covered.rindex("\x00") + 1
        before, block, after = covered[:first], covered[first:last], covered[last:]
    else:
        before, block, after = covered, "", ""
    cut = [*_cut(before), *([block] if block else []), *_cut(after)]
    return [re.sub(r"\x00(\d+)\x00", lambda found: held[int(found[1])], piece) for piece in cut]


def _cut(text: str) -> list[str]:
    return [piece for line in text.splitlines() for piece in _SENTENCE.split(line) if piece.strip()]


def mutations(system: str, others: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Small changes to an instruction, each as (text, what was done).

    A sentence left out, two exchanged, and one of `others` added at the end (edits without a model: GrIPS,
    Prasad et al. 2023, arXiv:2203.07281). Template code is moved with its sentence and never left out.
    """
    parts = sentences(system)
    found: list[tuple[str, str]] = []
    for i, part in enumerate(parts):
        if "{" not in part:
            found.append((_joined([*parts[:i], *parts[i + 1 :]]), "a sentence left out"))
    for i in range(len(parts) - 1):
        swapped = [*parts[:i], parts[i + 1], parts[i], *parts[i + 2 :]]
        found.append((_joined(swapped), "two sentences exchanged"))
    for other in others:
        found += [
            (_joined([*parts, added]), "a sentence added")
            for added in sentences(other)
            if added not in parts and "{" not in added
        ]
    known = {system.strip()}
    unique = []
    for text, how in found:
        if text and text not in known:
            known.add(text)
            unique.append((text, how))
    return unique


def _joined(parts: Sequence[str]) -> str:
    """Sentences with a space between, none after Chinese stops; template blocks on lines of their own."""
    text = ""
    for part in parts:
        if part.startswith("{%") or text.endswith("%}"):
            text = f"{text}\n{part}" if text else part
        else:
            text += (" " if text and text[-1] not in "。！？" else "") + part
    return text


def example_sets(
    pool: Sequence[Conversation], counts: Sequence[int], how_many: int, seed: int
) -> list[tuple[Conversation, ...]]:
    """Sets of examples drawn at random, `how_many` of each size; of different classes as far as that goes."""
    generator = random.Random(seed)
    by_class: dict[str, list[int]] = {}
    for place, example in enumerate(pool):
        by_class.setdefault(label_of(example), []).append(place)
    names = sorted(by_class)
    found = []
    for count in counts:
        wanted = min(count, len(pool))
        for _ in range(how_many):
            classes = generator.sample(names, min(wanted, len(names)))
            drawn = [generator.choice(by_class[name]) for name in classes]
            left = sorted(set(range(len(pool))) - set(drawn))
            drawn += generator.sample(left, wanted - len(drawn))
            generator.shuffle(drawn)
            found.append(tuple(pool[place] for place in drawn))
    return found


def crossed(first: Candidate, second: Candidate) -> Candidate:
    """The words of one with the examples of the other."""
    taken: Mapping[str, object] = {"examples": second.settings.examples, "few_shot": second.settings.few_shot}
    return replace(
        first,
        settings=first.settings.model_copy(update=dict(taken)),
        origin=f"{first.origin} × {second.origin}",
    )
