"""Examples that give a test question away are refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dialoop.data.leak import leaks
from dialoop.errors import EvalError
from dialoop.evals.task import Case, origin
from dialoop.types import Conversation


@dataclass(frozen=True, slots=True)
class Leaked:
    """Places of examples that repeat a test question, are nearly one, or share its group."""

    same: tuple[int, ...]
    near: tuple[int, ...]
    grouped: tuple[int, ...]

    @property
    def places(self) -> frozenset[int]:
        """All of them."""
        return frozenset((*self.same, *self.near, *self.grouped))

    @property
    def words(self) -> str:
        """How many of each, as a phrase."""
        return (
            f"{len(self.same)} examples ask what a test case asks, {len(self.near)} nearly so, and "
            f"{len(self.grouped)} are of a test case's group"
        )


def leaked(examples: Sequence[Conversation], cases: Sequence[Case]) -> Leaked:
    """Which examples say too much about the cases, by what they are asked."""
    if not examples or not cases:
        return Leaked((), (), ())
    asked = [replace(example.history, tools=()) for example in examples]
    # The examples are looked up among the test cases, so that each is told.
    found = leaks([case.history for case in cases], asked)
    groups = {case.group for case in cases if not case.group.startswith("conversation:")}
    told = {*found.exact, *found.near}
    grouped = [i for i, e in enumerate(examples) if i not in told and origin(e, i)[1] in groups]
    return Leaked(found.exact, found.near, tuple(grouped))


def apart(
    examples: Sequence[Conversation], cases: Sequence[Case], *, drop: bool = False
) -> tuple[tuple[Conversation, ...], Leaked]:
    """Examples that may be shown to these cases. drop: leave out what leaks; else EvalError."""
    found = leaked(examples, cases)
    if found.places and not drop:
        raise EvalError(
            f"{found.words}: a model would be shown what it is asked; choose other examples (`dialoop "
            f"prompts eval` and `optimise` leave these out with --drop-leaks)"
        )
    return tuple(each for i, each in enumerate(examples) if i not in found.places), found
