"""Evaluation cases out of conversations, and what a model made of them."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from dialoop.data.language import detect
from dialoop.errors import EvalError
from dialoop.evals.metrics import Reads
from dialoop.types import Conversation, Message

GROUP_BY = ("scenario", "template", "customer")
Turns = Literal["last", "all"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Case:
    """A history to answer and the answer that a person gave.

    group: names the scenario; cases of one group depend on each other.
    index: which assistant turn of its conversation this is, from 0.
    options: answers to choose from, where there are; grades: how right each of them is, 0 = not at all.
    """

    history: Conversation
    reference: str
    language: str
    group: str
    id: str
    index: int
    options: tuple[str, ...] = ()
    grades: tuple[float, ...] = ()

    @property
    def intent(self) -> str | None:
        """The conversation's intent label, where it has one."""
        label = self.history.metadata.get("intent")
        return None if label is None else str(label)

    @property
    def answered(self) -> Conversation:
        """The history with the reference as its answer: what a likelihood is computed on."""
        message = Message("assistant", self.reference)
        return replace(self.history, messages=(*self.history.messages, message))


@dataclass(frozen=True, slots=True)
class Outcome:
    """A model's answer to a case (None: not asked for), and the reference's likelihood under it.

    log_likelihood: sum of natural logarithms over `tokens` tokens; None where it was not computed.
    scores: how good the model finds each of the case's options, as a natural logarithm where it is a
    probability; None where there are none.
    shortened: whether the history was too long for the model and lost its oldest exchanges.
    """

    case: Case
    answer: str | None = None
    log_likelihood: float | None = None
    tokens: int = 0
    scores: tuple[float, ...] | None = None
    shortened: bool = False

    def has(self, what: Reads) -> bool:
        """Whether there is what a metric reads."""
        found = {"text": self.answer, "likelihood": self.log_likelihood, "scores": self.scores}
        return found[what] is not None


Generate = Callable[[Sequence[Conversation]], Sequence[str]]
Score = Callable[[Sequence[Conversation]], Sequence[tuple[float, int]]]


def cases(
    conversations: Iterable[Conversation],
    *,
    max_cases: int | None = None,
    seed: int = 0,
    turns: Turns = "all",
    group_by: Sequence[str] = GROUP_BY,
) -> tuple[Case, ...]:
    """The assistant turns to answer, in order; at most `max_cases`, evenly over languages and then groups.

    Turns without text or without a user turn before them cannot be asked; `unasked` counts them.
    Raises EvalError where none is left.
    """
    found = [case for i, c in enumerate(conversations) for case in _of_one(c, i, turns, group_by)]
    if not found:
        raise EvalError(
            "no assistant turn to answer came: give conversations with a user turn and a reply to it"
        )
    if max_cases is None or len(found) <= max_cases:
        return tuple(found)
    kept = set(_evenly(found, max_cases, seed))
    return tuple(case for position, case in enumerate(found) if position in kept)


def unasked(conversations: Iterable[Conversation], *, turns: Turns = "all") -> int:
    """How many assistant turns `cases` leaves out because they have no text or no user turn before them.

    With turns = "last", conversations without an assistant turn count as one each.
    """
    left = 0
    for conversation in conversations:
        replies = sum(m.role == "assistant" for m in conversation.messages)
        wanted = replies if turns == "all" else 1
        left += wanted - len(_of_one(conversation, 0, turns, ()))
    return left


def _of_one(conversation: Conversation, position: int, turns: Turns, group_by: Sequence[str]) -> list[Case]:
    """The cases of one conversation, the `position`-th of the set."""
    identity = str(conversation.metadata.get("id", position))
    language, group = origin(conversation, position, group_by)
    replies = [i for i, m in enumerate(conversation.messages) if m.role == "assistant"]
    return [
        Case(
            replace(conversation, messages=conversation.messages[:at]),
            conversation.messages[at].content,
            language,
            group,
            f"{identity}/{index}",
            index,
        )
        for index, at in enumerate(replies)
        if (turns == "all" or at == replies[-1]) and _askable(conversation.messages, at)
    ]


def origin(conversation: Conversation, position: int, group_by: Sequence[str] = GROUP_BY) -> tuple[str, str]:
    """Language and group of the `position`-th conversation of a set."""
    metadata = conversation.metadata
    named = next((f"{key}:{metadata[key]}" for key in group_by if metadata.get(key) is not None), None)
    said = " ".join(m.content for m in conversation.messages if m.role == "assistant")
    return str(metadata.get("language") or detect(said)), named or f"conversation:{position}"


def _askable(messages: Sequence[Message], at: int) -> bool:
    return bool(messages[at].content.strip()) and any(m.role == "user" for m in messages[:at])


def _evenly(found: Sequence[Case], wanted: int, seed: int) -> list[int]:
    """Positions of `wanted` cases: languages take turns, and within a language its shuffled groups do."""
    generator = random.Random(seed)
    queues: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for position, case in enumerate(found):
        queues[case.language][case.group].append(position)
    orders = [_in_turns(list(queues[language].values()), generator) for language in sorted(queues)]
    return _round_robin(orders)[:wanted]


def _in_turns(groups: list[list[int]], generator: random.Random) -> list[int]:
    for group in groups:
        generator.shuffle(group)
    generator.shuffle(groups)
    return _round_robin(groups)


def _round_robin(queues: Sequence[Sequence[int]]) -> list[int]:
    """The first of each queue, then the second of each, and so on."""
    longest = max(map(len, queues))
    return [queue[i] for i in range(longest) for queue in queues if i < len(queue)]


def run(
    asked: Sequence[Case],
    generate: Generate | None = None,
    score: Score | None = None,
    *,
    scored: Sequence[Case] | None = None,
) -> tuple[Outcome, ...]:
    """Answer `asked` and score `scored` (default: `asked`); one outcome a case, asked ones first.

    generate: histories -> answers.  score: histories with the reference as last turn -> (sum of
    log-likelihoods, tokens). Each is called once. Raises EvalError where either returns another number.
    """
    answers = _called("generate", generate, [case.history for case in asked]) if generate else []
    judged = (asked if scored is None else scored) if score else ()
    likelihoods = _called("score", score, [case.answered for case in judged]) if score else []
    said = dict(zip((case.id for case in asked), answers, strict=False))
    known = dict(zip((case.id for case in judged), likelihoods, strict=True))
    unique = {case.id: case for case in (*asked, *judged)}
    return tuple(Outcome(case, said.get(key), *known.get(key, (None, 0))) for key, case in unique.items())


def _called(
    name: str, function: Callable[[Sequence[Conversation]], Sequence[T]], given: list[Conversation]
) -> Sequence[T]:
    got = function(given)
    if len(got) != len(given):
        raise EvalError(
            f"{name} gave {len(got)} results for {len(given)} histories: return one for each, in order"
        )
    return got
