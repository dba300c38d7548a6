"""The names that an engine serves, and what each of them means now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count

from dialoop.engine.loaded import Loaded, LoadedEncoder, LoadedModel
from dialoop.engine.shelf import shelve
from dialoop.engine.worker import Change
from dialoop.errors import ModelError, RequestError, UnknownModelError, UnsupportedError, echo
from dialoop.models.adapters import Adapters
from dialoop.types import ModelRef, Served


class Roster:
    """Names come and go with their adapters; whole models stay. Belongs to the engine's event loop.

    adapters: beside each model, by its id.  submit: a change to the model's lane.  memory: as in `Shelf`.
    """

    def __init__(
        self,
        models: Mapping[str, Loaded],
        adapters: Mapping[int, Adapters],
        submit: Callable[[int, Change], None],
        memory: int,
    ) -> None:
        self._models = dict(models)
        self._adapters = adapters
        self._submit = submit
        self._memory = memory
        self._versions = count(1)
        self._hosts = {
            loaded.folder.resolve(): replace(loaded, adapter="")
            for loaded in models.values()
            if isinstance(loaded, LoadedModel) and not loaded.merged
        }

    def served(self) -> tuple[Served, ...]:
        """The models, by name."""
        return tuple(self._models[name].served for name in sorted(self._models))

    def loaded(self, name: str) -> Loaded:
        """Raises UnknownModelError."""
        if name not in self._models:
            raise UnknownModelError(name, self._models)
        return self._models[name]

    def decoder(self, name: str) -> LoadedModel:
        """Raises UnknownModelError, and UnsupportedError for an encoder."""
        loaded = self.loaded(name)
        if isinstance(loaded, LoadedEncoder):
            raise UnsupportedError(
                f"model {echo(name)} is an encoder, which embeds and answers nothing: ask another model",
                param="model",
            )
        return loaded

    def adapter(self, name: str, before: Loaded) -> str:
        """The key of the adapter that `name` means now, "" for none.

        before: what it meant when the request came. Raises UnknownModelError where it means that no longer,
        unless by another version of an adapter.
        """
        loaded = self.loaded(name)
        if loaded.model is not before.model:
            raise UnknownModelError(name, self._models)
        return loaded.adapter if isinstance(loaded, LoadedModel) else ""

    async def load(self, ref: ModelRef, *, pinned: bool = False) -> Served:
        """Serve an adapter of a served base under `ref.name`, or a new version of it.

        Requests that came before are answered to their end by the version that they came to.
        Raises ModelError where the adapter does not fit or is more than a plain LoRA, RequestError where the
        name is a whole model's.
        """
        self._replaceable(ref.name)
        host = self._hosts.get(ref.base.resolve())
        if host is None or ref.adapter is None:
            raise ModelError(
                f"{ref.adapter or ref.base}: is no adapter of a base that is served here, and only such "
                f"can be loaded while serving: serve its base under a name of its own"
            )
        key, adapters = f"{ref.name}/{next(self._versions)}", self._adapters[id(host.model)]
        shelved, lora = await asyncio.to_thread(
            shelve, key, ref.adapter, adapters, pinned=pinned, memory=self._memory
        )
        before = self._replaceable(ref.name)
        self._submit(id(host.model), lambda lane: lane.shelve(shelved, lora))
        served = replace(host.served, name=ref.name, created=int(time.time()))
        self._models[ref.name] = replace(host, served=served, adapter=key)
        self._retire(before)
        return served

    def unload(self, name: str) -> None:
        """Serve an adapter no longer; requests that came before are answered to their end.

        Raises UnknownModelError, and RequestError where the name is a whole model's.
        """
        self.loaded(name)
        before = self._replaceable(name)
        del self._models[name]
        self._retire(before)

    def _replaceable(self, name: str) -> LoadedModel | None:
        """The adapter of that name, None where there is none. Raises RequestError for a whole model."""
        loaded = self._models.get(name)
        if loaded is None or (isinstance(loaded, LoadedModel) and loaded.adapter):
            return loaded
        raise RequestError(
            f"model {echo(name)} is a whole model, which stays as long as the server: name an adapter",
            param="model",
        )

    def _retire(self, loaded: LoadedModel | None) -> None:
        if loaded is not None:
            self._submit(id(loaded.model), lambda lane: lane.retire(loaded.adapter))
