"""An engine around an engine: what is asked and what is answered passes through the filter."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, cast

from dialoop.errors import ContentFilterError, UnsupportedError
from dialoop.safety.calls import CallFilter, PassedCall
from dialoop.safety.categories import Action, Category
from dialoop.safety.filtering import AnswerFilter, Passed
from dialoop.safety.policy import Policy, masked
from dialoop.safety.scan import Find
from dialoop.types import (
    CallDelta,
    Chat,
    ChatRequest,
    Complete,
    CompleteRequest,
    Delta,
    FinishReason,
    Message,
    Tokenize,
    Tokenized,
    TokenLogprob,
)

log = logging.getLogger("dialoop.safety")
Deltas = AsyncGenerator[Delta, None]


@dataclass(frozen=True, slots=True)
class Decision:
    """What was done about a find. content: its words, where they are kept.

    place: such as `messages[2]`, `choices[0]` and `choices[0].tool_calls[1]`.
    """

    model: str
    side: Literal["input", "output"]
    place: str
    category: Category
    action: Action
    rule: str
    content: str | None = None


Record = Callable[[Sequence[Decision]], Awaitable[None]]


def read_by(message: Message) -> bool:
    """Whether the filter reads it: what comes from outside, and not what the operator or the model says."""
    return message.role in ("user", "tool")


class Moderated:
    """Chats through a policy.

    said: another one, for answers.  record: keeps the decisions for review, None = nobody does; a chat goes
    on where it fails.

    Raises ContentFilterError for a question that is to be blocked; an answer ends with `content_filter`.
    """

    def __init__(
        self, inner: Chat, policy: Policy, record: Record | None, *, said: Policy | None = None
    ) -> None:
        self._inner, self._policy, self._record = inner, policy, record
        self._spoken = said or policy

    async def chat(self, request: ChatRequest) -> Deltas:
        """The answer, with nothing in it that the policy blocks or masks."""
        places = [
            (f"messages[{number}]", message.content)
            for number, message in enumerate(request.conversation.messages)
            if read_by(message)
        ]
        seen = iter(await self._read(request.model, places))
        messages = tuple(
            replace(message, content=next(seen)) if read_by(message) else message
            for message in request.conversation.messages
        )
        asked = replace(request, conversation=replace(request.conversation, messages=messages))
        async with aclosing(self._said(asked, self._inner.chat(asked))) as deltas:
            async for delta in deltas:
                yield delta

    async def complete(self, request: CompleteRequest) -> Deltas:
        """The same for a text that goes on, where the engine can."""
        if not isinstance(self._inner, Complete):
            raise UnsupportedError("this engine goes on with no text: ask it to chat")
        text = request.prompt
        if not isinstance(text, str):
            text = await self.detokenize(request.model, text)
        (seen,) = await self._read(request.model, [("prompt", text)])
        asked = request if seen == text else replace(request, prompt=seen)
        async with aclosing(self._said(asked, self._inner.complete(asked))) as deltas:
            async for delta in deltas:
                yield delta

    async def tokenize(self, model: str, text: str | ChatRequest) -> Tokenized:
        """As the engine does."""
        return await self._tokens().tokenize(model, text)

    async def detokenize(self, model: str, ids: Sequence[int]) -> str:
        """As the engine does."""
        return await self._tokens().detokenize(model, ids)

    def _tokens(self) -> Tokenize:
        if not isinstance(self._inner, Tokenize):
            raise UnsupportedError("this engine does not tell its tokens: send text")
        return self._inner

    async def _read(self, model: str, texts: Sequence[tuple[str, str]]) -> list[str]:
        """Places and texts, as the model may see them. Raises ContentFilterError."""
        found = [each.finds for each in await self._policy.judge([text for _, text in texts])]
        told = [
            (place, text, find) for (place, text), finds in zip(texts, found, strict=True) for find in finds
        ]
        await self._keep(
            [self._decide(model, "input", at, find, text[find.start : find.end]) for at, text, find in told]
        )
        if blocks := [(place, find.category) for place, _, find in told if find.action == "block"]:
            raise ContentFilterError(sorted({category for _, category in blocks}), param=blocks[0][0])
        return [masked(text, finds) for (_, text), finds in zip(texts, found, strict=True)]

    async def _said(self, request: ChatRequest | CompleteRequest, inner: AsyncIterator[Delta]) -> Deltas:
        if request.sampling.token_ids and not self._spoken.idle:
            raise UnsupportedError(
                "token ids would tell what this server's filter hides: leave them out",
                param="return_token_ids",
            )
        answers = [_Answer(self._spoken) for _ in range(request.sampling.n)]
        async with aclosing(cast(Deltas, inner)) as deltas:
            async for delta in deltas:
                if self._spoken.idle:
                    yield delta
                    continue
                said, passed = await answers[delta.index].take(delta)
                await self._keep([self._decide_output(request.model, delta.index, *each) for each in passed])
                for each in said:
                    yield each

    def _decide_output(self, model: str, index: int, where: str, find: Find, words: str) -> Decision:
        return self._decide(model, "output", f"choices[{index}]{where}", find, words)

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


Found = tuple[str, Find, str]
"""Where within its answer, what, and the words that it is about."""


class _Answer:
    """One answer, and what is thought before it. After a cut it is heard out in silence, for its usage."""

    def __init__(self, policy: Policy) -> None:
        self._text, self._thought = AnswerFilter(policy), AnswerFilter(policy)
        self._calls = CallFilter(policy)
        self._cut = False

    async def take(self, delta: Delta) -> tuple[list[Delta], list[Found]]:
        """A delta as it may be said, and what was decided."""
        found: list[Found] = []
        ends = delta.finish_reason is not None
        of_call = bool(delta.calls) or (self._calls.holds and not delta.text)
        thought, _ = await self._pass(self._thought, delta.reasoning, (), ends or bool(delta.text), found)
        before, told_before = self._call(await self._calls.end() if delta.text else [], found)
        text, told = await self._pass(self._text, delta.text, () if of_call else delta.logprobs, ends, found)
        passed = await self._calls.push(delta.calls, delta.logprobs if of_call else ())
        calls, told_calls = self._call([*passed, *(await self._calls.end() if ends else [])], found)
        rest = Delta(delta.index, usage=delta.usage) if self._cut else delta
        reason: FinishReason | None = "content_filter" if ends and self._cut else delta.finish_reason
        whole = replace(
            rest, text=text, logprobs=told_before + told + told_calls, reasoning=thought,
            calls=before + calls, finish_reason=reason,
        )  # fmt: skip
        return ([] if whole == Delta(delta.index) else [whole]), found

    def _call(
        self, passed: Sequence[PassedCall], found: list[Found]
    ) -> tuple[tuple[CallDelta, ...], tuple[TokenLogprob, ...]]:
        calls, told = tuple[CallDelta, ...](), tuple[TokenLogprob, ...]()
        for each in passed:
            if not self._cut:
                found += [(f".tool_calls[{each.index}]", *words) for words in each.found]
                calls, told, self._cut = calls + each.pieces, told + each.logprobs, each.blocked
        return calls, told

    async def _pass(
        self,
        through: AnswerFilter,
        text: str,
        logprobs: Sequence[TokenLogprob],
        ends: bool,
        found: list[Found],
    ) -> tuple[str, tuple[TokenLogprob, ...]]:
        said, told = "", tuple[TokenLogprob, ...]()
        steps: list[Callable[[], Awaitable[Passed]]] = [partial(through.push, text, logprobs)]
        for step in [*steps, through.end] if ends else steps:
            if not self._cut:
                passed = await step()
                found += [("", each, through.excerpt(each)) for each in passed.finds]
                said, told, self._cut = said + passed.text, told + passed.logprobs, passed.blocked
        return said, told
