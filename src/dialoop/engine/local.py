"""The engine in this process: a thread that decodes a changing batch with transformers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace

from dialoop.chat.render import Rendered, render, render_prompt
from dialoop.engine.beside import PromptJob, ScoreJob
from dialoop.engine.best import Best
from dialoop.engine.constrain import Grammars
from dialoop.engine.loaded import LoadedModel
from dialoop.engine.prompt_logprobs import told
from dialoop.engine.row import Row, room
from dialoop.engine.running import Running
from dialoop.engine.worker import Event, Job, Worker
from dialoop.errors import ContextLengthError, OverloadedError, RequestError, UnknownModelError
from dialoop.types import ChatRequest, Conversation, Delta, Message, RankedLogprob, Sampling, Scored, Served


class LocalEngine:
    """Answers with the models that it was given; implements `dialoop.types.Engine`
    and `Score`.

    Names that share a model in memory are answered in the same steps, each through its own adapter.

    max_rows: answers decoded side by side, by model.  max_open: requests running and waiting; one more is
    refused before its messages are rendered.  step_tokens: tokens read in one step, prompts in chunks.
    cache_tokens: tokens whose keys and values are kept, by model; None = `max_rows` whole contexts, less
    where memory ends.
    """

    def __init__(
        self,
        models: Mapping[str, LoadedModel],
        *,
        max_rows: int = 32,
        max_open: int = 256,
        step_tokens: int = 512,
        cache_tokens: int | None = None,
    ) -> None:
        self._models = dict(models)
        self._grammars = {name: Grammars(loaded.tokenizer) for name, loaded in models.items()}
        self._max_open = max_open
        self._open = 0
        running = {
            id(loaded.model): Running(
                loaded.model, max_rows=max_rows, step_tokens=step_tokens, context=loaded.served.context,
                cache_tokens=cache_tokens or max_rows * loaded.served.context, adapters=loaded.adapters,
            )
            for loaded in models.values()
        }  # fmt: skip
        self._worker = Worker(running)

    def models(self) -> tuple[Served, ...]:
        """The models, by name."""
        return tuple(self._models[name].served for name in sorted(self._models))

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """The answers' deltas; closing the generator frees its rows at once.

        Raises UnknownModelError, OverloadedError, RenderError, ContextLengthError or RequestError before the
        first delta.
        """
        if request.model not in self._models:
            raise UnknownModelError(request.model, self._models)
        if self._open >= self._max_open:
            raise OverloadedError(f"{self._open} requests are open and {self._max_open} may be: try again")
        self._open += 1
        try:
            rows = await asyncio.to_thread(self._rows, request)
            prompt = await self._prompt_logprobs(request, rows[0])
            events: asyncio.Queue[Event] = asyncio.Queue()
            sampling = request.sampling
            job = Job(rows, _sender(events), Best(sampling.n) if sampling.made > sampling.n else None)
            self._worker.submit(id(self._models[request.model].model), job)
            try:
                usage = None
                while usage is None:
                    for delta in _deltas(await events.get()):
                        usage = delta.usage
                        yield replace(delta, prompt_logprobs=prompt) if prompt else delta
                        prompt = ()
            finally:
                job.cancelled = True
        finally:
            self._open -= 1

    async def score(self, model: str, history: Conversation, answers: Sequence[str]) -> tuple[Scored, ...]:
        """log P(answer | history) of each answer. Raises as `chat` does."""
        if model not in self._models:
            raise UnknownModelError(model, self._models)
        if not answers:
            return ()
        loaded = self._models[model]
        rows = await asyncio.to_thread(_scored_rows, history, answers, loaded)
        job = ScoreJob(rows, loaded.adapter)
        self._worker.submit(id(loaded.model), job)
        scored = await asyncio.wrap_future(job.result)
        return tuple(scored)

    async def _prompt_logprobs(self, request: ChatRequest, row: Row) -> tuple[tuple[RankedLogprob, ...], ...]:
        """() where they are not asked for."""
        count = request.sampling.prompt_logprobs
        if count is None:
            return ()
        loaded = self._models[request.model]
        job = PromptJob(row.prompt, loaded.adapter, count)
        self._worker.submit(id(loaded.model), job)
        places = await asyncio.wrap_future(job.result)
        return await asyncio.to_thread(told, places, loaded.tokenizer)

    async def aclose(self) -> None:
        """End the thread; open requests get an error."""
        await asyncio.to_thread(self._worker.close)

    def _prompt(self, request: ChatRequest) -> tuple[int, ...]:
        loaded = self._models[request.model]
        prompt = render_prompt(request.conversation, loaded.tokenizer)
        if len(prompt) > loaded.served.context:
            raise ContextLengthError(len(prompt), loaded.served.context)
        return prompt

    def _rows(self, request: ChatRequest) -> list[Row]:
        loaded, sampling = self._models[request.model], request.sampling
        prompt = self._prompt(request)
        _check_ids(sampling, loaded.tokenizer.vocab_size)
        limit = room(len(prompt), loaded.served.context, sampling.max_tokens)
        grammars = self._grammars[request.model]
        return [
            Row(
                prompt, sampling, i, vocabulary=loaded.tokenizer, limit=limit, owner=loaded.adapter,
                constraint=None if sampling.grammar is None else grammars.constraint(sampling.grammar),
            )
            for i in range(sampling.made)
        ]  # fmt: skip


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
