"""The engine in this process: a thread that decodes a changing batch."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from typing import Any, Unpack

from dialoop.chat.render import Rendered
from dialoop.engine.beside import ClassifyJob, EmbedJob, PromptJob, ScoreJob, SideJob, TagJob
from dialoop.engine.best import Best
from dialoop.engine.classify import HeadRunning
from dialoop.engine.constrain import Grammars
from dialoop.engine.embed import EncoderRunning
from dialoop.engine.front import Front
from dialoop.engine.loaded import Loaded, LoadedHead, LoadedModel
from dialoop.engine.mail import Mail
from dialoop.engine.row import Row, room
from dialoop.engine.running import Running
from dialoop.engine.wire import (
    Answering,
    Classifying,
    CoreOptions,
    Deliver,
    Embedding,
    Loading,
    Looking,
    Scoring,
    Shelved,
    Tagging,
    Unloading,
    Work,
)
from dialoop.engine.worker import Job, Worker
from dialoop.types import Occupancy

Computed = Answering | Scoring | Embedding | Classifying | Tagging
"""What models compute."""
COMPILING = 4
"""Requests whose grammars are made ready side by side."""


class LocalEngine(Front):
    """Answers with the models that it was given, loaded in this process.

    max_open: as in `Front`; options: as in `LocalCore`.
    """

    def __init__(
        self, models: Mapping[str, Loaded], *, max_open: int = 256, **options: Unpack[CoreOptions]
    ) -> None:
        mail = Mail()
        known = {name: loaded.known for name, loaded in models.items()}
        core = LocalCore(models, mail.deliver, **options)
        Thread(target=core.run, name="dialoop-engine", daemon=True).start()
        super().__init__(known, core, mail, max_open=max_open)


class LocalCore:
    """Models in memory, to be run by a thread of the caller's; implements `dialoop.engine.wire.Core`.

    Names that share a model in memory are answered in the same steps, each through its own adapter.

    max_rows: answers decoded side by side, by model.  step_tokens: tokens read in one step, prompts in
    chunks.  cache_tokens: tokens whose keys and values are kept, by model; None = `max_rows` whole contexts,
    less where memory ends.  adapter_memory: bytes, by model, of adapters that were loaded since and are not
    pinned; the longest unused leave memory, and requests wait where all are in use.
    speculate: several tokens a step where an answer repeats what it has read.  compiled: the layers of small
    models, which takes a C++ compiler and most of a minute.
    """

    def __init__(
        self,
        models: Mapping[str, Loaded],
        deliver: Deliver,
        *,
        max_rows: int = 32,
        step_tokens: int = 512,
        cache_tokens: int | None = None,
        adapter_memory: int = 2**30,
        speculate: bool = True,
        compiled: bool = False,
    ) -> None:
        self._decoders = {name: each for name, each in models.items() if isinstance(each, LoadedModel)}
        self._lane = {name: id(each.model) for name, each in models.items()}
        self._deliver = deliver
        tokenizers = {loaded.tokenizer for loaded in self._decoders.values()}
        self._grammars = {tokenizer: Grammars(tokenizer) for tokenizer in tokenizers}
        self._compiling = ThreadPoolExecutor(COMPILING, thread_name_prefix="dialoop-compile")
        self._wanted: set[int] = set()
        each = {id(loaded.model): loaded for loaded in models.values()}
        running: dict[int, Running | EncoderRunning | HeadRunning] = {
            key: Running(
                loaded.model, max_rows=max_rows, step_tokens=step_tokens, context=loaded.longest,
                cache_tokens=cache_tokens or max_rows * loaded.longest, adapters=loaded.adapters,
                precision=loaded.precision,
                speculate=speculate, compiled=compiled,
            )
            if isinstance(loaded, LoadedModel)
            else HeadRunning(loaded.headed, step_tokens=step_tokens, crf=loaded.crf)
            if isinstance(loaded, LoadedHead)
            else EncoderRunning(loaded.model, step_tokens=step_tokens)
            for key, loaded in each.items()
        }  # fmt: skip
        self._worker = Worker(running, self._wanted, deliver, adapter_memory)

    def run(self) -> None:
        """Run the models in the calling thread until `close`, which waits for it."""
        self._worker.run()

    def know(self, model: str, shelved: Shelved) -> None:
        """An adapter that an earlier core loaded: it is read for its first request."""
        self._worker.submit(self._lane[model], lambda lane: lane.know(shelved))

    def submit(self, number: int, work: Work) -> None:
        """Begin `work`, at once unless a grammar must be compiled or an adapter be read first."""
        if isinstance(work, Looking):
            self._deliver([(number, self._occupancy())])
            return
        self._wanted.add(number)
        lane = self._lane[work.model]
        if isinstance(work, Answering) and work.sampling.grammar is not None:
            self._worker.submit(lane, lambda lane: lane.hold(number, work.adapter))
            self._compiling.submit(self._begin, number, work)
        elif isinstance(work, Loading):
            self._worker.load(lane, number, work)
        elif isinstance(work, Unloading):
            self._worker.submit(lane, lambda lane: lane.retire(work.adapter))
        else:
            self._begin(number, work)

    def cancel(self, number: int) -> None:
        """The worker lets its rows go before its next step."""
        self._wanted.discard(number)

    def close(self) -> None:
        """End `run` and the threads beside it; open work gets an error."""
        self._compiling.shutdown()
        self._worker.close()

    def _occupancy(self) -> tuple[Occupancy, ...]:
        """Each model in memory, under the first of its names."""
        named = {lane: name for name, lane in reversed(self._lane.items())}
        return tuple(self._worker.occupancy(lane, name) for lane, name in named.items())

    def _begin(self, number: int, work: Computed) -> None:
        try:
            self._worker.submit(self._lane[work.model], *self._jobs(number, work))
        except Exception as error:
            self._wanted.discard(number)
            self._deliver([(number, error)])

    def _jobs(self, number: int, work: Computed) -> list[Job | SideJob[Any]]:
        if isinstance(work, Scoring):
            opening = self._decoders[work.model].opening
            return [ScoreJob(number, work.adapter, [_opened(row, opening) for row in work.rows])]
        if isinstance(work, Embedding):
            return [EmbedJob(number, work.adapter, work.texts, work.wanted)]
        if isinstance(work, Classifying):
            return [ClassifyJob(number, work.adapter, work.texts)]
        if isinstance(work, Tagging):
            return [TagJob(number, work.adapter, work.texts, work.places)]
        sampling = work.sampling
        jobs: list[Job | SideJob[Any]] = []
        if sampling.prompt_logprobs is not None:
            opening = self._decoders[work.model].opening
            prompt = (*opening, *work.prompt)
            jobs.append(PromptJob(number, work.adapter, prompt, sampling.prompt_logprobs, len(opening)))
        if sampling.max_tokens != 0:
            best = Best(sampling.n) if sampling.made > sampling.n else None
            jobs.append(Job(number, self._rows(work), best))
        return jobs

    def _rows(self, work: Answering) -> list[Row]:
        loaded, sampling = self._decoders[work.model], work.sampling
        tokenizer = loaded.tokenizer
        limit = room(len(work.prompt), loaded.served.context, sampling.max_tokens)
        grammar, grammars = sampling.grammar, self._grammars[tokenizer]
        bad = [tokenizer.encode(text) for word in sampling.bad_words for text in (word, f" {word}")]
        return [
            Row(
                work.prompt, sampling, i, vocabulary=tokenizer, limit=limit, owner=work.adapter,
                constraint=None if grammar is None else grammars.constraint(grammar, limit),
                prediction=work.prediction, priority=work.priority, bad=bad,
                decode=tokenizer.decode_showing(work.shown) if work.shown else None,
                opening=loaded.opening, tells_end=work.tells_end,
            )
            for i in range(sampling.made)
        ]  # fmt: skip


def _opened(row: Rendered, opening: tuple[int, ...]) -> Rendered:
    """`row` after a soft prompt's virtual tokens, which are not learnt."""
    if not opening:
        return row
    return Rendered((*opening, *row.token_ids), (0.0,) * len(opening) + tuple(row.loss_mask))
