"""One answer in the making."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from dialoop.engine.detokenize import Detokenizer
from dialoop.engine.sampler import generator
from dialoop.engine.stop import StopScanner
from dialoop.types import FinishReason, Sampling


class Row:
    """Takes the tokens of one answer and gives its text, up to the stop token, stop string or limit."""

    def __init__(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        index: int,
        *,
        decode: Callable[[Sequence[int]], str],
        stop_ids: Collection[int],
        limit: int,
    ) -> None:
        self.prompt = prompt
        self.sampling = sampling
        self.index = index
        self.chance = generator(sampling, index)
        self.tokens: list[int] = []
        self.finish_reason: FinishReason | None = None
        self._stop_ids = stop_ids
        self._limit = limit
        self._detokenizer = Detokenizer(decode)
        self._scanner = StopScanner(sampling.stop)

    def accept(self, token: int) -> str:
        """Append a token; returns the text that is certain and sets `finish_reason` at the end."""
        self.tokens.append(token)
        if token in self._stop_ids:
            return self._finish("stop", "")
        text, stopped = self._scanner.push(self._detokenizer.push(token))
        if stopped:
            self.finish_reason = "stop"
            return text
        if len(self.tokens) >= self._limit:
            return self._finish("length", text)
        return text

    def _finish(self, reason: FinishReason, text: str) -> str:
        """Hand out all that was held back; a stop string that it completes still counts."""
        rest, stopped = self._scanner.push(self._detokenizer.flush())
        self.finish_reason = "stop" if stopped else reason
        return text + rest + self._scanner.flush()


def room(prompt_tokens: int, context: int, max_tokens: int | None) -> int:
    """Tokens that an answer may have: `max_tokens`, less where the context ends, at least one."""
    left = max(1, context - prompt_tokens)
    return left if max_tokens is None else min(left, max_tokens)
