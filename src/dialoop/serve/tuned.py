"""Fine-tuned models as their project sees them, and as if they did not exist for every other."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, cast

from dialoop.errors import RequestError, UnknownModelError, echo
from dialoop.serve.caller import acting_project
from dialoop.store.models import ModelVersion
from dialoop.store.registry import Store
from dialoop.types import (
    ChatRequest,
    Classifiable,
    Classification,
    Classify,
    Complete,
    CompleteRequest,
    Condition,
    Conversation,
    Delta,
    Embed,
    Embedded,
    Engine,
    Health,
    Load,
    ModelRef,
    Occupancy,
    Occupied,
    Score,
    Scored,
    Served,
    ServedKind,
    Tokenize,
    Tokenized,
)

HEADS: Mapping[str, ServedKind] = {"classify": "classifier", "pair": "scorer", "tag": "tagger"}
"""What a version with a head is served as, by its kind."""


class Guests(Engine, Complete, Tokenize, Score, Embed, Classify, Load, Health, Occupied, Protocol):
    """An engine that models join while it serves, such as `dialoop.engine.pool.Pool`."""

    def offer(self, served: Served, find: Callable[[], ModelRef]) -> None: ...

    def withdraw(self, name: str) -> None: ...


class TunedModels:
    """An engine around one that takes guests: the fine-tuned models of the store whose base is served.

    bases: the models that were served from the start, by name.
    """

    def __init__(self, engine: Guests, store: Store, bases: Mapping[str, ModelRef]) -> None:
        self._engine, self._store = engine, store
        self._bases = {ref.adapter or ref.base: name for name, ref in bases.items()}
        self._open = frozenset(bases)
        self._owners: dict[str, str] = {}
        for project in store.projects.names():
            for version in store.of(project).models.list():
                if version.alias is not None:
                    self.offer(project, version)

    def offer(self, project: str, version: ModelVersion) -> None:
        """Serve a version under its alias, to its project, if its base is served. From any thread."""
        assert version.alias is not None
        models = self._store.of(project).models
        origin = None if version.alias in self._open else self._origin(project, version)
        if origin is None:
            return
        alias = version.alias

        def find() -> ModelRef:
            return replace(models.resolve(alias), name=alias)

        self._owners[alias] = project
        self._engine.offer(
            replace(
                origin,
                name=alias,
                kind=HEADS.get(version.kind, origin.kind),
                created=version.created // 1_000_000,
                owner=self._store.projects.names()[project],
            ),
            find,
        )

    def _origin(self, project: str, version: ModelVersion) -> Served | None:
        """The served model that it was made from, perhaps by way of others; None where none is."""
        served = {each.name: each for each in self._engine.models()}
        models = self._store.of(project).models
        for below in models.lineage(version.ref)[1:]:
            name = self._bases.get(models.folder_of(below))
            if name in served:
                return served[name]
        return None

    def withdraw(self, name: str) -> None:
        """Serve it no longer. From any thread."""
        self._engine.withdraw(name)
        self._owners.pop(name, None)

    def models(self) -> tuple[Served, ...]:
        """Those that the caller may know of."""
        project = acting_project()
        return tuple(
            each for each in self._engine.models() if self._owners.get(each.name, project) == project
        )

    def _check(self, name: str) -> None:
        """Refuses before the engine inside can, which would list what it has for all projects."""
        if name in self._open or (name in self._owners and self._owners[name] == acting_project()):
            return
        known = [each.name for each in self.models()]
        if name not in known:
            raise UnknownModelError(name, known)

    def _check_free(self, name: str) -> None:
        if name in self._owners:
            raise RequestError(
                f"{echo(name)} is a fine-tuned model, which stays until it is deleted: choose another "
                f"name, or delete the model",
                param="lora_name",
            )

    def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """As the engine inside. Raises UnknownModelError for another project's model too."""
        self._check(request.model)
        return cast(AsyncGenerator[Delta, None], self._engine.chat(request))

    def complete(self, request: CompleteRequest) -> AsyncGenerator[Delta, None]:
        """As `chat`."""
        self._check(request.model)
        return cast(AsyncGenerator[Delta, None], self._engine.complete(request))

    async def tokenize(self, model: str, text: str | ChatRequest, *, framed: bool = True) -> Tokenized:
        """As `chat`."""
        self._check(model)
        return await self._engine.tokenize(model, text, framed=framed)

    async def detokenize(self, model: str, ids: Sequence[int]) -> str:
        """As `chat`."""
        self._check(model)
        return await self._engine.detokenize(model, ids)

    async def score(self, model: str, history: Conversation, answers: Sequence[str]) -> tuple[Scored, ...]:
        """As `chat`."""
        self._check(model)
        return await self._engine.score(model, history, answers)

    async def embed(
        self,
        model: str,
        texts: Sequence[str | Sequence[int]],
        *,
        normalize: bool = True,
        dimensions: int | None = None,
    ) -> Embedded:
        """As `chat`."""
        self._check(model)
        return await self._engine.embed(model, texts, normalize=normalize, dimensions=dimensions)

    async def classify(self, model: str, texts: Sequence[Classifiable]) -> Classification:
        """As `chat`."""
        self._check(model)
        return await self._engine.classify(model, texts)

    async def load(self, ref: ModelRef, *, pinned: bool = False) -> Served:
        """As the engine inside. Raises RequestError for the name of a fine-tuned model."""
        self._check_free(ref.name)
        return await self._engine.load(ref, pinned=pinned)

    async def unload(self, name: str) -> None:
        """As `load`."""
        self._check(name)
        self._check_free(name)
        await self._engine.unload(name)

    async def occupancy(self) -> tuple[Occupancy, ...]:
        """Of the engine inside."""
        return await self._engine.occupancy()

    def health(self) -> Condition:
        """Of the engine inside."""
        return self._engine.health()

    async def aclose(self) -> None:
        """End the engine inside."""
        await self._engine.aclose()
