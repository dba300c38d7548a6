"""How far a judge agrees with people: on which of two answers is better, or on grades."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dialoop.backends.remote import RemoteEngine
from dialoop.backends.upstream import Upstream
from dialoop.data.language import detect
from dialoop.data.rejects import Rejected
from dialoop.data.sources import contrasts, conversations, read_source
from dialoop.engine.loaded import open_models
from dialoop.engine.local import LocalEngine
from dialoop.errors import DataError, DialoopError
from dialoop.evals.agreement import Agreement, Rating, agreement
from dialoop.evals.judge import Rubric, grade, prefer
from dialoop.evals.messages import REPORT_LANGUAGES
from dialoop.evals.shares import Share
from dialoop.evals.task import Case, cases
from dialoop.evals.written import plain
from dialoop.store.registry import Store
from dialoop.types import Chat, Conversation

T = TypeVar("T")
SCHEMA = "dialoop.agreement/1"
GRADES = ("grade", "score", "rating", "human", "评分", "分数", "打分")
"""Where the metadata of a dialogue holds what a person gave its last answer."""


@dataclass(frozen=True, slots=True)
class Agreeing:
    """judge: of the store, a directory, or what `upstream` serves.

    rubric: answers are graded by it; None = the better of two is asked for.
    """

    judge: str
    sources: tuple[str, ...]
    rubric: Rubric | None = None
    upstream: Upstream | None = None
    max_cases: int = 100
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Agreed:
    """human, judge: ratings of the cases `ids`.  consistency: of preferences that the swap did not change.

    rejected: rows without what a person said.
    """

    name: str
    found: Agreement
    ids: tuple[str, ...]
    human: tuple[Rating, ...]
    judge: tuple[Rating, ...]
    consistency: Share | None
    rejected: tuple[str, ...]


def agree(asked: Agreeing, home: Path) -> Agreed:
    """Ask the judge about what people have rated. Raises DialoopError of many kinds."""
    rejected: list[str] = []
    work = _preferences(asked, rejected) if asked.rubric is None else _grades(asked, asked.rubric, rejected)
    if asked.upstream is not None:
        return asyncio.run(_remote(asked.upstream, work, asked.judge))
    with Store.open(home) as store:
        ref = store.models.resolve(asked.judge)

    async def local() -> Agreed:
        engine = LocalEngine(open_models([ref]))
        try:
            return await work(engine, ref.name)
        finally:
            await engine.aclose()

    return asyncio.run(local())


Work = Callable[[Chat, str], Awaitable[Agreed]]


def _preferences(asked: Agreeing, rejected: list[str]) -> Work:
    """The answer that people preferred stands first or second by chance."""
    pairs = [
        each.preference
        for source in asked.sources
        for each in contrasts(read_source(source, on_reject=_told(rejected)), _told(rejected))
    ]
    pairs = _some(pairs, asked, "preferences, rows with a chosen and a rejected answer", rejected)
    told = [
        Case(pair.history, pair.chosen.content, detect(pair.chosen.content), f"{i}", f"{i}", 0)
        for i, pair in enumerate(pairs)
    ]
    draw = random.Random(asked.seed)
    human = [draw.choice(("before", "after")) for _ in pairs]
    sides = [
        (p.rejected.content, p.chosen.content) if side == "after" else (p.chosen.content, p.rejected.content)
        for p, side in zip(pairs, human, strict=True)
    ]

    async def work(engine: Chat, name: str) -> Agreed:
        found = await prefer(engine, name, told, [old for old, _ in sides], [new for _, new in sides])
        said = tuple(each.winner for each in found.cases)
        ids = tuple(case.id for case in told)
        agreed = agreement(human, said, seed=asked.seed)
        return Agreed(name, agreed, ids, tuple(human), said, found.consistency, tuple(rejected))

    return work


def _grades(asked: Agreeing, rubric: Rubric, rejected: list[str]) -> Work:
    rated: list[tuple[Case, int]] = []
    for source in asked.sources:
        items = read_source(source, on_reject=_told(rejected))
        for number, each in enumerate(conversations(items, _told(rejected)), 1):
            try:
                (case,) = cases([each], turns="last")
                rated.append((case, _given(each, rubric)))
            except DialoopError as error:
                rejected.append(f"{source}: row {number}: {error}")
    rated = _some(rated, asked, "dialogues with a grade in their metadata", rejected)
    told, human = [case for case, _ in rated], [given for _, given in rated]

    async def work(engine: Chat, name: str) -> Agreed:
        said = await grade(engine, name, rubric, told, [case.reference for case in told])
        agreed = agreement(human, said, graded=True, seed=asked.seed)
        ids = tuple(f"{i}" for i in range(len(told)))
        return Agreed(name, agreed, ids, tuple(human), said, None, tuple(rejected))

    return work


def _given(rated: Conversation, rubric: Rubric) -> int:
    """What a person gave. Raises DataError."""
    given = next((rated.metadata[key] for key in GRADES if key in rated.metadata), None)
    if isinstance(given, bool) or not str(given).lstrip("-").isdigit():
        raise DataError(f"no whole grade under any of {', '.join(GRADES)} in its metadata")
    if not rubric.lowest <= int(str(given)) <= rubric.highest:
        raise DataError(
            f"the grade is not from {rubric.lowest} to {rubric.highest}: set --lowest and --highest"
        )
    return int(str(given))


def _some(rows: list[T], asked: Agreeing, what: str, rejected: Sequence[str]) -> list[T]:
    if not rows:
        why = f" ({rejected[0]})" if rejected else ""
        raise DataError(f"{', '.join(asked.sources)}: there are no {what}{why}")
    drawn = random.Random(asked.seed).sample(range(len(rows)), min(asked.max_cases, len(rows)))
    return [rows[i] for i in sorted(drawn)]


def _told(rejected: list[str]) -> Callable[[Rejected], None]:
    return lambda row: rejected.append(f"{row.file}: row {row.line}: {row.reason}")


async def _remote(upstream: Upstream, work: Work, name: str) -> Agreed:
    engine = RemoteEngine("judge", upstream)
    try:
        await engine.refresh()
        return await work(engine, name)
    finally:
        await engine.aclose()


def write(found: Agreed, folder: Path) -> Path:
    """Write `agreement.json`: every rating of both, and how far they agree."""
    folder.mkdir(parents=True, exist_ok=True)
    words = {code: found.found.words(code) for code in REPORT_LANGUAGES}
    told = {"schema": SCHEMA, "words": words, **plain(found)}
    path = folder / "agreement.json"
    path.write_text(json.dumps(told, ensure_ascii=False, allow_nan=False, indent=1), encoding="utf-8")
    return path
