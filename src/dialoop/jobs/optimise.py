"""A better prompt for one model on one kind of question, within a budget of questions.

Candidates are other instructions, other examples, and both; successive halving asks all of them the same
few questions and the better ones more. The best is then compared with the prompt as it came on cases that
nothing was chosen by. A run that was interrupted asks nothing twice: the same command goes on.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from dialoop import __version__
from dialoop.chat.prompt import Prompt
from dialoop.config.optimising import OptimiseSettings
from dialoop.config.prompts import FewShotSettings, PromptSettings
from dialoop.errors import ConfigError
from dialoop.evals.compare import Comparison, compare
from dialoop.evals.metrics import Metric
from dialoop.evals.report import stats_of
from dialoop.evals.task import Case, Outcome
from dialoop.jobs.prompt_data import PromptData
from dialoop.jobs.prompted import Asking, Prompted
from dialoop.prompting.candidates import (
    Candidate,
    crossed,
    example_sets,
    mutations,
    with_examples,
    with_instruction,
)
from dialoop.prompting.halving import Rung, halve
from dialoop.types import Conversation

Say = Callable[[str], None]
SURE = 0.1
"""What P(right label) counts beside the label being right: it tells equally right candidates apart."""


@dataclass(frozen=True, slots=True)
class Optimised:
    """best: the prompt that was found, or the one that came. changes: its metrics, the first decides.

    evidence: all that speaks for it, as JSON.
    """

    best: Candidate
    changes: tuple[Comparison, ...]
    evidence: Mapping[str, Any]

    @property
    def better(self) -> bool:
        """Whether it is, beyond the interval."""
        return self.changes[0].verdict == "better"


class Optimiser:
    """model: the one that is asked.  data: cases and examples.  language: of the wording that is changed."""

    def __init__(
        self,
        model: Prompted,
        start: PromptSettings,
        data: PromptData,
        settings: OptimiseSettings,
        *,
        language: str,
        values: Mapping[str, Any],
        proposed: Sequence[str] = (),
        say: Say = lambda line: None,
    ) -> None:
        self._model, self._start, self._data, self._settings = model, start, data, settings
        self._language, self._values, self._say = language, values, say
        self._proposed = proposed
        self._trial, self._test = _parted(data.cases, settings)
        self._asked: dict[str, int] = {}

    @property
    def test_cases(self) -> tuple[Case, ...]:
        """Those that nothing is chosen by."""
        return self._test

    def run(self) -> Optimised:
        """Search, then test. Raises ConfigError for too small a budget, and what the model raises."""
        start = Candidate(self._start, "as it came")
        field, board = self._first(start), dict[str, tuple[Candidate, Rung, float]]()
        best = start
        for number in range(self._settings.rounds):
            if number:
                field = self._next(start, [each for each, *_ in _leading(board)][: self._settings.keep])
            rungs = halve(
                len(field), self._settings.budget // self._settings.rounds, len(self._trial),
                lambda arm, many, field=field: self._scores(field[arm], many),  # type: ignore[misc]
            )  # fmt: skip
            for rung in rungs:
                for arm, mean in zip(rung.arms, rung.means, strict=True):
                    board[field[arm].hash] = (field[arm], rung, mean)
            best = field[rungs[-1].arms[0]]
            self._say(
                f"round {number + 1}: {len(field)} candidates, the best after {rungs[-1].questions} "
                f"questions: {best.origin} ({rungs[-1].means[0]:.3f})"
            )
        return self._tested(start, best, _leading(board))

    def _first(self, start: Candidate) -> list[Candidate]:
        """The prompt as it came, other instructions, and each way to show examples."""
        instructed = [
            replace(start, settings=with_instruction(self._start, self._language, text), origin=origin)
            for texts, origin in ((self._settings.instructions, "hand-given"), (self._proposed, "proposed"))
            for text in texts
        ]
        return _unique([start, *instructed, *self._mutated([start]), *self._with_examples(start)])

    def _next(self, start: Candidate, best: Sequence[Candidate]) -> list[Candidate]:
        """The best so far, small changes to their words, and their words with each other's examples."""
        crosses = [crossed(a, b) for a in best for b in best if a is not b]
        return _unique([start, *best, *crosses, *self._mutated(best)])

    def _mutated(self, of: Sequence[Candidate]) -> list[Candidate]:
        others = (*self._settings.instructions, *self._proposed)
        found = [
            Candidate(with_instruction(each.settings, self._language, text), f"{each.origin}; {how}")
            for each in of
            for text, how in mutations(each.settings.wording[self._language].system, others)
        ]
        random.Random(self._settings.seed + len(of)).shuffle(found)
        return found[: self._settings.mutations]

    def _with_examples(self, start: Candidate) -> list[Candidate]:
        settings, pool = self._settings, self._data.pool
        if not settings.shots or not pool:
            return []
        sets = example_sets(pool, settings.shots, settings.example_sets, settings.seed)
        found = [Candidate(with_examples(self._start, each), f"{len(each)} examples") for each in sets]
        kept = _spread(pool, settings.pool, settings.seed)
        few = [
            FewShotSettings(select=select, count=count)
            for select in settings.selections
            for count in settings.shots
        ]
        return found + [
            Candidate(with_examples(self._start, kept, each), f"{each.count} examples by {each.select}")
            for each in few
        ]

    def _scores(self, candidate: Candidate, many: int) -> list[float]:
        """Its score on each of the first trial cases, the higher the better."""
        cases = self._trial[:many]
        self._asked[candidate.hash] = max(many, self._asked.get(candidate.hash, 0))
        asking = self._asking(candidate)
        if self._data.labels:
            shown = self._model.shown(asking, cases)
            shares = self._model.shares(asking, shown)
            right = np.array([self._data.labels.index(case.reference) for case in cases])
            hit = shares.argmax(1) == right
            return list(map(float, hit + SURE * shares[np.arange(len(cases)), right]))
        if self._settings.by == "answers":
            metric = self._data.task.side()
            found = [
                float(metric.scores(row)) for row in stats_of(metric, self._model.outcomes(asking, cases))
            ]
            return found if metric.higher_is_better is not False else [-each for each in found]
        told = self._model.likelihoods(asking, cases)
        return [(each.log_likelihood or 0.0) / max(each.tokens, 1) for each in told]

    def _asking(self, candidate: Candidate) -> Asking:
        return Asking(Prompt(candidate.settings), self._values, None, self._data.labels)

    def _tested(
        self, start: Candidate, best: Candidate, board: Sequence[tuple[Candidate, Rung, float]]
    ) -> Optimised:
        sides = [self._outcomes(each) for each in (start, best)]
        metrics = self._metrics()
        groups = [case.group for case in self._test]
        changes = tuple(
            compare(
                metric, stats_of(metric, sides[0]), stats_of(metric, sides[1]), groups=groups,
                seed=self._settings.seed,
            )
            for metric in metrics
        )  # fmt: skip
        for change in changes:
            self._say(change.words())
        return Optimised(best, changes, self._evidence(best, changes, board))

    def _metrics(self) -> list[Metric]:
        """Those that decide first: what the candidates were chosen by."""
        references = [case.reference for case in self._test]
        languages = {case.language for case in self._test}
        found = self._data.task.metrics(languages.pop() if len(languages) == 1 else "all", references)
        if self._data.labels:
            return [metric for metric in found if metric.name in self._data.task.headline]
        likely = [metric for metric in found if metric.reads == "likelihood"]
        written = [m for m in found if m.name in self._data.task.headline and m.reads == "text"]
        return [*written, *likely] if self._settings.by == "answers" else [*likely, *written]

    def _outcomes(self, candidate: Candidate) -> tuple[Outcome, ...]:
        """On the cases that nothing was chosen by."""
        asking = self._asking(candidate)
        answered = self._model.outcomes(asking, self._test)
        if self._data.labels:
            return answered
        likely = self._model.likelihoods(asking, self._test)
        return tuple(
            replace(a, log_likelihood=b.log_likelihood, tokens=b.tokens)
            for a, b in zip(answered, likely, strict=True)
        )

    def _evidence(
        self, best: Candidate, changes: Sequence[Comparison], board: Sequence[tuple[Candidate, Rung, float]]
    ) -> dict[str, Any]:
        told = [
            {"origin": each.origin, "hash": each.hash[:12], "score": mean, "questions": rung.questions}
            for each, rung, mean in board[:20]
        ]
        return json.loads(json.dumps({  # type: ignore[no-any-return]
            "model": self._model.name, "task": self._data.task.name, "language": self._language,
            "origin": best.origin, "verdict": changes[0].words(), "better": changes[0].verdict == "better",
            "changes": [{**asdict(change), "words": change.words()} for change in changes],
            "asked": sum(self._asked.values()),
            "trial_cases": len(self._trial), "test_cases": len(self._test),
            "test_case_ids": [case.id for case in self._test],
            "cases_hash": _cases_hash((*self._trial, *self._test)), "examples": len(self._data.pool),
            "leaked_examples_left_out": len(self._data.leaked.places),
            "settings": self._settings.model_dump(mode="json"), "candidates": told, "dialoop": __version__,
        }).replace("NaN", "null"))  # fmt: skip


