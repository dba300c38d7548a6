"""Models, and the protocols of what serves them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from dialoop.types.answers import Classification, Delta, Embedded, Scored, Tokenized
from dialoop.types.asking import ChatRequest, CompleteRequest
from dialoop.types.dialogue import Conversation

Classifiable = str | Sequence[int] | Sequence[str]
"""A text, its token ids, or its words."""
Precision = Literal["float32", "half", "int8"]
"""Of a model's weights when it answers: as they are; 16 bits, as bf16 files hold; 8 bits, a scale a row."""


@dataclass(frozen=True, slots=True)
class ModelRef:
    """Where a model lies: a Hugging Face directory and, on top of it, perhaps a PEFT directory."""

    name: str
    base: Path
    adapter: Path | None = None


ServedKind = Literal["decoder", "encoder", "classifier", "scorer", "tagger"]


@dataclass(frozen=True, slots=True)
class Served:
    """A model that an engine serves: its name, when it was made (Unix seconds), its context in tokens.

    context: 0 = not known, as of an upstream that does not tell.
    kind: decoders answer and embed, encoders embed only, classifiers classify only, scorers score only,
    taggers tag words only.
    """

    name: str
    created: int
    context: int
    owner: str = "dialoop"
    kind: ServedKind = "decoder"


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


@runtime_checkable
class Score(Protocol):
    """Tells how probable answers are; the history is read once for all of them.

    A scorer tells of each answer the log-probability that it fits, as if it were of one token.
    """

    async def score(
        self, model: str, history: Conversation, answers: Sequence[str]
    ) -> tuple[Scored, ...]: ...


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


@runtime_checkable
class Classify(Protocol):
    """Tells the classes of texts, or of their token ids; a tagger, the tags of the words of texts, or of
    words that are given one by one. A text beyond the context is refused.
    """

    async def classify(self, model: str, texts: Sequence[Classifiable]) -> Classification: ...
