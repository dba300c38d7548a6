"""Builds one conversation out of the material; it tracks what was said, so no answer invents a detail."""

from __future__ import annotations

import random
import re
import string
from dataclasses import dataclass, field

from material import SLOT, Act, Material, Scenario, choose_wording, fill, slots_of

CAPITALS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
CHINESE_STOPS = "。？！，"
NO_CASE_INTENTS = ("small_talk", "out_of_scope")
ASKABLE = ("order", "name", "email")
FULL_NAME = {"first": "name"}
SECOND = re.compile(r"^(\w+?)2$")


class DrawnSlots:
    """The values of one conversation, drawn when first asked for."""

    def __init__(self, pools: dict[str, tuple[str, ...]], own: dict[str, str], rng: random.Random) -> None:
        self._pools, self._own, self._rng = pools, own, rng
        self.values: dict[str, str] = {}

    def __getitem__(self, slot: str) -> str:
        if slot == "first":
            return self["name"].split(" ")[0]
        if slot not in self.values:
            self.values[slot] = self._fresh(slot)
        return self.values[slot]

    def _fresh(self, slot: str) -> str:
        """A drawn value; `order2` is an `order` that differs from the first one."""
        pool = self._own.get(slot, slot)
        second = SECOND.match(slot)
        if second and pool not in self._pools:
            pool = self._own.get(second.group(1), second.group(1))
        while (value := self._draw(pool)) in self.values.values():
            pass
        return value

    def _draw(self, pool: str) -> str:
        text = self._rng.choice(self._pools[pool])
        inner = {slot: self._part(slot) for slot in sorted(slots_of(text))}
        return "".join(self._character(mark) for mark in SLOT.sub(lambda found: inner[found[1]], text))

    def _part(self, slot: str) -> str:
        """A part of a value: two forms of the customer's own name, else a draw."""
        if slot in ("dotted", "short"):
            first, *_, last = self["name"].lower().split(" ")
            return f"{first if slot == 'dotted' else first[0]}.{last}"
        return self._rng.choice(self._pools[slot])

    def _character(self, mark: str) -> str:
        if mark == "#":
            return self._rng.choice(string.digits[1:])
        if mark == "~":
            return self._rng.choice(string.digits)
        return self._rng.choice(CAPITALS) if mark == "^" else mark


@dataclass
class Talk:
    """A conversation in the making."""

    material: Material
    scenario: Scenario
    slots: DrawnSlots
    rng: random.Random
    messages: list[dict[str, str]] = field(default_factory=list)
    known: set[str] = field(default_factory=set)

    @property
    def exchanges(self) -> int:
        return sum(message["role"] == "assistant" for message in self.messages)

    def line(self, name: str) -> str:
        return self.rng.choice(self.material.lines[name])

    def say(self, role: str, text: str) -> None:
        """Adds a message; a slot that only the customer or the system brings becomes known by it."""
        wording = choose_wording(text, self.rng)
        wanted = slots_of(wording)
        if role == "assistant":
            unknown = {FULL_NAME.get(slot, slot) for slot in wanted} - self.known
            if unknown:
                names = ", ".join(sorted(unknown))
                raise ValueError(
                    f"{self.scenario.name}: nobody said {names}, but it is in {text[:64]!r}: say it first"
                )
        self.known |= wanted
        content = fill(wording, {slot: self.slots[slot] for slot in sorted(wanted)}).strip()
        self.messages.append({"role": role, "content": content})

    def customer_said(self, slot: str) -> bool:
        said = "\n".join(message["content"] for message in self.messages if message["role"] == "user")
        return slot in self.known and self.slots[slot] in said

    def exchange(self, ask: str, answer: str) -> None:
        self.say("user", ask)
        self.say("assistant", answer)

    def can_answer(self, answer: str, also: set[str]) -> bool:
        wanted = {FULL_NAME.get(slot, slot) for slot in slots_of(answer)}
        return wanted <= self.known | also


def lower_start(text: str) -> str:
    """Lower-cases the first letter after a comma, except where it is the word I or a name."""
    keeps = re.match(r"I\b|[A-Z]{2}|\{|\[", text)
    return text if keeps else text[:1].lower() + text[1:]


def opening_text(talk: Talk, opening: str, needs: set[str]) -> str:
    """The opening with a greeting, the order number and a signature as chance wills."""
    text = choose_wording(opening, talk.rng)
    own = slots_of(text)
    greeted = talk.exchanges > 0 or talk.scenario.intent == "small_talk"
    if not greeted and talk.rng.random() < 0.35:
        hello = talk.line("hello")
        text = hello + (lower_start(text) if hello.endswith(", ") else text)
    elif talk.material.language == "en" and talk.rng.random() < 0.08:
        text = lower_start(text)
    if talk.material.language == "zh" and text[-1] not in CHINESE_STOPS:
        text += "，"
    if "order" in needs - talk.known - own:
        text += talk.line("order_note")
    if "name" not in own and ("name" in needs - talk.known or (not greeted and talk.rng.random() < 0.16)):
        text += talk.line("name_note")
    return text


