"""Requests that name a prompt: it is looked up, filled, and put around what they ask."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dialoop.chat.prompt import Prompt
from dialoop.data.language import spoken
from dialoop.errors import RequestError, StoreError, UnknownRecordError, echo
from dialoop.serve.errors import HttpError
from dialoop.serve.fields import PromptReference
from dialoop.serve.typed_body import parsed
from dialoop.store.prompts import PromptVersion, shipped
from dialoop.store.registry import Store
from dialoop.types import Conversation

_LENGTHS = ("max_completion_tokens", "max_tokens")


@dataclass(frozen=True, slots=True)
class Prompted:
    """A prompt that a request names, with the values that it gives. model: that must answer, None = any."""

    version: PromptVersion
    prompt: Prompt
    asked: PromptReference
    model: str | None = None

    def ask(self, history: Conversation) -> Conversation:
        """What the model is asked. Raises RequestError, RenderError."""
        values = self.asked.variables
        language = self.asked.language or spoken(history, values)
        asked = self.prompt.ask(history, values, language=language)
        if not asked.messages:
            raise RequestError("messages: the prompt and the request say nothing: send one", param="messages")
        return asked

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
    """Prompts of any project by name. store: None = there are only the shipped ones."""

    def __init__(self, store: Store | None) -> None:
        self._store = store

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
        asked = _reference(given)
        try:
            return await asyncio.to_thread(self._found, project, asked, body.get("model"))
        except StoreError as error:
            raise HttpError(400, str(error), param="prompt", code="prompt_not_found") from None

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


def _reference(given: Mapping[str, Any]) -> PromptReference:
    try:
        return parsed(PromptReference, given)
    except RequestError as error:
        param = f"prompt.{error.param}" if error.param else "prompt"
        raise RequestError(f"prompt: {error}", param=param[:64]) from None
