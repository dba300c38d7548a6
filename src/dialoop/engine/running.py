"""The answers that a model makes now, and the step that moves them on."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, takewhile

import torch
from torch import Tensor

from dialoop.chat.render import Rendered
from dialoop.engine.blocks import Blocks
from dialoop.engine.embed import Vectors
from dialoop.engine.reader import Wanted
from dialoop.engine.row import Row
from dialoop.engine.runner import BLOCK, blocks_for, runner_of
from dialoop.engine.sampler import Choice, choose
from dialoop.engine.scheduler import Piece, Scheduler, Tokens
from dialoop.engine.wire import Ranked
from dialoop.models.adapters import Adapters
from dialoop.types import Occupancy, Precision, Scored


class Running:
    """Rows join at any step and leave when they have finished or are dropped.

    max_rows: answers side by side.  step_tokens: tokens read in one step.  context: tokens of the longest
    prompt and answer.  cache_tokens: tokens whose keys and values are kept; less where memory ends, one
    context at least.  adapters: beside the model; a row's owner names its own.  precision, compiled:
    as for `runner_of`.  speculate: let rows that repeat what they have read say several tokens in a step;
    they say the same.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        max_rows: int,
        step_tokens: int,
        context: int,
        cache_tokens: int,
        adapters: Adapters | None = None,
        precision: Precision | None = None,
        speculate: bool = True,
        compiled: bool = False,
    ) -> None:
        blocks = blocks_for(model, cache_tokens, context)
        self.adapters = adapters or Adapters(model)
        self._runner = runner_of(
            model, blocks, context=context, adapters=self.adapters, precision=precision,
            compiled=compiled,
        )  # fmt: skip
        self._blocks = Blocks(blocks, BLOCK)
        self._scheduler = Scheduler(
            self._blocks, step_tokens=step_tokens, max_running=max_rows, sharing=self._runner.shares
        )
        self._step_tokens = step_tokens
        self._speculate = speculate and self._runner.shares
        self._row: dict[Tokens, Row] = {}

    @property
    def rows(self) -> list[Row]:
        """All that wait or run."""
        return list(self._row.values())

    @property
    def preemptions(self) -> int:
        """How often a sequence had to give its blocks up, to be computed again."""
        return self._scheduler.preemptions

    def occupancy(self, model: str) -> Occupancy:
        """From any thread: lengths and counters only."""
        plan = self._scheduler
        return Occupancy(
            model, len(plan.running), len(plan.waiting), self._blocks.used, plan.looked_up, plan.found,
            plan.preemptions,
        )  # fmt: skip

    def add(self, row: Row) -> None:
        """A new answer waits for its turn."""
        longest = len(row.prompt) + row.limit if self._speculate else None
        tokens = Tokens(
            row.prompt, priority=row.priority, owner=row.owner, longest=longest, prediction=row.prediction
        )
        self._row[tokens] = row
        self._scheduler.add(tokens)

    def advance(self) -> list[tuple[Row, str]]:
        """One step; the rows that got tokens, each with its new text.

        Where the model fails, the rows that took part leave, and StepError names them.
        """
        pieces = sorted(self._scheduler.schedule(), key=lambda piece: piece.tokens.owner)
        if not pieces:
            return []
        for piece in pieces:
            self._row[piece.tokens].cached = piece.tokens.cached or 0
        try:
            said = self._step(pieces)
        except Exception as error:
            failed = [self._row[piece.tokens] for piece in pieces]
            self.drop(lambda row: row in failed)
            raise StepError(failed, error) from error
        self.drop(lambda row: row.finish_reason is not None)
        return said

    def _step(self, pieces: list[Piece]) -> list[tuple[Row, str]]:
        turns = {piece.tokens: Turn(self._row[piece.tokens], piece.draft) for piece in pieces if piece.last}
        for turn in turns.values():
            if turn.row.constraint is not None:
                turn.row.constraint.begin()
        _speak(self._runner.logits(pieces), list(turns.values()))
        for turn in turns.values():
            turn.count()
        for piece in pieces:
            self._scheduler.done(piece, turns[piece.tokens].said if piece.last else ())
        return [(turn.row, turn.text) for turn in turns.values()]

    def score(self, rows: Sequence[Rendered], owner: str) -> Generator[None, None, list[Scored]]:
        """Log-probabilities of what rows that begin alike learn; yields after each forward."""
        return self._runner.score(rows, owner, self._step_tokens)

    def prompt_logprobs(
        self, prompt: Sequence[int], owner: str, count: int
    ) -> Generator[None, None, list[list[Ranked]]]:
        """Log-probabilities of a prompt's tokens after the first; yields after each forward."""
        return self._runner.prompt_logprobs(prompt, owner, count, self._step_tokens)

    def embed(
        self, texts: Sequence[Sequence[int]], owner: str, wanted: Wanted
    ) -> Generator[None, None, Vectors]:
        """Vectors of texts; yields after each forward."""
        return self._runner.embed(texts, owner, wanted, self._step_tokens)

    def drop(self, gone: Callable[[Row], bool]) -> None:
        """Let go of rows and of their memory."""
        for tokens, row in list(self._row.items()):
            if gone(row):
                del self._row[tokens]
                self._scheduler.remove(tokens)
                self._runner.forget(tokens)


@dataclass(slots=True, eq=False)
class Turn:
    """What a row says in one step: a token, and another for each token of its draft that was right."""

    row: Row
    draft: tuple[int, ...]
    said: list[int] = field(default_factory=list)
    text: str = ""

    def accept(self, choice: Choice) -> bool:
        """Whether the row has another: the draft was right so far, and the answer has not ended."""
        self.said.append(choice.token)
        self.text += self.row.accept(choice)
        right = self.draft[len(self.said) - 1 : len(self.said)] == (choice.token,)
        return right and self.row.finish_reason is None

    def count(self) -> None:
        """What came true of a draft, for a row with a prediction."""
        if self.row.prediction:
            pairs = zip(self.said, self.draft, strict=False)
            right = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            self.row.accepted += right
            self.row.rejected += len(self.draft) - right


def _speak(logits: Tensor, turns: list[Turn]) -> None:
    """Each token is chosen as without drafts, whatever the draft: from its place's logits after the tokens
    before it. logits: (sum of 1 + len(draft), V), the turns in order.
    """
    ends = accumulate(1 + len(turn.draft) for turn in turns)
    going = [(turn, end - 1 - len(turn.draft)) for turn, end in zip(turns, ends, strict=True)]
    while going:
        places = [place for _, place in going]
        here = logits if len(places) == len(logits) else logits[places]
        choices = choose(here, [turn.row for turn, _ in going])
        going = [
            (turn, place + 1)
            for (turn, place), choice in zip(going, choices, strict=True)
            if turn.accept(choice)
        ]


class StepError(Exception):
    """A step of the model failed for `reason`; `rows` took part in it."""

    def __init__(self, rows: list[Row], reason: Exception) -> None:
        super().__init__(str(reason))
        self.rows, self.reason = rows, reason
