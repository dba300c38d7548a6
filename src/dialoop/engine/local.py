"""The engine in this process: a thread that decodes a changing batch with transformers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dialoop.chat.render import Rendered, render, render_prompt
from dialoop.engine.beside import EmbedJob, PromptJob, ScoreJob
from dialoop.engine.best import Best
from dialoop.engine.constrain import Grammars
from dialoop.engine.embed import EncoderRunning, Reader
from dialoop.engine.loaded import Loaded, LoadedEncoder, LoadedModel
from dialoop.engine.prompt_logprobs import told
from dialoop.engine.roster import Roster
from dialoop.engine.row import Row, room
from dialoop.engine.running import Running
from dialoop.engine.worker import Event, Job, Worker
from dialoop.errors import (
    ContextLengthError,
    OverloadedError,
    RequestError,
)
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


class LocalEngine:
    """Answers with the models that it was given; implements the protocols of `dialoop.types`.

    Names that share a model in memory are answered in the same steps, each through its own adapter.

    max_rows: answers decoded side by side, by model.  max_open: requests running and waiting; one more is
    refused before its messages are rendered.  step_tokens: tokens read in one step, prompts in chunks.
    cache_tokens: tokens whose keys and values are kept, by model; None = `max_rows` whole contexts, less
    where memory ends.  adapter_memory: bytes, by model, of adapters that were loaded since and are not
    pinned; the longest unused leave memory, and requests wait where all are in use.
    """

    def __init__(
        self,
        models: Mapping[str, Loaded],
        *,
        max_rows: int = 32,
        max_open: int = 256,
        step_tokens: int = 512,
        cache_tokens: int | None = None,
        adapter_memory: int = 2**30,
    ) -> None:
        self._readers: dict[Path, Reader] = {}
        decoders = [loaded for loaded in models.values() if isinstance(loaded, LoadedModel)]
        self._grammars = {
            tokenizer: Grammars(tokenizer) for tokenizer in {loaded.tokenizer for loaded in decoders}
        }
        self._max_open = max_open
        self._open = 0
        running: dict[int, Running | EncoderRunning] = {
            id(loaded.model): Running(
                loaded.model, max_rows=max_rows, step_tokens=step_tokens, context=loaded.served.context,
                cache_tokens=cache_tokens or max_rows * loaded.served.context, adapters=loaded.adapters,
            )
            for loaded in decoders
        }  # fmt: skip
        for loaded in models.values():
            if isinstance(loaded, LoadedEncoder):
                running[id(loaded.model)] = EncoderRunning(loaded.model, step_tokens=step_tokens)
        self._worker = Worker(running, adapter_memory)
        adapters = {key: each.adapters for key, each in running.items() if isinstance(each, Running)}
        self._roster = Roster(models, adapters, self._worker.submit, adapter_memory)

    def models(self) -> tuple[Served, ...]:
        """The models, by name."""
        return self._roster.served()

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """The answers' deltas; closing the generator frees its rows at once.

        Raises UnknownModelError, OverloadedError, RenderError, ContextLengthError or RequestError before the
        first delta.
        """
        loaded = self._roster.decoder(request.model)
        with self._place():
            rows = await asyncio.to_thread(self._rows, request, loaded)
            events: asyncio.Queue[Event] = asyncio.Queue()
            sampling = request.sampling
            # Nothing waits from here to the last job of the request: one version of an adapter answers it.
            adapter = self._roster.adapter(request.model, loaded)
            for row in rows:
                row.owner = adapter
            job = Job(rows, _sender(events), Best(sampling.n) if sampling.made > sampling.n else None)
            reading = self._read_prompt(sampling, rows[0], loaded)
            self._worker.submit(id(loaded.model), job)
            try:
                prompt, usage = await _prompt_logprobs(reading, loaded), None
                while usage is None:
                    for delta in _deltas(await events.get()):
                        usage = delta.usage
                        yield replace(delta, prompt_logprobs=prompt) if prompt else delta
                        prompt = ()
            finally:
                job.cancelled = True

    async def score(self, model: str, history: Conversation, answers: Sequence[str]) -> tuple[Scored, ...]:
        """log P(answer | history) of each answer. Raises as `chat` does."""
        loaded = self._roster.decoder(model)
        if not answers:
            return ()
        with self._place():
            rows = await asyncio.to_thread(_scored_rows, history, answers, loaded)
            job = ScoreJob(self._roster.adapter(model, loaded), rows)
            self._worker.submit(id(loaded.model), job)
            scored = await asyncio.wrap_future(job.result)
            return tuple(scored)

    async def embed(
        self,
        model: str,
        texts: Sequence[str | Sequence[int]],
        *,
        normalize: bool = True,
        dimensions: int | None = None,
    ) -> Embedded:
        """A vector for each text, by the pooling that the model's directory asks for; mean where by none.

        Raises UnknownModelError, OverloadedError, ModelError, ContextLengthError or RequestError.
        """
        loaded = self._roster.loaded(model)
        with self._place():
            reader = await asyncio.to_thread(self._reader, loaded)
            wanted = reader.wanted(normalize, dimensions)
            ids = await asyncio.to_thread(reader.ids, texts)
            job = EmbedJob(self._roster.adapter(model, loaded), ids, wanted)
            self._worker.submit(id(loaded.model), job)
            vectors = await asyncio.wrap_future(job.result)
            return Embedded(tuple(map(tuple, vectors)), sum(map(len, ids)))

    async def load(self, ref: ModelRef, *, pinned: bool = False) -> Served:
        """Serve an adapter of a served base under `ref.name`, or a new version of it; as `Roster.load`."""
        return await self._roster.load(ref, pinned=pinned)

    async def unload(self, name: str) -> None:
        """Serve an adapter no longer; as `Roster.unload`."""
        self._roster.unload(name)

    def _reader(self, loaded: Loaded) -> Reader:
        """Read when it is first asked for: most decoders never embed."""
        if isinstance(loaded, LoadedEncoder):
            return loaded.reader
        if loaded.folder not in self._readers:
            config: Any = loaded.model.config
            size = int(config.get_text_config().hidden_size)
            self._readers[loaded.folder] = Reader.load(loaded.folder, loaded.served.context, size)
        return self._readers[loaded.folder]

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        """One of the requests that may be open."""
        if self._open >= self._max_open:
            raise OverloadedError(f"{self._open} requests are open and {self._max_open} may be: try again")
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    def _read_prompt(self, sampling: Sampling, row: Row, loaded: LoadedModel) -> PromptJob | None:
        """None where the prompt's log-probabilities are not asked for."""
        if sampling.prompt_logprobs is None:
            return None
        job = PromptJob(row.owner, row.prompt, sampling.prompt_logprobs)
        self._worker.submit(id(loaded.model), job)
        return job

    async def aclose(self) -> None:
        """End the thread; open requests get an error."""
        await asyncio.to_thread(self._worker.close)

    def _rows(self, request: ChatRequest, loaded: LoadedModel) -> list[Row]:
        sampling, prompt = request.sampling, render_prompt(request.conversation, loaded.tokenizer)
        if len(prompt) > loaded.served.context:
            raise ContextLengthError(len(prompt), loaded.served.context)
        _check_ids(sampling, loaded.tokenizer.vocab_size)
        limit = room(len(prompt), loaded.served.context, sampling.max_tokens)
        grammars = self._grammars[loaded.tokenizer]
        return [
            Row(
                prompt, sampling, i, vocabulary=loaded.tokenizer, limit=limit,
                constraint=None if sampling.grammar is None else grammars.constraint(sampling.grammar),
            )
            for i in range(sampling.made)
        ]  # fmt: skip


async def _prompt_logprobs(
    job: PromptJob | None, loaded: LoadedModel
) -> tuple[tuple[RankedLogprob, ...], ...]:
    if job is None:
        return ()
    places = await asyncio.wrap_future(job.result)
    return await asyncio.to_thread(told, places, loaded.tokenizer)


def _scored_rows(history: Conversation, answers: Sequence[str], loaded: LoadedModel) -> list[Rendered]:
    rows = []
    for answer in answers:
        messages = (*history.messages, Message("assistant", answer))
        rows.append(render(replace(history, messages=messages), loaded.tokenizer, mask="last"))
        if len(rows[-1].token_ids) > loaded.served.context:
            raise ContextLengthError(len(rows[-1].token_ids), loaded.served.context)
    return rows


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


def _deltas(event: Event) -> Sequence[Delta]:
    if isinstance(event, Exception):
        raise event
    return event


def _sender(events: asyncio.Queue[Event]) -> Callable[[Event], None]:
    """Puts events into the queue from another thread; a loop that has ended wants them no more."""
    loop = asyncio.get_running_loop()

    def send(event: Event) -> None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(events.put_nowait, event)

    return send
