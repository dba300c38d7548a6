"""The answers that a model makes now, and the step that moves them on."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import torch

from dialoop.chat.render import Rendered
from dialoop.engine.blocks import Blocks
from dialoop.engine.embed import Vectors
from dialoop.engine.reader import Wanted
from dialoop.engine.row import Row
from dialoop.engine.runner import BLOCK, blocks_for, runner_of
from dialoop.engine.sampler import choose
from dialoop.engine.scheduler import Piece, Scheduler, Tokens
from dialoop.engine.wire import Ranked
from dialoop.models.adapters import Adapters
from dialoop.models.linear import Precision
from dialoop.types import Scored


class Running:
    """Rows join at any step and leave when they have finished or are dropped.

    max_rows: answers side by side.  step_tokens: tokens read in one step.  context: tokens of the longest
    prompt and answer.  cache_tokens: tokens whose keys and values are kept; less where memory ends, one
    context at least.  adapters: beside the model; a row's owner names its own.  precision: of
    the weights that a lean decoder packs.
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
        precision: Precision = "float32",
    ) -> None:
        blocks = blocks_for(model, cache_tokens, context)
        self.adapters = adapters or Adapters(model)
        self._runner = runner_of(model, blocks, rows=max_rows, adapters=self.adapters, precision=precision)
        self._scheduler = Scheduler(
            Blocks(blocks, BLOCK), step_tokens=step_tokens, max_running=max_rows, sharing=self._runner.shares
        )
        self._step_tokens = step_tokens
        self._row: dict[Tokens, Row] = {}

    @property
    def rows(self) -> list[Row]:
        """All that wait or run."""
        return list(self._row.values())

    @property
    def preemptions(self) -> int:
        """How often a sequence had to give its blocks up, to be computed again."""
        return self._scheduler.preemptions

    def add(self, row: Row) -> None:
        """A new answer waits for its turn."""
        tokens = Tokens(row.prompt, owner=row.owner)
        self._row[tokens] = row
        self._scheduler.add(tokens)

    def advance(self) -> list[tuple[Row, str]]:
        """One step; the rows that got a token, each with its new text.

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
        rows = [self._row[piece.tokens] for piece in pieces if piece.last]
        for row in rows:
            if row.constraint is not None:
                row.constraint.begin()
        logits = self._runner.logits(pieces)
        for piece in pieces:
            self._scheduler.done(piece)
        choices = choose(logits, rows) if rows else []
        said = [(row, row.accept(choice)) for row, choice in zip(rows, choices, strict=True)]
        for piece, choice in zip([piece for piece in pieces if piece.last], choices, strict=True):
            piece.tokens.ids.append(choice.token)
        return said

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


class StepError(Exception):
    """A step of the model failed for `reason`; `rows` took part in it."""

    def __init__(self, rows: list[Row], reason: Exception) -> None:
        super().__init__(str(reason))
        self.rows, self.reason = rows, reason
