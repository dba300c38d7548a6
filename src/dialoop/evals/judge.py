"""A model as judge: which of two answers is better, asked in both orders, and how good one is by a rubric.

Position decides much with weak judges (Zheng et al. 2023, arXiv:2306.05685): a preference that does not
survive the swap counts as a tie, and how many do not is part of the result.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from dialoop.errors import EvalError, echo
from dialoop.evals.judge_prompts import pair_question, rubric_question
from dialoop.evals.messages import ReportLanguage, say
from dialoop.evals.shares import Flips, Share, mcnemar, wilson
from dialoop.evals.task import Case
from dialoop.types import Chat, ChatRequest, Conversation, Grammar, Sampling, fold

T = TypeVar("T")
Winner = Literal["before", "after", "tie"]
CONSISTENT = 0.7
"""A judge that keeps fewer of its preferences when the answers change places is too weak."""
AT_ONCE = 8
MOST_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Preferred:
    """The answer that won in both orders; consistent: whether both orders agree."""

    winner: Winner
    consistent: bool


@dataclass(frozen=True, slots=True)
class Pairwise:
    """What a judge preferred, case by case."""

    judge: str
    cases: tuple[Preferred, ...]

    @property
    def wins(self) -> Share:
        """Of `after`, among the cases that one answer won."""
        won = [each.winner for each in self.cases if each.winner != "tie"]
        if not won:
            raise EvalError("the judge preferred no answer: ask it about more cases, or ask another judge")
        return wilson(won.count("after"), len(won))

    @property
    def flips(self) -> Flips:
        """Won by `after`, won by `before`, and the p of a sign test."""
        winners = [each.winner for each in self.cases]
        return mcnemar([w == "before" for w in winners], [w == "after" for w in winners])

    @property
    def consistency(self) -> Share:
        """Of judgements that the swap did not change."""
        return wilson(sum(each.consistent for each in self.cases), len(self.cases))

    def words(self, language: ReportLanguage = "en") -> str:
        """Wins, losses and ties, and a warning where the judge is too weak."""
        flips, steady = self.flips, self.consistency
        ties = len(self.cases) - flips.gained - flips.lost
        told = say(
            "judged",
            language,
            judge=self.judge,
            wins=flips.gained,
            losses=flips.lost,
            ties=ties,
            p=f"{flips.p:.3f}",
        )
        if steady.value >= CONSISTENT:
            return told
        space = " " if language == "en" else ""
        return told + space + say("judge_swayed", language, share=f"{100 * (1 - steady.value):.0f}")


@dataclass(frozen=True, slots=True)
class Rubric:
    """What is judged, and the whole grades from `lowest` to `highest`, best last."""

    text: str
    lowest: int = 1
    highest: int = 5


async def prefer(
    engine: Chat, model: str, cases: Sequence[Case], before: Sequence[str], after: Sequence[str]
) -> Pairwise:
    """Ask the judge about every case twice. Raises EvalError where it does not keep to the form."""

    async def one(case: Case, first: str, second: str) -> str:
        winner = {"type": "string", "enum": ["A", "B", "tie"]}
        found = await _asked(engine, model, pair_question(case, first, second), "winner", winner)
        return str(found)

    async def both(case: Case, old: str, new: str) -> Preferred:
        if old == new:
            return Preferred("tie", True)
        straight, swapped = await one(case, old, new), await one(case, new, old)
        names: dict[str, Winner] = {"A": "before", "B": "after", "tie": "tie"}
        turned: dict[str, Winner] = {"A": "after", "B": "before", "tie": "tie"}
        same = names[straight] == turned[swapped]
        return Preferred(names[straight] if same else "tie", same)

    triples = zip(cases, before, after, strict=True)
    return Pairwise(model, await _side_by_side([both(*triple) for triple in triples]))


async def grade(
    engine: Chat, model: str, rubric: Rubric, cases: Sequence[Case], answers: Sequence[str]
) -> tuple[int, ...]:
    """A grade for every answer. Raises EvalError where the judge does not keep to the form."""
    allowed = {"type": "integer", "enum": list(range(rubric.lowest, rubric.highest + 1))}

    async def one(case: Case, answer: str) -> int:
        bounds = (rubric.lowest, rubric.highest)
        asked = rubric_question(case, answer, rubric.text, bounds)
        return int(await _asked(engine, model, asked, "score", allowed))

    return await _side_by_side([one(*pair) for pair in zip(cases, answers, strict=True)])


async def _side_by_side(tasks: Sequence[Coroutine[Any, Any, T]]) -> tuple[T, ...]:
    """A few at once, in order."""
    places = asyncio.Semaphore(AT_ONCE)

    async def placed(task: Coroutine[Any, Any, T]) -> T:
        async with places:
            return await task

    return tuple(await asyncio.gather(*map(placed, tasks)))


async def _asked(
    engine: Chat, model: str, question: Conversation, field: str, allowed: dict[str, Any]
) -> str | int:
    """The field of the JSON that the judge answers with."""
    schema = {
        "type": "object", "additionalProperties": False, "required": [field], "properties": {field: allowed},
    }  # fmt: skip
    sampling = Sampling(
        temperature=0.0, max_tokens=MOST_TOKENS, grammar=Grammar("json_schema", json.dumps(schema))
    )
    (answer,) = await fold(engine.chat(ChatRequest(model, question, sampling)))
    try:
        found = json.loads(answer.text)[field]
    except (ValueError, KeyError, TypeError):
        found = None
    if found not in allowed["enum"]:
        raise EvalError(
            f"the judge {model} answered {echo(answer.text)}, not JSON with {field!r} of "
            f"{allowed['enum']}: ask a model that can keep to a schema"
        )
    return found  # type: ignore[no-any-return]