def _parted(cases: Sequence[Case], settings: OptimiseSettings) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """Cases to choose by, and others to test on; those of one group stay together."""
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.group, []).append(case)
    names = list(groups)
    random.Random(settings.seed).shuffle(names)
    share = settings.trial_cases / (settings.trial_cases + settings.test_cases)
    wanted = max(1, min(settings.trial_cases, round(share * len(cases))))
    trial: list[Case] = []
    while names and len(trial) < wanted:
        trial += groups[names.pop()]
    test = [case for name in names for case in groups[name]]
    if not test:
        raise ConfigError(
            f"{len(groups)} groups of cases came: give more, some to choose by and some to test"
        )
    random.Random(settings.seed).shuffle(trial)
    return tuple(trial[: settings.trial_cases]), tuple(test[: settings.test_cases])


def _leading(board: Mapping[str, tuple[Candidate, Rung, float]]) -> list[tuple[Candidate, Rung, float]]:
    """Those that were asked most first, and among these the best."""
    return sorted(board.values(), key=lambda each: (-each[1].questions, -each[2]))


def _unique(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The first of those that say the same."""
    found: dict[str, Candidate] = {}
    for each in candidates:
        found.setdefault(each.hash, each)
    return list(found.values())


def _spread(pool: Sequence[Conversation], count: int, seed: int) -> tuple[Conversation, ...]:
    """So many examples, of as many classes as there are."""
    if len(pool) <= count:
        return tuple(pool)
    (found,) = example_sets(pool, [count], 1, seed)
    return found


def _cases_hash(cases: Sequence[Case]) -> str:
    digest = sha256()
    for case in cases:
        turns = [[turn.role, turn.content] for turn in case.answered.messages]
        digest.update(json.dumps(turns, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def run_folder(home: Path, name: str) -> Path:
    """Where proposals and answers of a search lie unless it is told."""
    return home / "prompts" / name
