"""The values that travel between the rooms, and the protocols of engines.

A `Conversation` is at once a training example, a request body, a log row and an evaluation item.
Everything here is frozen, compares by content and imports the standard library alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

Role = Literal["system", "developer", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "developer", "user", "assistant", "tool")
FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]
Language = Literal["en", "zh", "other"]
Precision = Literal["float32", "half", "int8"]
"""Of a model's weights when it answers: as they are; 16 bits, as bf16 files hold; 8 bits, a scale a row."""


ToolKind = Literal["function", "custom"]
"""OpenAI's two kinds: called with JSON arguments, or with one plain text."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that an assistant turn makes; `arguments` is JSON text, as on OpenAI's wire, or a custom tool's
    plain input.
    """

    id: str
    name: str
    arguments: str
    kind: ToolKind = "function"


@dataclass(frozen=True, slots=True)
class Grammar:
    """What an answer may be: one of the choices (a JSON list of strings), a text that a regular expression
    or a Lark grammar (in llguidance's dialect) matches whole, or JSON that a schema (as JSON) allows.

    param: the field of the request that asked for it, for errors.
    """

    kind: Literal["choice", "regex", "lark", "json_schema"]
    text: str
    param: str = "response_format"


@dataclass(frozen=True, slots=True)
class Tool:
    """Something that the model may call.

    parameters: a function's, as JSON Schema.  strict: calls keep to it even where the model may choose.
    format: what a custom tool's input must be, None = any text.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    strict: bool = False
    kind: ToolKind = "function"
    format: Grammar | None = None


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Whether tools are called: never, as the model likes, or at once and with nothing said before.

    names: the only ones that may be called, () = all on offer.  parallel: more than one call in an answer.
    """

    mode: Literal["none", "auto", "required"] = "auto"
    names: tuple[str, ...] = ()
    parallel: bool = True


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. Text parts of a content list are joined with newlines when read.

    weight: OpenAI's per-message training weight (0 = context only); None = the mask's default.
    """

    role: Role
    content: str = ""
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    weight: float | None = None
    reasoning: str | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """A dialogue, the tools that were on offer in it, and what is known about it.

    metadata: free keys; dialoop itself reads `id`, `language`, `intent`, `scenario`, `template`,
    `customer` and `source`.
    """

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def history(self) -> Conversation:
        """The conversation before its last assistant turn: what a model is asked to answer."""
        last = self.answer_index
        return self if last is None else replace(self, messages=self.messages[:last])

    @property
    def answer(self) -> str:
        """The text of the last assistant turn, or "" where the conversation has none."""
        last = self.answer_index
        return "" if last is None else self.messages[last].content

    @property
    def answer_index(self) -> int | None:
        """The position of the last assistant turn."""
        for i in range(len(self.messages) - 1, -1, -1):
            if self.messages[i].role == "assistant":
                return i
        return None


@dataclass(frozen=True, slots=True)
class Preference:
    """One history and two answers, the first preferred."""

    history: Conversation
    chosen: Message
    rejected: Message

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What is known about it."""
        return self.history.metadata

    @property
    def conversation(self) -> Conversation:
        """The history with the chosen answer: the supervised example inside a preference."""
        return replace(self.history, messages=(*self.history.messages, self.chosen))

    @property
    def other(self) -> Conversation:
        """The history with the rejected answer."""
        return replace(self.history, messages=(*self.history.messages, self.rejected))


@dataclass(frozen=True, slots=True)
class ModelRef:
    """Where a model lies: a Hugging Face directory and, on top of it, perhaps a PEFT directory."""

    name: str
    base: Path
    adapter: Path | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """Plain text to pre-train on."""

    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn, in this order (OpenAI's and vLLM's names).

    logit_bias: (token id, added to its logit).  repetition_penalty: logits of tokens in the prompt or the
    answer are divided by it where positive, else multiplied (Keskar et al. 2019, arXiv:1909.05858).
    presence_penalty, frequency_penalty: taken off once, and once for each time the token stands in the
    answer.  temperature: 0 = argmax, and nothing below counts.  top_k: 0 = all.  top_p: nucleus of Holtzman
    et al. 2020, arXiv:1904.09751.  min_p: share of the best token's probability, Nguyen et al. 2024,
    arXiv:2407.01082.  typical_p: Meister et al. 2022, arXiv:2202.00666.  Each filter sees what the one
    before it left, renormalised.

    max_tokens: None = to the end of the context; 0 = the prompt alone is read.  min_tokens: nothing ends the
    answer before.
    grammar: tokens that break it are not drawn, whatever else is asked for.
    bad_words: texts whose tokens are never completed.  allowed_token_ids: no others are drawn, () = all may.
    ignore_eos: the model's own stop tokens end nothing.  include_stop: a stop string that ends the answer is
    its last text.  token_ids: deltas tell theirs.  logprobs: None = not told, k = told with the k best
    tokens beside each.  processed_logprobs: of the distribution drawn from, not of the model's own.

    best_of: answers made, of which the `n` with the highest log-probability per token are given, best first,
    once all have ended; None or no more than `n` = all that are made.
    prompt_logprobs: None = not told, k = each token of the prompt and the k best in its place, by the model's
    own distribution.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    n: int = 1
    top_k: int = 0
    min_p: float = 0.0
    typical_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    min_tokens: int = 0
    ignore_eos: bool = False
    logprobs: int | None = None
    processed_logprobs: bool = False
    grammar: Grammar | None = None
    best_of: int | None = None
    prompt_logprobs: int | None = None
    bad_words: tuple[str, ...] = ()
    allowed_token_ids: tuple[int, ...] = ()
    include_stop: bool = False
    token_ids: bool = False

    @property
    def made(self) -> int:
        """Answers that are made."""
        return max(self.n, self.best_of or 0)


