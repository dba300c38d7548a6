"""The engine in this process: a thread that decodes a changing batch with transformers."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Unpack

from dialoop.engine.constrain import Grammars
from dialoop.engine.front import Front, Known, Mail
from dialoop.engine.loaded import LoadedModel
from dialoop.engine.row import Row, room
from dialoop.engine.running import Running
from dialoop.engine.wire import Answering, CoreOptions, Deliver, Scoring, Work
from dialoop.engine.worker import Job, ScoreJob, Worker

COMPILING = 4
"""Requests whose grammars are made ready side by side."""


class LocalEngine(Front):
    """Answers with the models that it was given, loaded in this process.

    max_open: as in `Front`; options: as in `LocalCore`.
    """

    def __init__(
        self, models: Mapping[str, LoadedModel], *, max_open: int = 256, **options: Unpack[CoreOptions]
    ) -> None:
        mail = Mail()
        known = {name: Known(loaded.served, loaded.tokenizer) for name, loaded in models.items()}
        super().__init__(known, LocalCore(models, mail.deliver, **options), mail, max_open=max_open)


class LocalCore:
    """Models in memory and the thread that runs them; implements `dialoop.engine.wire.Core`.

    Names that share a model in memory are answered in the same steps, each through its own adapter.

    max_rows: answers decoded side by side, by model.  step_tokens: tokens read in one step, prompts in
    chunks.  cache_tokens: tokens whose keys and values are kept, by model; None = `max_rows` whole contexts,
    less where memory ends.  speculate: several tokens a step where an answer repeats what it has read.
    """

    def __init__(
        self,
        models: Mapping[str, LoadedModel],
        deliver: Deliver,
        *,
        max_rows: int = 32,
        step_tokens: int = 512,
        cache_tokens: int | None = None,
        speculate: bool = True,
    ) -> None:
        self._models = dict(models)
        self._deliver = deliver
        self._grammars = {name: Grammars(loaded.tokenizer) for name, loaded in models.items()}
        self._compiling = ThreadPoolExecutor(COMPILING, thread_name_prefix="dialoop-compile")
        self._wanted: set[int] = set()
        each = {id(loaded.model): loaded for loaded in models.values()}
        running = {
            key: Running(
                loaded.model, max_rows=max_rows, step_tokens=step_tokens, context=loaded.served.context,
                cache_tokens=cache_tokens or max_rows * loaded.served.context, adapters=loaded.adapters,
                precision=loaded.precision,
                speculate=speculate,
            )
            for key, loaded in each.items()
        }  # fmt: skip
        self._worker = Worker(running, self._wanted, deliver)

    def submit(self, number: int, work: Work) -> None:
        """Begin `work`, at once unless a grammar must be compiled first."""
        self._wanted.add(number)
        if isinstance(work, Answering) and work.sampling.grammar is not None:
            self._compiling.submit(self._begin, number, work)
        else:
            self._begin(number, work)

    def cancel(self, number: int) -> None:
        """The worker lets its rows go before its next step."""
        self._wanted.discard(number)

    def close(self) -> None:
        """End the threads; open work gets an error."""
        self._compiling.shutdown()
        self._worker.close()

    def _begin(self, number: int, work: Work) -> None:
        try:
            self._worker.submit(id(self._models[work.model].model), self._job(number, work))
        except Exception as error:
            self._deliver([(number, error)])

    def _job(self, number: int, work: Work) -> Job | ScoreJob:
        if isinstance(work, Scoring):
            return ScoreJob(number, work.rows, self._models[work.model].adapter)
        return Job(number, self._rows(work))

    def _rows(self, work: Answering) -> list[Row]:
        loaded, sampling = self._models[work.model], work.sampling
        limit = room(len(work.prompt), loaded.served.context, sampling.max_tokens)
        grammars = self._grammars[work.model]
        return [
            Row(
                work.prompt, sampling, i, vocabulary=loaded.tokenizer, limit=limit, owner=loaded.adapter,
                constraint=None if sampling.grammar is None else grammars.constraint(sampling.grammar),
            )
            for i in range(sampling.n)
        ]  # fmt: skip
