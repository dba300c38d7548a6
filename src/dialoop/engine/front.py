"""The half of an engine that needs no torch: it names, renders, checks and bounds; a core computes."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from dialoop.chat.render import Rendered, render, render_prompt
from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.engine.wire import Answering, Core, Event, Said, Scoring, Work
from dialoop.errors import ContextLengthError, OverloadedError, RequestError, UnknownModelError
from dialoop.types import ChatRequest, Conversation, Delta, Message, Sampling, Scored, Served

Queue = asyncio.Queue[Event]


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What the front has of a model."""

    served: Served
    tokenizer: ChatTokenizer


class Mail:
    """Brings the events of a core to those who wait for them in event loops."""

    def __init__(self) -> None:
        self._boxes: dict[int, tuple[asyncio.AbstractEventLoop, Queue]] = {}
        self._numbers = count()

    @contextmanager
    def box(self) -> Iterator[tuple[int, Queue]]:
        """A number for work, and where its events arrive while the context lasts."""
        number, events = next(self._numbers), Queue()
        self._boxes[number] = asyncio.get_running_loop(), events
        try:
            yield number, events
        finally:
            del self._boxes[number]

    def deliver(self, said: Said) -> None:
        """From any thread; each loop is woken once. A loop that has ended wants nothing more."""
        found: dict[asyncio.AbstractEventLoop, list[tuple[Queue, Event]]] = defaultdict(list)
        for number, event in said:
            if box := self._boxes.get(number):
                found[box[0]].append((box[1], event))
        for loop, events in found.items():
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_put, events)


class Front:
    """An engine over a core; implements `dialoop.types.Engine` and `Score`.

    max_open: requests running and waiting; one more is refused before its messages are rendered.
    mail: where the core delivers.
    """

    def __init__(self, models: Mapping[str, Known], core: Core, mail: Mail, *, max_open: int) -> None:
        self._known = dict(models)
        self._core = core
        self._mail = mail
        self._max_open = max_open
        self._open = 0

    def models(self) -> tuple[Served, ...]:
        """The models, by name."""
        return tuple(self._known[name].served for name in sorted(self._known))

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """The answers' deltas; closing the generator frees its rows at once.

        Raises UnknownModelError, OverloadedError, RenderError, ContextLengthError, EngineDownError or
        RequestError before the first delta.
        """
        model = self._model(request.model)
        if self._open >= self._max_open:
            raise OverloadedError(f"{self._open} requests are open and {self._max_open} may be: try again")
        self._open += 1
        try:
            with self._asked(await asyncio.to_thread(_answering, request, model)) as events:
                usage = None
                while usage is None:
                    for delta in await _next(events):
                        usage = delta.usage
                        yield delta
        finally:
            self._open -= 1

    async def score(self, model: str, history: Conversation, answers: Sequence[str]) -> tuple[Scored, ...]:
        """log P(answer | history) of each answer. Raises as `chat` does."""
        known = self._model(model)
        if not answers:
            return ()
        rows = await asyncio.to_thread(_scored_rows, history, answers, known)
        with self._asked(Scoring(model, rows)) as events:
            scored: tuple[Scored, ...] = await _next(events)
            return scored

    async def aclose(self) -> None:
        """End the core; open requests get an error."""
        await asyncio.to_thread(self._core.close)

    def _model(self, name: str) -> Known:
        if name not in self._known:
            raise UnknownModelError(name, self._known)
        return self._known[name]

    @contextmanager
    def _asked(self, work: Work) -> Iterator[Queue]:
        """The events of `work`, which is cancelled with the context."""
        with self._mail.box() as (number, events):
            self._core.submit(number, work)
            try:
                yield events
            finally:
                self._core.cancel(number)


def _put(events: Sequence[tuple[Queue, Event]]) -> None:
    for queue, event in events:
        queue.put_nowait(event)


async def _next(events: Queue) -> Any:
    event = await events.get()
    if isinstance(event, Exception):
        raise event
    return event


def _answering(request: ChatRequest, model: Known) -> Answering:
    prompt = render_prompt(request.conversation, model.tokenizer)
    _check_length(prompt, model.served.context)
    _check_ids(request.sampling, model.tokenizer.vocab_size)
    return Answering(request.model, prompt, request.sampling)


def _scored_rows(history: Conversation, answers: Sequence[str], model: Known) -> tuple[Rendered, ...]:
    rows = []
    for answer in answers:
        messages = (*history.messages, Message("assistant", answer))
        rows.append(render(replace(history, messages=messages), model.tokenizer, mask="last"))
        _check_length(rows[-1].token_ids, model.served.context)
    return tuple(rows)


def _check_length(ids: Sequence[int], context: int) -> None:
    if len(ids) > context:
        raise ContextLengthError(len(ids), context)


def _check_ids(sampling: Sampling, vocabulary: int) -> None:
    """Raises RequestError where a request names a token that the model does not have."""
    named = {"logit_bias": [i for i, _ in sampling.logit_bias], "stop_token_ids": sampling.stop_token_ids}
    for field, ids in named.items():
        for token in ids:
            if not 0 <= token < vocabulary:
                raise RequestError(
                    f"{field}: token {token} does not exist: the model's tokens are 0 to {vocabulary - 1}",
                    param=field,
                )
