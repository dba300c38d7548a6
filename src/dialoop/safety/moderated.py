"""An engine around an engine: what is asked and what is answered passes through the filter."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, cast

from dialoop.errors import ContentFilterError
from dialoop.safety.categories import Action, Category
from dialoop.safety.filtering import AnswerFilter
from dialoop.safety.policy import Policy, masked
from dialoop.safety.scan import Find
from dialoop.types import Chat, ChatRequest, Delta, FinishReason, Message, TokenLogprob

log = logging.getLogger("dialoop.safety")
Deltas = AsyncGenerator[Delta, None]


@dataclass(frozen=True, slots=True)
class Decision:
    """What was done about a find. place: such as `choices[0]`.  content: its words, where they are kept."""

    model: str
    side: Literal["input", "output"]
    place: str
    category: Category
    action: Action
    rule: str
    content: str | None = None


Record = Callable[[Sequence[Decision]], Awaitable[None]]


class Moderated:
    """Chats through a policy.

    record: keeps the decisions for review, None = nobody does; a chat goes on where it fails.

    Raises ContentFilterError for a question that is to be blocked; an answer ends with `content_filter`.
    """

    def __init__(self, inner: Chat, policy: Policy, record: Record | None) -> None:
        self._inner, self._policy, self._record = inner, policy, record

    async def chat(self, request: ChatRequest) -> Deltas:
        """The answer, with nothing in it that the policy blocks or masks."""
        messages, decisions = await asyncio.to_thread(self._read, request)
        await self._keep(decisions)
        if blocked := sorted({each.category for each in decisions if each.action == "block"}):
            place = next(each.place for each in decisions if each.action == "block")
            raise ContentFilterError(blocked, param=place)
        asked = replace(request, conversation=replace(request.conversation, messages=messages))
        async with aclosing(cast(Deltas, self._inner.chat(asked))) as deltas:
            answers = [_Answer(self._policy) for _ in range(request.sampling.n)]
            async for delta in deltas:
                said, passed = answers[delta.index].take(delta)
                await self._keep([self._decide_output(request.model, delta.index, *each) for each in passed])
                for each in said:
                    yield each

    def _read(self, request: ChatRequest) -> tuple[tuple[Message, ...], list[Decision]]:
        """The messages as the model may see them, and what was decided about those of users and tools."""
        messages, decisions = list(request.conversation.messages), list[Decision]()
        for number, message in enumerate(messages):
            if message.role in ("user", "tool"):
                finds = self._policy.find(message.content)
                messages[number] = replace(message, content=masked(message.content, finds))
                place = f"messages[{number}]"
                decisions += [
                    self._decide(request.model, "input", place, find, message.content[find.start : find.end])
                    for find in finds
                ]
        return tuple(messages), decisions

    def _decide_output(self, model: str, index: int, find: Find, words: str) -> Decision:
        return self._decide(model, "output", f"choices[{index}]", find, words)

    def _decide(
        self, model: str, side: Literal["input", "output"], place: str, find: Find, words: str
    ) -> Decision:
        content = words if self._policy.keep_content else None
        return Decision(model, side, place, find.category, find.action, find.entry, content)

    async def _keep(self, decisions: Sequence[Decision]) -> None:
        if not decisions or self._record is None:
            return
        try:
            await self._record(decisions)
        except Exception as error:
            log.error("%d moderation decisions were not recorded: %s", len(decisions), type(error).__name__)


class _Answer:
    """One answer, and what is thought before it. After a cut it is heard out in silence, for its usage."""

    def __init__(self, policy: Policy) -> None:
        self._text, self._thought = AnswerFilter(policy), AnswerFilter(policy)
        self._cut = False

    def take(self, delta: Delta) -> tuple[list[Delta], list[tuple[Find, str]]]:
        """A delta as it may be said, and what was decided, with the words that it is about."""
        found: list[tuple[Find, str]] = []
        ends = delta.finish_reason is not None
        thought, _ = self._pass(self._thought, delta.reasoning, (), ends or bool(delta.text), found)
        text, told = self._pass(self._text, delta.text, delta.logprobs, ends, found)
        rest = Delta(delta.index, usage=delta.usage) if self._cut else delta
        reason: FinishReason | None = "content_filter" if ends and self._cut else delta.finish_reason
        whole = replace(rest, text=text, logprobs=told, reasoning=thought, finish_reason=reason)
        return ([] if whole == Delta(delta.index) else [whole]), found

    def _pass(
        self,
        through: AnswerFilter,
        text: str,
        logprobs: Sequence[TokenLogprob],
        ends: bool,
        found: list[tuple[Find, str]],
    ) -> tuple[str, tuple[TokenLogprob, ...]]:
        said, told = "", tuple[TokenLogprob, ...]()
        for step in [partial(through.push, text, logprobs), *([through.end] if ends else [])]:
            if not self._cut:
                passed = step()
                found += [(each, through.excerpt(each)) for each in passed.finds]
                said, told, self._cut = said + passed.text, told + passed.logprobs, passed.blocked
        return said, told
