"""The half of an engine that needs no torch: it names, renders, checks and bounds; a core computes."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from dialoop.chat.render import Rendered, render, render_prompt
from dialoop.engine.detokenize import Vocabulary, bytes_of
from dialoop.engine.reader import Reader, Text
from dialoop.engine.roster import AnyKnown, Known, KnownEncoder, Roster
from dialoop.engine.wire import (
    Answering,
    Core,
    Embedding,
    Event,
    Loading,
    Opened,
    PromptRead,
    Said,
    Scoring,
    Unloading,
    Work,
)
from dialoop.errors import ContextLengthError, OverloadedError, RequestError, UnsupportedError, echo
from dialoop.types import (
    ChatRequest,
    Conversation,
    Delta,
    Embedded,
    Message,
    ModelRef,
    RankedLogprob,
    Sampling,
    Scored,
    Served,
)

Queue = asyncio.Queue[Event]
Places = tuple[tuple[RankedLogprob, ...], ...]


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
    """An engine over a core; implements `dialoop.types.Engine`, `Score`, `Embed` and `Load`.

    max_open: requests running and waiting; one more is refused before its messages are rendered.
    mail: where the core delivers.
    """

    def __init__(self, models: Mapping[str, AnyKnown], core: Core, mail: Mail, *, max_open: int) -> None:
        self._roster = Roster(models)
        self._readers: dict[Path, Reader] = {}
        self._core = core
        self._mail = mail
        self._max_open = max_open
        self._open = 0

    def models(self) -> tuple[Served, ...]:
        """The models, by name."""
        return self._roster.served()

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """The answers' deltas; closing the generator frees its rows at once.

        Raises UnknownModelError, OverloadedError, RenderError, ContextLengthError, EngineDownError or
        RequestError before the first delta.
        """
        model, sampling = self._roster.decoder(request.model), request.sampling
        with self._place():
            prompt = await asyncio.to_thread(_prompt, request, model)
            # Nothing waits from here to the submission: one version of an adapter answers the request.
            now = self._roster.now(request.model, model)
            with self._asked(Answering(now.model, prompt, sampling, now.adapter)) as events:
                deltas, places = list[Delta](), Places()
                if sampling.prompt_logprobs is not None:
                    deltas, places = await _prompt_read(events, model.tokenizer)
                usage = None
                while usage is None:
                    for delta in deltas or await _next(events):
                        usage = delta.usage
                        yield replace(delta, prompt_logprobs=places) if places else delta
                        places = ()
                    deltas = []

    async def score(self, model: str, history: Conversation, answers: Sequence[str]) -> tuple[Scored, ...]:
        """log P(answer | history) of each answer. Raises as `chat` does."""
        known = self._roster.decoder(model)
        if not answers:
            return ()
        with self._place():
            rows = await asyncio.to_thread(_scored_rows, history, answers, known)
            now = self._roster.now(model, known)
            with self._asked(Scoring(now.model, rows, now.adapter)) as events:
                return tuple(await _next(events))

    async def embed(
        self, model: str, texts: Sequence[Text], *, normalize: bool = True, dimensions: int | None = None
    ) -> Embedded:
        """A vector for each text, by the pooling that the model's directory asks for; mean where by none.

        Raises UnknownModelError, OverloadedError, ModelError, ContextLengthError, EngineDownError or
        RequestError.
        """
        known = self._roster.known(model)
        with self._place():
            reader = await asyncio.to_thread(self._reader, known)
            wanted = reader.wanted(normalize, dimensions)
            ids = await asyncio.to_thread(reader.ids, texts)
            now = self._roster.now(model, known)
            with self._asked(Embedding(now.model, ids, wanted, now.adapter)) as events:
                vectors = await _next(events)
                return Embedded(tuple(map(tuple, vectors)), sum(map(len, ids)))

    async def load(self, ref: ModelRef, *, pinned: bool = False) -> Served:
        """Serve an adapter of a served base under `ref.name`, or a new version of it.

        Requests that came before are answered to their end by the version that they came to.
        Raises ModelError where the adapter does not fit or is more than a plain LoRA, RequestError where the
        name is a whole model's, EngineDownError.
        """
        new = self._roster.version(ref)
        assert ref.adapter is not None
        loading = Loading(new.opened.model, new.opened.adapter, ref.adapter, pinned)
        try:
            with self._asked(loading) as events:
                await _next(events)
        except BaseException:
            self._retire(new.opened)
            raise
        if before := self._roster.put(new):
            self._retire(before)
        return new.opened.served

    async def unload(self, name: str) -> None:
        """Serve an adapter no longer; requests that came before are answered to their end.

        Raises UnknownModelError, and RequestError where the name is a whole model's.
        """
        self._retire(self._roster.remove(name))

    async def aclose(self) -> None:
        """End the core; open requests get an error."""
        await asyncio.to_thread(self._core.close)

    def _reader(self, known: AnyKnown) -> Reader:
        """Read when it is first asked for: most decoders never embed."""
        if isinstance(known, KnownEncoder):
            return known.reader
        opened = known.opened
        if opened.opened:
            raise UnsupportedError(
                f"model {echo(opened.served.name)} is opened by a soft prompt, which teaches it to answer, "
                f"not to embed: embed with its base",
                param="model",
            )
        if opened.folder not in self._readers:
            self._readers[opened.folder] = Reader.load(opened.folder, opened.served.context, opened.size)
        return self._readers[opened.folder]

    def _retire(self, gone: Opened) -> None:
        with self._asked(Unloading(gone.model, gone.adapter)):
            pass

    @contextmanager
    def _place(self) -> Iterator[None]:
        """One of the requests that may be open."""
        if self._open >= self._max_open:
            raise OverloadedError(f"{self._open} requests are open and {self._max_open} may be: try again")
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

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


async def _prompt_read(events: Queue, vocabulary: Vocabulary) -> tuple[list[Delta], Places]:
    """What is told of the prompt, and the deltas that came before it was read."""
    early: list[Delta] = []
    while not isinstance(event := await _next(events), PromptRead):
        early += event
    return early, await asyncio.to_thread(_told, event, vocabulary)


def _told(read: PromptRead, vocabulary: Vocabulary) -> Places:
    """With the tokens' bytes, and a place for the first token, which follows from nothing."""
    shown = (
        tuple(RankedLogprob(token, bytes_of(token, vocabulary), log, rank) for token, log, rank in place)
        for place in read.places
    )
    return ((), *shown)


def _prompt(request: ChatRequest, model: Known) -> tuple[int, ...]:
    prompt = render_prompt(request.conversation, model.tokenizer)
    _check_length(prompt, model.opened.served.context)
    _check_ids(request.sampling, model.tokenizer.vocab_size)
    return prompt


def _scored_rows(history: Conversation, answers: Sequence[str], model: Known) -> tuple[Rendered, ...]:
    rows = []
    for answer in answers:
        messages = (*history.messages, Message("assistant", answer))
        rows.append(render(replace(history, messages=messages), model.tokenizer, mask="last"))
        _check_length(rows[-1].token_ids, model.opened.served.context)
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
