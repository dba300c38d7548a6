"""Requests that name a prompt: it is looked up, filled, and put around what they ask."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from dialoop.chat.prompt import Prompt
from dialoop.data.language import detect
from dialoop.errors import RequestError, StoreError, UnknownRecordError, UnsupportedError, echo
from dialoop.prompting.selection import Pool, Vector, asked_text
from dialoop.serve.errors import HttpError
from dialoop.serve.fields import PromptReference
from dialoop.serve.metrics import Metrics
from dialoop.serve.typed_body import parsed
from dialoop.store.prompts import PromptVersion, shipped
from dialoop.store.registry import Store
from dialoop.types import Conversation, Embed, Tokenize

D = TypeVar("D")
_LENGTHS = ("max_completion_tokens", "max_tokens")
POOLS = 64
"""Prompts whose examples are kept ready to be chosen from."""


@dataclass(frozen=True)
class Ready:
    """Examples to choose from for one prompt and model. sizes: tokens of each, where they are bounded."""

    pool: Pool
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Prompted:
    """A prompt that a request names, with the values that it gives.

    project: whose prompt it is.  model: that must answer, None = any.  language: of its words.
    ready: examples to choose from, None = all are shown.  vector: the question's, where the choice needs it.
    """

    version: PromptVersion
    prompt: Prompt
    asked: PromptReference
    model: str | None = None
    language: str | None = None
    ready: Ready | None = None
    vector: Vector | None = field(default=None, compare=False)
    project: str = ""

    def ask(self, history: Conversation) -> Conversation:
        """What the model is asked. Raises RequestError, RenderError."""
        examples = None if self.ready is None else self._chosen(self.ready, history)
        asked = self.prompt.ask(history, self.asked.variables, language=self.language, examples=examples)
        if not asked.messages:
            raise RequestError("messages: the prompt and the request say nothing: send one", param="messages")
        return asked

    def _chosen(self, ready: Ready, history: Conversation) -> tuple[Conversation, ...]:
        settings, places = (
            self.prompt.settings.few_shot,
            {id(e): i for i, e in enumerate(ready.pool.examples)},
        )
        bound = settings.max_tokens

        def fits(examples: Sequence[Conversation]) -> bool:
            return bound is None or sum(ready.sizes[places[id(each)]] for each in examples) <= bound

        return ready.pool.chosen(settings, history, self.vector, fits)

    @property
    def told(self) -> dict[str, Any]:
        """The reference, with the version that it came to."""
        given = self.asked.model_dump(exclude_none=True)
        return {**given, "id": self.version.name, "version": str(self.version.version)}

    def chat(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The body of a chat, with what the prompt says where the request does not."""
        drawn = self.prompt.settings.parameters
        length = None if any(body.get(name) is not None for name in _LENGTHS) else drawn.max_tokens
        return self._filled(
            body, messages=[], max_completion_tokens=length, temperature=drawn.temperature, top_p=drawn.top_p,
            stop=list(drawn.stop) or None, seed=drawn.seed,
        )  # fmt: skip

    def response(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The same of a response; what responses have no field for comes with the chat that it becomes."""
        drawn = self.prompt.settings.parameters
        return self._filled(
            body,
            input="",
            max_output_tokens=drawn.max_tokens,
            temperature=drawn.temperature,
            top_p=drawn.top_p,
        )

    def _filled(self, body: Mapping[str, Any], **defaults: Any) -> dict[str, Any]:
        given = {name: value for name, value in body.items() if value is not None}
        usual = {name: value for name, value in defaults.items() if value is not None}
        model = self.model or given.get("model") or self.prompt.settings.model
        return {**usual, **given, "prompt": self.told} | ({} if model is None else {"model": model})


class PromptShelf:
    """Prompts of any project by name. store: None = there are only the shipped ones.

    engine: what embeds and counts tokens, where examples are chosen by the question.  metrics: count answers
    by prompt.
    """

    def __init__(self, store: Store | None, engine: object, metrics: Metrics) -> None:
        self._store, self._engine, self._metrics = store, engine, metrics
        self._ready: OrderedDict[tuple[str, str, str], Ready] = OrderedDict()

    async def named(self, project: str, body: Mapping[str, Any]) -> Prompted | None:
        """The prompt that a body names, None where it names none.

        Raises RequestError for what is no reference, HttpError(400) where there is no such prompt.
        """
        given = body.get("prompt")
        if given is None:
            return None
        if not isinstance(given, Mapping):
            raise RequestError(
                f"prompt = {echo(given)}: expected an object such as {{id, version, variables}}",
                param="prompt",
            )
        asked, said = _reference(given), _said(body)
        try:
            found = await asyncio.to_thread(self._found, project, asked, body.get("model"))
        except StoreError as error:
            raise HttpError(400, str(error), param="prompt", code="prompt_not_found") from None
        texts = said or [each for each in asked.variables.values() if isinstance(each, str)]
        language = asked.language or detect("\n".join(texts))
        found = replace(found, language=found.prompt.language_for(language), project=project)
        if found.prompt.settings.few_shot.select == "all":
            return found
        model = str(found.model or body.get("model") or found.prompt.settings.model)
        return await self._with_examples(found, model, texts[-1] if texts else "")

    async def counted(
        self, found: Prompted | None, model: str, deltas: AsyncGenerator[D, None]
    ) -> AsyncGenerator[D, None]:
        """The deltas of an answer, which is counted as the prompt's with the first of them."""
        counts = found is not None
        async with aclosing(deltas):
            async for delta in deltas:
                if found is not None and counts:
                    self._metrics.prompted(found.project, found.version.name, found.version.version, model)
                    counts = False
                yield delta

    async def _with_examples(self, found: Prompted, model: str, question: str) -> Prompted:
        """The prompt, ready to choose examples for the question. Raises what the engine refuses."""
        settings = found.prompt.settings.few_shot
        key = (found.version.hash, str(found.language), model if settings.needs_vectors else "")
        if (ready := self._ready.get(key)) is None:
            ready = await self._made_ready(found, model)
            self._ready[key] = ready
            while len(self._ready) > POOLS:
                self._ready.popitem(last=False)
        self._ready.move_to_end(key)
        vector = (await self._vectors(model, [question]))[0] if settings.needs_vectors else None
        return replace(found, ready=ready, vector=vector)

    async def _made_ready(self, found: Prompted, model: str) -> Ready:
        settings, examples = found.prompt.settings.few_shot, found.prompt.examples(found.language)
        texts = [asked_text(example.history) for example in examples]
        vectors = await self._vectors(model, texts) if settings.needs_vectors and texts else None
        sizes = () if settings.max_tokens is None else await self._sizes(found, model, examples)
        return Ready(Pool(examples, vectors), sizes)

    async def _vectors(self, model: str, texts: Sequence[str]) -> Vector:
        if not isinstance(self._engine, Embed):
            raise UnsupportedError(
                "this engine does not embed, and the prompt compares vectors", param="prompt"
            )
        told = await self._engine.embed(model, [text or " " for text in texts])
        return np.array(told.vectors, dtype=np.float32)

    async def _sizes(self, found: Prompted, model: str, examples: Sequence[Conversation]) -> tuple[int, ...]:
        """Tokens of each example in the prompt's words."""
        engine = self._engine
        if not isinstance(engine, Tokenize):
            raise UnsupportedError("this engine tells no tokens, and the prompt bounds them", param="prompt")
        sizes = []
        for example in examples:
            turns = found.prompt.shown(example, found.asked.variables, found.language)
            text = "\n".join(turn.content for turn in turns)
            sizes.append(len((await engine.tokenize(model, text, framed=False)).ids))
        return tuple(sizes)

    def _found(self, project: str, asked: PromptReference, model: Any) -> Prompted:
        ref = asked.id if asked.version is None else f"{asked.id}@{asked.version}"
        if self._store is None:
            if ref.removesuffix("@0") not in shipped():
                raise UnknownRecordError("prompt", ref)
            version = shipped()[ref.removesuffix("@0")]
            return Prompted(version, Prompt(version.settings), asked)
        store = self._store.of(project)
        version = store.prompts.get(ref)
        settings = version.settings
        soft = None if settings.soft is None else store.models.get(settings.soft)
        if soft is not None and model not in (None, settings.soft, soft.name, soft.ref, soft.base):
            raise RequestError(
                f"model = {echo(model)}, and prompt {version.ref} opens {soft.ref} on {echo(soft.base)}: "
                f"leave model out",
                param="model",
            )
        return Prompted(version, Prompt(settings), asked, settings.soft)


def _said(body: Mapping[str, Any]) -> list[str]:
    """What the users of a body say, as far as it is well formed: who reads the body tells the rest."""
    given = body.get("messages", body.get("input"))
    if isinstance(given, str):
        return [given]
    found = []
    for turn in given if isinstance(given, list) else ():
        if isinstance(turn, Mapping) and turn.get("role") == "user":
            content = turn.get("content")
            parts = content if isinstance(content, list) else [{"text": content}]
            texts = [part.get("text") for part in parts if isinstance(part, Mapping)]
            found.append("\n".join(text for text in texts if isinstance(text, str)))
    return found


def _reference(given: Mapping[str, Any]) -> PromptReference:
    try:
        return parsed(PromptReference, given)
    except RequestError as error:
        param = f"prompt.{error.param}" if error.param else "prompt"
        raise RequestError(f"prompt: {error}", param=param[:64]) from None
