"""The half of an engine that needs no torch: it names, renders, checks and bounds; a core computes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from dialoop.chat.render import Rendered, render
from dialoop.engine.asking import (
    Asked,
    Telling,
    asked_to_chat,
    asked_to_complete,
    check_ids,
    check_length,
    prompt_of,
)
from dialoop.engine.detokenize import Vocabulary, bytes_of
from dialoop.engine.heads import (
    classified,
    fitting_ids,
    log_sigmoid,
    tagged,
    whole_texts,
    word_ids,
    words_of,
)
from dialoop.engine.mail import Mail, Queue, next_of
from dialoop.engine.reader import Reader, Text
from dialoop.engine.roster import ONLY, AnyKnown, Known, KnownEncoder, KnownHead, Roster
from dialoop.engine.wire import (
    Answering,
    Classifying,
    Core,
    Embedding,
    Loading,
    Looking,
    Opened,
    PromptRead,
    Scoring,
    Tagging,
    Unloading,
    Work,
)
from dialoop.errors import OverloadedError, UnsupportedError, echo
from dialoop.types import (
    ChatRequest,
    Classifiable,
    Classification,
    CompleteRequest,
    Conversation,
    Delta,
    Embedded,
    Message,
    ModelRef,
    Occupancy,
    RankedLogprob,
    Scored,
    Served,
    Tokenized,
    Usage,
)

Places = tuple[tuple[RankedLogprob, ...], ...]


class Front:
    """An engine over a core; implements `dialoop.types.Engine`, `Complete`, `Score`, `Embed`,
    `Classify`, `Tokenize`, `Load` and `Occupied`.

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
        known = self._roster.decoder(request.model)
        context, tokenizer = known.opened.served.context, known.tokenizer
        with self._place():
            asked = await asyncio.to_thread(asked_to_chat, request, tokenizer, context)
            telling = Telling(asked, request, tokenizer)
            deltas = self._answers(request, known, asked)
            async with aclosing(deltas):
                async for delta in deltas:
                    if (told := telling.told(delta)) is not None:
                        yield told

    async def complete(self, request: CompleteRequest) -> AsyncGenerator[Delta, None]:
        """How a text goes on. Raises and ends as `chat` does."""
        known = self._roster.decoder(request.model)
        context, tokenizer = known.opened.served.context, known.tokenizer
        with self._place():
            asked = await asyncio.to_thread(asked_to_complete, request, tokenizer, context)
            deltas = self._answers(request, known, asked)
            async with aclosing(deltas):
                async for delta in deltas:
                    yield delta

    async def _answers(
        self, request: ChatRequest | CompleteRequest, known: Known, asked: Asked
    ) -> AsyncGenerator[Delta, None]:
        sampling = asked.sampling
        # Nothing waits from here to the submission: one version of an adapter answers the request.
        now = self._roster.now(request.model, known)
        work = Answering(
            now.model, asked.prompt, sampling, now.adapter, asked.prediction, request.priority, asked.shown,
            tells_end=isinstance(request, CompleteRequest),
        )  # fmt: skip
        with self._asked(work) as events:
            extra: dict[str, Any] = {"prompt_ids": asked.prompt} if sampling.token_ids else {}
            deltas = list[Delta]()
            if sampling.prompt_logprobs is not None:
                deltas, extra["prompt_logprobs"] = await _prompt_read(events, known.tokenizer)
            if sampling.max_tokens == 0:
                deltas = _unanswered(sampling.n, len(asked.prompt))
            usage = None
            while usage is None:
                for delta in deltas or await next_of(events):
                    usage = delta.usage
                    yield replace(delta, **extra) if extra else delta
                    extra = {}
                deltas = []

    async def tokenize(self, model: str, text: str | ChatRequest, *, framed: bool = True) -> Tokenized:
        """The ids of a text, or of a chat's prompt. Raises UnknownModelError, RenderError or RequestError."""
        known = self._roster.known(model)
        return await asyncio.to_thread(_tokenized, text, known, framed)

    async def detokenize(self, model: str, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included. Raises UnknownModelError or RequestError."""
        tokenizer = self._roster.decoder(model).tokenizer
        check_ids("tokens", ids, tokenizer.vocab_size)
        return await asyncio.to_thread(tokenizer.decode, ids, skip_special=False)

    async def score(self, model: str, history: Conversation, answers: Sequence[str]) -> tuple[Scored, ...]:
        """log P(answer | history) of each answer; a scorer's, that it fits. Raises as `chat` does."""
        scorer = self._roster.known(model).opened.served.kind == "scorer"
        known = None if scorer else self._roster.decoder(model)
        if not answers:
            return ()
        if known is None:
            return await self._fitting(model, history, answers)
        with self._place():
            rows = await asyncio.to_thread(_scored_rows, history, answers, known)
            now = self._roster.now(model, known)
            with self._asked(Scoring(now.model, rows, now.adapter)) as events:
                found = await next_of(events)
                return tuple(
                    replace(each, read=len(row.token_ids)) for each, row in zip(found, rows, strict=True)
                )

    async def _fitting(self, model: str, history: Conversation, answers: Sequence[str]) -> tuple[Scored, ...]:
        known = self._roster.head(model)
        with self._place():
            ids = await asyncio.to_thread(fitting_ids, history, answers, known.reader)
            logits = await self._logits(model, known, ids)
            return tuple(
                Scored((log_sigmoid(each[0]),), len(row)) for each, row in zip(logits, ids, strict=True)
            )

    async def classify(self, model: str, texts: Sequence[Classifiable]) -> Classification:
        """The classes of each text, or the tags of its words.

        Raises as `embed`, and UnsupportedError for a model without a head.
        """
        known = self._roster.head(model)
        with self._place():
            if known.opened.served.kind == "tagger":
                return await self._tagged(model, known, texts)
            ids = await asyncio.to_thread(known.reader.ids, whole_texts(texts))
            logits = await self._logits(model, known, ids)
            rows = tuple(classified(each, known.labels) for each in logits)
            return Classification(rows, sum(map(len, ids)), tuple(known.labels))

    async def _tagged(self, model: str, known: KnownHead, texts: Sequence[Classifiable]) -> Classification:
        sentences = await asyncio.to_thread(words_of, texts)
        ids, places = await asyncio.to_thread(word_ids, sentences, known.reader)
        now = self._roster.now(model, known)
        with self._asked(Tagging(now.model, ids, places, now.adapter)) as events:
            found = await next_of(events)
            tags = (tagged(*each, known.labels) for each in zip(sentences, found, strict=True))
            return Classification((), sum(map(len, ids)), tuple(known.labels), tuple(tags))

    async def _logits(self, model: str, known: KnownHead, ids: Sequence[Sequence[int]]) -> list[list[float]]:
        now = self._roster.now(model, known)
        with self._asked(Classifying(now.model, ids, now.adapter)) as events:
            found: list[list[float]] = await next_of(events)
            return found

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
                vectors = await next_of(events)
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
                await next_of(events)
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

    async def occupancy(self) -> tuple[Occupancy, ...]:
        """How busy the models are. Raises EngineDownError."""
        with self._asked(Looking()) as events:
            found: tuple[Occupancy, ...] = await next_of(events)
            return found

    async def aclose(self) -> None:
        """End the core; open requests get an error."""
        await asyncio.to_thread(self._core.close)

    def _reader(self, known: AnyKnown) -> Reader:
        """Read when it is first asked for: most decoders never embed."""
        opened = known.opened
        if isinstance(known, KnownEncoder):
            return known.reader
        if isinstance(known, KnownHead):
            raise UnsupportedError(
                f"model {echo(opened.served.name)} is {ONLY[opened.served.kind]}, and embeds nothing: embed "
                f"with its base",
                param="model",
            )
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


async def _prompt_read(events: Queue, vocabulary: Vocabulary) -> tuple[list[Delta], Places]:
    """What is told of the prompt, and the deltas that came before it was read."""
    early: list[Delta] = []
    while not isinstance(event := await next_of(events), PromptRead):
        early += event
    return early, await asyncio.to_thread(_told, event, vocabulary)


def _told(read: PromptRead, vocabulary: Vocabulary) -> Places:
    """With the tokens' bytes, and a place for the first token, which follows from nothing."""
    shown = (
        tuple(RankedLogprob(token, bytes_of(token, vocabulary), log, rank) for token, log, rank in place)
        for place in read.places
    )
    return ((), *shown)


def _unanswered(n: int, prompt_tokens: int) -> list[Delta]:
    """What is said where no token is asked for."""
    ends = [Delta(i, finish_reason="length") for i in range(n)]
    return [*ends[:-1], replace(ends[-1], usage=Usage(prompt_tokens))]


def _tokenized(text: str | ChatRequest, known: AnyKnown, framed: bool) -> Tokenized:
    if not isinstance(known, Known):
        if not isinstance(text, str):
            raise UnsupportedError(
                f"this model is {ONLY[known.opened.served.kind]}, and has no chat: send a prompt",
                param="messages",
            )
        ids = tuple(known.reader.tokenizer.encode(text, framed=framed))
        return Tokenized(ids, (), known.reader.context)
    tokenizer = known.tokenizer
    if isinstance(text, str):
        ids = tokenizer.encode_text(text) if framed else tuple(tokenizer.encode(text, control=True))
    else:
        ids = prompt_of(text, tokenizer)
    return Tokenized(ids, tokenizer.pieces(ids), known.opened.served.context)


def _scored_rows(history: Conversation, answers: Sequence[str], model: Known) -> tuple[Rendered, ...]:
    rows = []
    for answer in answers:
        messages = (*history.messages, Message("assistant", answer))
        rows.append(render(replace(history, messages=messages), model.tokenizer, mask="last"))
        check_length(rows[-1].token_ids, model.opened.served.context)
    return tuple(rows)