@dataclass(frozen=True, slots=True)
class Prompting:
    """How a history becomes a prompt.

    variables: further ones of the chat template (vLLM's chat_template_kwargs).  wishes: the same, given to
    templates that read them and not to others.  answering: the prompt opens an answer.
    continued: the last message, the assistant's, goes on where it ends.  documents: for templates that show
    them.
    """

    variables: Mapping[str, Any] = field(default_factory=dict)
    wishes: Mapping[str, Any] = field(default_factory=dict)
    answering: bool = True
    continued: bool = False
    documents: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """P(answer | history): the model's name, the history, and how to draw from it.

    prediction: what the answer may look like; it changes the speed and nothing else.
    priority: lower goes first.
    """

    model: str
    conversation: Conversation
    sampling: Sampling = Sampling()
    choice: ToolChoice = ToolChoice()
    prompting: Prompting = Prompting()
    prediction: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True)
class CompleteRequest:
    """How a text, or token ids, go on: no dialogue, no template."""

    model: str
    prompt: str | tuple[int, ...]
    sampling: Sampling = Sampling()
    prediction: str = ""
    priority: int = 0


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
class Served:
    """A model that an engine serves: its name, when it was made (Unix seconds), its context in tokens.

    context: 0 = not known, as of an upstream that does not tell.
    kind: decoders answer and embed, encoders embed only.
    """

    name: str
    created: int
    context: int
    owner: str = "dialoop"
    kind: Literal["decoder", "encoder"] = "decoder"


@runtime_checkable
class Chat(Protocol):
    """Answers a history. Errors about the request are raised before the first delta."""

    def chat(self, request: ChatRequest) -> AsyncIterator[Delta]: ...


@runtime_checkable
class Catalogue(Protocol):
    """Knows the models that it serves."""

    def models(self) -> tuple[Served, ...]: ...


Condition = Literal["ok", "starting", "failed"]


@runtime_checkable
class Health(Protocol):
    """Tells whether it can answer now; `failed` mends only from outside. An engine without it always can."""

    def health(self) -> Condition: ...


@runtime_checkable
class Engine(Chat, Catalogue, Protocol):
    """What the HTTP server and the terminal chat need; `aclose` frees threads and memory."""

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Occupancy:
    """What the model under `model`, and those that share it in memory, is busy with.

    running, waiting: answers.  cache_used: share of its blocks of keys and values that are held.
    cache_queries, cache_hits: tokens of prompts looked up there and found, since it was loaded.
    preemptions: answers that had to give their blocks up, since it was loaded.
    """

    model: str
    running: int = 0
    waiting: int = 0
    cache_used: float = 0.0
    cache_queries: int = 0
    cache_hits: int = 0
    preemptions: int = 0


@runtime_checkable
class Occupied(Protocol):
    """Tells how busy its models are."""

    async def occupancy(self) -> tuple[Occupancy, ...]: ...


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


@runtime_checkable
class Score(Protocol):
    """Tells how probable answers are; the history is read once for all of them."""

    async def score(
        self, model: str, history: Conversation, answers: Sequence[str]
    ) -> tuple[Scored, ...]: ...


@dataclass(frozen=True, slots=True)
class Embedded:
    """vectors: one a text, in order.  prompt_tokens: read for all of them."""

    vectors: tuple[tuple[float, ...], ...]
    prompt_tokens: int


@runtime_checkable
class Embed(Protocol):
    """Turns texts, or their token ids, into vectors.

    normalize: to length 1.  dimensions: of a vector, None = all; RequestError where the model was not trained
    to have its vectors cut.  A text beyond the model's context is refused, never cut off.
    """

    async def embed(
        self,
        model: str,
        texts: Sequence[str | Sequence[int]],
        *,
        normalize: bool = True,
        dimensions: int | None = None,
    ) -> Embedded: ...


@runtime_checkable
class Complete(Protocol):
    """Goes on with a text. Raises and tells as `Chat` does."""

    def complete(self, request: CompleteRequest) -> AsyncIterator[Delta]: ...


@dataclass(frozen=True, slots=True)
class Tokenized:
    """pieces: what each token is written as in the vocabulary.  context: tokens that the model holds."""

    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    context: int


@runtime_checkable
class Tokenize(Protocol):
    """Text or a chat's prompt -> token ids, and back.

    framed: with the tokens that the tokenizer puts around every text; a chat's template writes its own.
    """

    async def tokenize(self, model: str, text: str | ChatRequest, *, framed: bool = True) -> Tokenized: ...

    async def detokenize(self, model: str, ids: Sequence[int]) -> str: ...


@runtime_checkable
class Load(Protocol):
    """Takes adapters of its models in and lets them go while it serves.

    One version of an adapter answers a whole request: the one that was loaded when the request came.
    pinned: it never leaves memory.
    """

    async def load(self, ref: ModelRef, *, pinned: bool = False) -> Served: ...

    async def unload(self, name: str) -> None: ...


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
    calls: dict[int, ToolCall] = {}
    for piece in (piece for delta in deltas for piece in delta.calls):
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
