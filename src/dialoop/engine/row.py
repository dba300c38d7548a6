"""One answer in the making."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dialoop.engine.constrain import Constraint
from dialoop.engine.detokenize import Detokenizer, Vocabulary, bytes_of
from dialoop.engine.penalties import Penalties
from dialoop.engine.sampler import Choice, generator
from dialoop.engine.stop import StopScanner
from dialoop.types import FinishReason, Sampling, TokenLogprob


class Row:
    """Takes the tokens of one answer and gives its text, up to the stop token, stop string or limit.

    owner: the adapter that answers, "" = the model itself.  opening: virtual tokens that a soft prompt puts
    before the prompt; no usage counts them.  cached: tokens read that did not have to be.
    prediction: tokens that the answer may go along.  accepted, rejected: those of it that were drafted and
    came true, and the others.  bad: as in `Penalties`.
    decode: instead of the vocabulary's own, which shows no special token.  tells_end: the stop token's
    log-probability is told like any other's.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        index: int,
        *,
        vocabulary: Vocabulary,
        limit: int,
        constraint: Constraint | None = None,
        owner: str = "",
        prediction: Sequence[int] = (),
        priority: int = 0,
        bad: Sequence[Sequence[int]] = (),
        decode: Callable[[Sequence[int]], str] | None = None,
        opening: tuple[int, ...] = (),
        tells_end: bool = False,
    ) -> None:
        self.prompt = (*opening, *prompt) if opening else prompt
        self._opened = len(opening)
        self.sampling = sampling
        self.index = index
        self.cached = 0
        self.chance = generator(sampling, index)
        self.tokens: list[int] = []
        self._total = 0.0
        self.finish_reason: FinishReason | None = None
        own_ends = frozenset() if sampling.ignore_eos else vocabulary.stop_ids
        self._ends = own_ends | set(sampling.stop_token_ids)
        self.penalties = Penalties.of(sampling, prompt, self._ends, bad)
        self.constraint = constraint
        self.owner = owner
        self.priority = priority
        self.prediction = prediction
        self.accepted = self.rejected = 0
        self.limit = limit
        self._vocabulary = vocabulary
        self._detokenizer = Detokenizer(decode or vocabulary.decode)
        self._scanner = StopScanner(sampling.stop, keep=sampling.include_stop)
        self._tells_end = tells_end
        self._told_ids = 0
        self._logprobs: list[TokenLogprob] = []

    def accept(self, choice: Choice) -> str:
        """Append a token; returns the text that is certain and sets `finish_reason` at the end."""
        token = choice.token
        self.tokens.append(token)
        self._total += choice.logprob or 0.0
        if self.penalties is not None:
            self.penalties.add(token)
        if token not in self._ends or self._tells_end:
            self._tell(choice)
        if token in self._ends:
            hurried = self.constraint is not None and self.constraint.hurried
            return self._finish("length" if hurried else "stop", "")
        if self.constraint is not None:
            self.constraint.add(token)
        text = self._detokenizer.push(token)
        if len(self.tokens) > self.sampling.min_tokens:
            text, stopped = self._scanner.push(text)
            if stopped:
                self.finish_reason = "stop"
                return text
        if self.constraint is not None and self.constraint.ended:
            return self._finish("length" if self.constraint.hurried else "stop", text)
        if len(self.tokens) >= self.limit:
            return self._finish("length", text)
        return text

    @property
    def usage(self) -> tuple[int, int]:
        """Tokens of the prompt, and how many of these did not have to be read."""
        return len(self.prompt) - self._opened, max(self.cached - self._opened, 0)

    @property
    def mean_logprob(self) -> float:
        """Per token, the end included, where log-probabilities were asked for."""
        return self._total / len(self.tokens)

    def take_logprobs(self) -> tuple[TokenLogprob, ...]:
        """Those of the tokens accepted since the last call."""
        taken, self._logprobs = tuple(self._logprobs), []
        return taken

    def take_ids(self) -> tuple[int, ...]:
        """Those accepted since the last call, where they were asked for."""
        start, self._told_ids = self._told_ids, len(self.tokens)
        return tuple(self.tokens[start:]) if self.sampling.token_ids else ()

    def _tell(self, choice: Choice) -> None:
        if choice.logprob is not None and self.sampling.logprobs is not None:
            top = tuple(self._told(other, logprob) for other, logprob in choice.top)
            self._logprobs.append(self._told(choice.token, choice.logprob, top))

    def _told(self, token: int, logprob: float, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
        return TokenLogprob(token, bytes_of(token, self._vocabulary), logprob, top)

    def _finish(self, reason: FinishReason, text: str) -> str:
        """Hand out all that was held back; a stop string that it completes still counts."""
        rest, stopped = self._scanner.push(self._detokenizer.flush())
        self.finish_reason = "stop" if stopped else reason
        return text + rest + self._scanner.flush()


def room(prompt_tokens: int, context: int, max_tokens: int | None) -> int:
    """Tokens that an answer may have: `max_tokens`, less where the context ends, at least one."""
    left = max(1, context - prompt_tokens)
    return left if max_tokens is None else min(left, max_tokens)
