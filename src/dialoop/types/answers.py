"""What an engine answers, piece by piece and whole."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from dialoop.types.tools import ToolCall, ToolKind

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request; completion tokens are summed over all answers made.

    accepted_tokens, rejected_tokens: drafts out of the request's prediction that came true, and the others.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    accepted_tokens: int = 0
    rejected_tokens: int = 0


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """The natural logarithm of one token's probability, and the best tokens in its place, best first.

    data: the token's bytes, which may be a part of a character.
    """

    token_id: int
    data: bytes
    logprob: float
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class RankedLogprob:
    """The log-probability of one token in its place; rank: 1 + how many tokens are more probable there."""

    token_id: int
    data: bytes
    logprob: float
    rank: int


@dataclass(frozen=True, slots=True)
class CallDelta:
    """A piece of an answer's call `index`: id and name come with the first, `arguments` are appended."""

    index: int
    arguments: str = ""
    id: str | None = None
    name: str | None = None
    kind: ToolKind = "function"


@dataclass(frozen=True, slots=True)
class Delta:
    """One piece of one answer. The last of each index has a finish_reason; the last of all has the usage.

    reasoning: what a model thinks before it answers.  calls: pieces of calls, in order.
    token_ids: of the tokens since the last delta, and prompt_ids, on the first delta of all, the prompt's:
    where they were asked for.
    logprobs: of the tokens since the last delta, where they were asked for; a stop token is none of them.
    prompt_logprobs: on the first delta of all, where they were asked for: for each token of the prompt itself
    and then the best in its place, which follow from the tokens before; () for the first.
    """

    index: int = 0
    text: str = ""
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[tuple[RankedLogprob, ...], ...] = ()
    reasoning: str = ""
    calls: tuple[CallDelta, ...] = ()
    token_ids: tuple[int, ...] = ()
    prompt_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer: the fold of its deltas. prompt_logprobs, prompt_ids: the same for all answers."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[tuple[RankedLogprob, ...], ...] = ()
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    token_ids: tuple[int, ...] = ()
    prompt_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Scored:
    """log P(answer | history), in nats: of each token of the answer, its end of turn included.

    read: tokens of history and answer.
    """

    logprobs: tuple[float, ...]
    read: int = 0

    @property
    def total(self) -> float:
        """Of the whole answer."""
        return sum(self.logprobs)


@dataclass(frozen=True, slots=True)
class Embedded:
    """vectors: one a text, in order.  prompt_tokens: read for all of them."""

    vectors: tuple[tuple[float, ...], ...]
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Classification:
    """rows: one a text, in order.  prompt_tokens: read for all.  labels: the model's, in its order.

    tags: of a tagger, one a text, in the place of rows.
    """

    rows: tuple[Classified, ...]
    prompt_tokens: int
    labels: tuple[str, ...]
    tags: tuple[WordTags, ...] = ()


@dataclass(frozen=True, slots=True)
class Classified:
    """The likeliest class of a text, and the probabilities of all, in the model's order."""

    label: str
    probabilities: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class WordTags:
    """The tag of each word of a text, in strict IOB2, and its probability.

    places: where the words begin and end in the text, () where the words were given one by one.
    """

    words: tuple[str, ...]
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    places: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Tokenized:
    """pieces: what each token is written as in the vocabulary.  context: tokens that the model holds."""

    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    context: int


class Folding:
    """One answer in the making, from its deltas."""

    def __init__(self) -> None:
        self._deltas: list[Delta] = []

    def add(self, delta: Delta) -> None:
        """The next delta of this answer."""
        self._deltas.append(delta)

    def answer(self, usage: Usage, first: Delta) -> Answer:
        """first: of all the request's deltas."""
        deltas = self._deltas
        reason = deltas[-1].finish_reason
        assert reason is not None
        return Answer(
            text="".join(delta.text for delta in deltas),
            finish_reason=reason,
            usage=usage,
            logprobs=tuple(each for delta in deltas for each in delta.logprobs),
            prompt_logprobs=first.prompt_logprobs,
            reasoning="".join(delta.reasoning for delta in deltas),
            calls=calls_of(deltas),
            token_ids=tuple(each for delta in deltas for each in delta.token_ids),
            prompt_ids=first.prompt_ids,
        )


def calls_of(deltas: Sequence[Delta]) -> tuple[ToolCall, ...]:
    """The whole calls of one answer's deltas."""
    return calls_of_pieces([piece for delta in deltas for piece in delta.calls])


def calls_of_pieces(pieces: Sequence[CallDelta]) -> tuple[ToolCall, ...]:
    """The whole calls, by index."""
    calls: dict[int, ToolCall] = {}
    for piece in pieces:
        if piece.index not in calls:
            calls[piece.index] = ToolCall(piece.id or "", piece.name or "", piece.arguments, piece.kind)
        else:
            before = calls[piece.index]
            calls[piece.index] = replace(before, arguments=before.arguments + piece.arguments)
    return tuple(calls[i] for i in sorted(calls))


async def fold(deltas: AsyncIterator[Delta]) -> tuple[Answer, ...]:
    """The whole answers, by index, of a stream of deltas."""
    answers: dict[int, Folding] = {}
    usage, first = Usage(), None
    async for delta in deltas:
        first = first or delta
        answers.setdefault(delta.index, Folding()).add(delta)
        usage = delta.usage or usage
    assert first is not None
    return tuple(answers[i].answer(usage, first) for i in sorted(answers))
