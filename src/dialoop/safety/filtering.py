"""One answer on its way out: masked, or ended where something is to be blocked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dialoop.safety.policy import MASK, Policy
from dialoop.safety.scan import Find
from dialoop.types import TokenLogprob


@dataclass(frozen=True, slots=True)
class Passed:
    """What may be said now. finds: what was decided on the way.  blocked: nothing more may be said."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    finds: tuple[Find, ...] = ()
    blocked: bool = False


class AnswerFilter:
    """Lets an answer through as it comes; the text that comes out is that of the whole answer, filtered."""

    def __init__(self, policy: Policy) -> None:
        self._watch = policy.watch()
        self._text = ""
        self._said = 0
        """Characters of the answer that were said, or left out; `_text` holds those after."""
        self._finds: list[Find] = []
        self._told: list[tuple[int, int, TokenLogprob]] = []
        self._masks: list[tuple[int, int]] = []
        self._hidden = 0
        """Before this character a mask covers whatever was not said yet."""

    async def push(self, text: str, logprobs: Sequence[TokenLogprob] = ()) -> Passed:
        """What is certain once `text` has come. Raises as the policy's classifier, as `end` does."""
        self._text += text
        start, finds = self._watch.seen, await self._watch.push(text)
        self._told += [(start, self._watch.seen, each) for each in logprobs]
        return self._pass(finds, self._watch.sure)

    async def end(self) -> Passed:
        """All the rest."""
        return self._pass(await self._watch.push("", last=True), self._watch.seen)

    def excerpt(self, find: Find) -> str:
        """The words that a find of the last step is about, for as long as they are not let go of."""
        return self._kept[max(find.start - self._kept_from, 0) : find.end - self._kept_from]

    def _pass(self, finds: Sequence[Find], sure: int) -> Passed:
        self._kept, self._kept_from = self._text, self._said
        self._finds += finds
        self._masks += [(find.start, find.end) for find in finds if find.action == "mask"]
        blocks = [find.start for find in self._finds if find.action == "block"]
        cut = min(blocks, default=None)
        blocked = cut is not None and cut <= sure
        until = cut if blocked and cut is not None else sure
        if not blocked:
            # A mask is said whole, so that it does not depend on how the answer was cut.
            crossing = [f.start for f in self._finds if f.action == "mask" and f.start < until < f.end]
            until = min(crossing, default=until)
        text = self._say(until)
        decided = tuple(
            find for find in self._finds if find.start < until or (blocked and find.start == until)
        )
        self._finds = [find for find in self._finds if find not in decided]
        return Passed(text, self._tell(until), decided, blocked)

    def _say(self, until: int) -> str:
        parts: list[str] = []
        masks = sorted((f.start, f.end) for f in self._finds if f.action == "mask" and f.start < until)
        place = self._said
        for start, end in masks:
            if start >= self._hidden:
                parts += [self._slice(place, start), MASK]
            self._hidden = max(self._hidden, end)
            place = max(place, min(self._hidden, until))
        parts.append(self._slice(place, until))
        self._text, self._said = self._text[until - self._said :], until
        return "".join(parts)

    def _slice(self, start: int, end: int) -> str:
        return self._text[max(start - self._said, 0) : max(end - self._said, 0)]

    def _tell(self, until: int) -> tuple[TokenLogprob, ...]:
        """Log-probabilities of tokens that were said whole; the others would give away what was hidden."""
        mine = [
            token
            for start, end, token in self._told
            if end <= until and not any(start < b and a < end for a, b in self._masks)
        ]
        self._told = [each for each in self._told if each[1] > until]
        return tuple(mine)