def ask_for(talk: Talk, slot: str) -> None:
    """The desk asks for a missing detail and the customer gives it."""
    if slot == "order" and "name" not in talk.known and talk.rng.random() < 0.4:
        talk.say("assistant", talk.line("ask_order_name"))
        talk.say("user", talk.line("give_order_name"))
        return
    about_item = slot == "order" and "item" in talk.known and talk.rng.random() < 0.7
    talk.say("assistant", talk.line("ask_order_item" if about_item else f"ask_{slot}"))
    talk.say("user", talk.line(f"give_{slot}"))


def takes_up_name(talk: Talk, answer: str) -> str:
    """Puts the customer's name in front when the system message or the last one brought it."""
    told_by = [talk.messages[-1], *(message for message in talk.messages[:1] if message["role"] == "system")]
    said = "name" in talk.known and any(talk.slots["name"] in message["content"] for message in told_by)
    if not said or {"first", "name"} & slots_of(answer):
        return answer
    return ("{first}, t" + answer[1:]) if answer.startswith("Thank") else talk.line("thank_name") + answer


def follow_up(talk: Talk, acts: list[Act]) -> bool:
    """One further exchange from the acts that can be answered now; False when there is none."""
    talk.rng.shuffle(acts)
    for act in list(acts):
        ask = choose_wording(talk.rng.choice(act.ask), talk.rng)
        answers = [answer for answer in act.answer if talk.can_answer(answer, slots_of(ask))]
        acts.remove(act)
        if not answers or (act.corrects and not talk.customer_said(act.corrects)):
            continue
        told = slots_of(ask) - talk.known
        answers = [answer for answer in answers if told & slots_of(answer)] or answers
        talk.exchange(ask, talk.rng.choice(answers))
        if act.corrects:
            old = talk.slots.values.pop(act.corrects)
            talk.slots.values[act.corrects] = talk.slots.values.pop(f"{act.corrects}2")
            talk.slots.values[f"{act.corrects}_before"] = old
        return True
    return False


def close(talk: Talk) -> None:
    """The customer thanks, the desk takes leave with a detail of theirs."""
    wanted = ("name",) if talk.scenario.intent in NO_CASE_INTENTS else ("name", "order", "item")
    kinds = [kind for kind in wanted if kind in talk.known]
    weights = [{"name": 3, "order": 4, "item": 2}[kind] for kind in kinds]
    kind = talk.rng.choices(kinds, weights)[0] if kinds else "plain"
    talk.exchange(talk.line("thanks"), talk.line(f"thanks_{kind}"))


def begin(talk: Talk, needs: set[str]) -> None:
    """A system message in a quarter of the conversations."""
    kind = talk.rng.choices(("", "system", "system_facts", "system_order"), (75, 14, 6, 5))[0]
    if kind == "system_order" and "order" not in needs:
        kind = "system"
    if kind:
        talk.say("system", talk.line(kind))


def converse(talk: Talk, opening: str, answer: str, exchanges: int) -> None:
    """The whole conversation, at most `exchanges` pairs (one more where a detail must be asked for)."""
    needs = {FULL_NAME.get(slot, slot) for slot in slots_of(answer)}
    begin(talk, needs)
    if exchanges > 1 and talk.rng.random() < 0.1:
        talk.exchange(talk.line("greet"), talk.line("greet_answer"))
    missing = [slot for slot in ASKABLE if slot != "name" and slot in needs - talk.known - slots_of(opening)]
    room = exchanges - talk.exchanges > 1
    asked = room and bool(missing) and (missing != ["order"] or talk.rng.random() < 0.6)
    talk.say("user", opening_text(talk, opening, needs & {"name"} if asked else needs))
    for slot in missing:
        if slot not in talk.known:
            ask_for(talk, slot)
    talk.say("assistant", takes_up_name(talk, answer))
    _continue(talk, exchanges)


def _continue(talk: Talk, exchanges: int) -> None:
    no_case = talk.scenario.intent in NO_CASE_INTENTS
    own, shared = list(talk.scenario.more), [] if no_case else list(talk.material.acts)
    while (left := exchanges - talk.exchanges) > 0:
        if left == 1 and talk.rng.random() < 0.35:
            return close(talk)
        first, then = (own, shared) if talk.rng.random() < 0.75 else (shared, own)
        if not follow_up(talk, first) and not follow_up(talk, then):
            return close(talk)
