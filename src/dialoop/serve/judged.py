"""A chat whose request has `moderation`: what is asked and said is scored, and blocked where it says so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, cast

from dialoop.errors import UnknownModelError
from dialoop.safety.calls import texts_of
from dialoop.safety.moderated import Moderated, Record, read_by
from dialoop.safety.policy import Policy
from dialoop.serve.fields import ModerationModes, ModerationWish
from dialoop.serve.moderation import ALIASES, answering, results_of
from dialoop.types import Chat, ChatRequest, Delta, calls_of

Deltas = AsyncGenerator[Delta, None]


class Judged:
    """One chat, by the rules of `policy`; `told` once it has ended.

    What counts is what `engine` was asked and said: a text that is blocked here is scored all the same.
    Raises UnknownModelError for a moderation model that is none.
    """

    def __init__(self, engine: Chat, policy: Policy, wish: ModerationWish, record: Record | None) -> None:
        if wish.model not in ALIASES:
            raise UnknownModelError(wish.model, ALIASES, param="moderation.model")
        modes = wish.policy or ModerationModes()
        asked, said = (
            policy.blocking if each is not None and each.mode == "block" else NOTHING
            for each in (modes.input, modes.output)
        )
        self._engine, self._policy = engine, policy
        self._around = Moderated(_Heard(self), asked, record, said=said)
        self._asked: list[str] = []
        self._said: dict[int, list[Delta]] = defaultdict(list)

    def chat(self, request: ChatRequest) -> Deltas:
        """As the engine's, but for what is blocked. Raises ContentFilterError."""
        messages = request.conversation.messages
        self._asked = [message.content for message in messages if read_by(message)]
        return self._around.chat(request)

    async def hear(self, request: ChatRequest) -> Deltas:
        """What the engine says, before anything is blocked."""
        async with aclosing(cast(Deltas, self._engine.chat(request))) as deltas:
            async for delta in deltas:
                self._said[delta.index].append(delta)
                yield delta

    async def told(self) -> dict[str, Any]:
        """OpenAI's object: a result for all that was asked, and one for each answer."""
        answers = [_texts(self._said[index]) for index in sorted(self._said)]
        return {"input": await self._judge([self._asked]), "output": await self._judge(answers)}

    async def told_alone(self) -> dict[str, Any]:
        """The same of a single answer, as a response has it."""
        return {side: each["results"][0] for side, each in (await self.told()).items()}

    async def _judge(self, texts: Sequence[Sequence[str]]) -> dict[str, Any]:
        model = answering(self._policy)
        kind = {"type": "moderation_result", "model": model}
        results = [{**kind, **each} for each in await results_of(self._policy, texts)]
        return {"type": "moderation_results", "model": model, "results": results}


Judge = Callable[[ModerationWish], Judged]
NOTHING = Policy(())
"""Finds nothing."""


class _Heard:
    def __init__(self, judged: Judged) -> None:
        self.chat = judged.hear


def _texts(deltas: Sequence[Delta]) -> list[str]:
    """What an answer thinks, says and calls with."""
    thought = "".join(delta.reasoning for delta in deltas)
    text = "".join(delta.text for delta in deltas)
    return [thought, text, *(each for call in calls_of(deltas) for each in texts_of(call))]
