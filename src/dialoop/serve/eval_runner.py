"""Runs evaluations beside the requests of clients: asks a model through the same routes, and grades."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from dialoop.errors import DialoopError, EvalError
from dialoop.serve.background import SideBySide
from dialoop.serve.caller import Caller
from dialoop.serve.eval_rows import Asked, body_of, rows_of
from dialoop.serve.eval_wire import Completions, CreateRun, FileId, Jsonl, graders_of
from dialoop.serve.inside import Answered
from dialoop.store.evals import UNENDED, EvalRun, ItemStatus, open_runs
from dialoop.store.lease import held
from dialoop.store.pages import Window
from dialoop.store.registry import Store

Ask = Callable[[str, bytes, Caller], Awaitable[Answered]]
AT_ONCE = 4
"""Requests of evaluations under way, and rows of one."""
MOST_RUNS = 16
"""Worked on side by side."""
POLL_SECONDS = 5.0
LATER = frozenset({408, 429, 502, 503, 504})
"""Answers that say: later."""
PAGE = 500


class EvalRunner:
    """Works on the open runs of a store, side by side; another takes up what it leaves.

    ask: answers a request as a caller, at the expense of the key that began the run.
    """

    def __init__(self, store: Store, ask: Ask) -> None:
        self._store, self._ask = store, ask
        self._woken, self._places = asyncio.Event(), asyncio.Semaphore(AT_ONCE)

    def wake(self) -> None:
        """There is a new run, or one that was cancelled or deleted."""
        self._woken.set()

    async def run(self) -> None:
        """Never returns."""
        while True:
            with held(self._store.home / "evals" / ".runner") as mine:
                if mine:
                    await self._attend()
            await asyncio.sleep(POLL_SECONDS)

    async def _attend(self) -> None:
        """Never returns. A run that waits, for its budget say, keeps no other waiting."""
        working = SideBySide(self._work, MOST_RUNS, self.wake)
        try:
            while True:
                self._woken.clear()
                runs = {run.id: run for run in await asyncio.to_thread(open_runs, self._store.engine)}
                for name in set(working) - runs.keys():
                    working.cancel(name)
                for name, run in runs.items():
                    working.begin(name, run)
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._woken.wait()
        finally:
            await working.end()

    def folder(self, run_id: str) -> Path:
        """Where the file of a run lies for as long as it goes on."""
        return self._store.home / "evals" / run_id

    def prepare(self, store: Store, run_id: str, source: Jsonl | Completions) -> None:
        """Keep the file that a run is to read, whatever becomes of it. Raises UnknownRecordError."""
        if isinstance(source.source, FileId):
            store.files.link(source.source.id, self.folder(run_id) / source.source.id)

    async def _work(self, run: EvalRun) -> None:
        evals = self._store.of(run.project_id).evals
        try:
            if await asyncio.to_thread(evals.change_run, run.id, UNENDED, status="in_progress"):
                await self._rows(run)
                summary = await asyncio.to_thread(self._summary, run)
                await asyncio.to_thread(
                    evals.change_run, run.id, UNENDED, status="completed", summary=summary
                )
        except (DialoopError, FileNotFoundError) as error:
            told = str(error) if isinstance(error, DialoopError) else "the file of the run is gone"
            failed = {"code": "invalid_data", "message": told}
            await asyncio.to_thread(evals.change_run, run.id, UNENDED, status="failed", error=failed)
        finally:
            await asyncio.to_thread(self._tidy, run)

    def _tidy(self, run: EvalRun) -> None:
        """Remove what the run was to read, unless it goes on another time."""
        if not self._store.of(run.project_id).evals.open(run.id):
            shutil.rmtree(self.folder(run.id), ignore_errors=True)

    async def _rows(self, run: EvalRun) -> None:
        """Every row that was not graded before, a few side by side."""
        store = self._store.of(run.project_id)
        source = CreateRun(data_source=dict(run.data_source)).data_source
        graders = graders_of((await asyncio.to_thread(store.evals.get, run.parent_id)).testing_criteria)
        done = await asyncio.to_thread(store.evals.done, run.id)
        rows = enumerate(rows_of(store, source, self.folder(run.id)))
        left: Iterator[tuple[int, Asked]] = ((seq, row) for seq, row in rows if seq not in done)
        while some := await asyncio.to_thread(lambda: list(islice(left, AT_ONCE))):
            await asyncio.gather(*(self._row(run, source, graders, seq, row) for seq, row in some))

    async def _row(
        self, run: EvalRun, source: Jsonl | Completions, graders: Sequence[Any], seq: int, row: Asked
    ) -> None:
        sample, error = dict(row.sample or {}), None
        if isinstance(source, Completions) and row.sample is None:
            sample, error = await self._sampled(run, source, row)
        status: ItemStatus = "error"
        results: list[dict[str, Any]] = []
        if error is None:
            status, results, error = await self._graded(run, graders, {"item": row.item, "sample": sample})
        told = {**sample, "error": error}
        add = self._store.of(run.project_id).evals.add_item
        await asyncio.to_thread(add, run.id, seq, status, row.item, told, results)

    async def _sampled(
        self, run: EvalRun, source: Completions, row: Asked
    ) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """What the model said, or why it did not."""
        try:
            body = body_of(source, row)
        except EvalError as error:
            return {}, {"code": "invalid_item", "message": str(error)}
        asked = {"model": source.model, "input": body["messages"], **_parameters(source.sampling_params)}
        answer = await self._patient(run, "/v1/chat/completions", body)
        if answer.status != 200:
            return asked, _refusal(answer)
        completion = json.loads(answer.body)
        choice, usage = completion["choices"][0], completion["usage"]
        text = choice["message"]["content"] or ""
        made = {
            "output": [{"role": "assistant", "content": text}], "output_text": text,
            "output_tools": choice["message"].get("tool_calls") or [],
            "finish_reason": choice["finish_reason"], "usage": _usage(usage),
        }  # fmt: skip
        return {**asked, **made}, None

    async def _patient(self, run: EvalRun, path: str, body: Mapping[str, Any]) -> Answered:
        content = json.dumps(body, ensure_ascii=False).encode()
        while True:
            async with self._places:
                answer = await self._ask(path, content, Caller(run.project_id, run.key_id))
            if answer.status not in LATER:
                return answer
            told = answer.headers.get("retry-after", "1")
            await asyncio.sleep(min(float(told), 30.0) if told.isdecimal() else 1.0)

    async def _graded(
        self, run: EvalRun, graders: Sequence[Any], values: Mapping[str, Any]
    ) -> tuple[ItemStatus, list[dict[str, Any]], dict[str, Any] | None]:
        """The item's status, each grader's result, and what kept one from grading."""
        results = []
        for grader in graders:
            try:
                reply = await self._told(run, grader.asks(values))
                grade = await asyncio.to_thread(grader.grade, values, reply)
            except EvalError as error:
                return "error", [], {"code": "invalid_item", "message": f"{grader.name}: {error}"}
            results.append(
                {"name": grader.name, "type": grader.type, "score": grade.score, "passed": grade.passed}
            )
        return ("pass" if all(result["passed"] for result in results) else "fail"), results, None

    async def _told(self, run: EvalRun, asked: tuple[str, dict[str, Any]] | None) -> dict[str, Any] | None:
        """What a grader needs of a model. Raises EvalError where it is refused."""
        if asked is None:
            return None
        answer = await self._patient(run, *asked)
        if answer.status != 200:
            raise EvalError(_refusal(answer)["message"])
        return dict(json.loads(answer.body))

    def _summary(self, run: EvalRun) -> dict[str, Any]:
        """Totals by grader and model, over all items."""
        evals = self._store.of(run.project_id).evals
        passed: dict[str, list[int]] = {}
        usage: dict[str, int] = {}
        after, more = None, True
        while more:
            page = evals.items(run.id, Window(PAGE, after, newest_first=False))
            for item in page.items:
                for result in item.results:
                    counts = passed.setdefault(result["name"], [0, 0])
                    counts[result["passed"]] += 1
                for name, count in (item.sample.get("usage") or {}).items():
                    usage[name] = usage.get(name, 0) + count
                usage["invocation_count"] = usage.get("invocation_count", 0) + ("usage" in item.sample)
            after, more = page.items[-1].id if page.items else None, page.has_more
        told = [
            {"testing_criteria": name, "failed": failed, "passed": good}
            for name, (failed, good) in passed.items()
        ]
        models = [{"model_name": run.model, **usage}] if usage.get("invocation_count") else []
        return {"per_testing_criteria_results": told, "per_model_usage": models}


def _refusal(answer: Answered) -> dict[str, Any]:
    told = json.loads(answer.body)["error"]
    return {"code": told["code"] or "request_refused", "message": told["message"]}


def _parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    names = ("temperature", "top_p", "max_completion_tokens", "seed")
    return {name: given.get(name) for name in names}


def _usage(usage: Mapping[str, Any]) -> dict[str, int]:
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    return {**{name: usage[name] for name in names}, "cached_tokens": cached}
