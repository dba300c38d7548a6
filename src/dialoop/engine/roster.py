"""The names that an engine serves, and what each of them means now; needs no torch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count

from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.engine.reader import Reader
from dialoop.engine.wire import Opened
from dialoop.errors import ModelError, RequestError, UnknownModelError, UnsupportedError, echo
from dialoop.types import ModelRef, Served


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What the front has of a decoder, or of an adapter beside one."""

    opened: Opened
    tokenizer: ChatTokenizer


@dataclass(frozen=True, slots=True, eq=False)
class KnownEncoder:
    """What the front has of an encoder."""

    opened: Opened
    reader: Reader


@dataclass(frozen=True, slots=True, eq=False)
class KnownHead:
    """What the front has of a model with a head. labels: its classes, in the model's order."""

    opened: Opened
    reader: Reader
    labels: tuple[str, ...]


AnyKnown = Known | KnownEncoder | KnownHead
ONLY = {
    "encoder": "an encoder, which embeds and answers nothing",
    "classifier": "a classifier, which tells classes and answers nothing",
    "scorer": "a scorer, which tells how well answers fit and gives none",
    "tagger": "a tagger, which tells the tags of words and answers nothing",
}
"""By the kind of a model that does not answer."""


class Roster:
    """Names come and go with their adapters; whole models stay. Belongs to the engine's event loop."""

    def __init__(self, models: Mapping[str, AnyKnown]) -> None:
        self._models = dict(models)
        self._versions = count(1)
        self._hosts = {
            known.opened.folder.resolve(): known
            for known in models.values()
            if isinstance(known, Known) and not known.opened.merged
        }

    def served(self) -> tuple[Served, ...]:
        """The models, by name."""
        return tuple(self._models[name].opened.served for name in sorted(self._models))

    def known(self, name: str) -> AnyKnown:
        """Raises UnknownModelError."""
        if name not in self._models:
            raise UnknownModelError(name, self._models)
        return self._models[name]

    def decoder(self, name: str) -> Known:
        """Raises UnknownModelError, and UnsupportedError for a model that does not answer."""
        known = self.known(name)
        if isinstance(known, Known):
            return known
        raise UnsupportedError(
            f"model {echo(name)} is {ONLY[known.opened.served.kind]}: ask another model", param="model"
        )

    def head(self, name: str) -> KnownHead:
        """Raises UnknownModelError, and UnsupportedError for a model without a head."""
        known = self.known(name)
        if not isinstance(known, KnownHead):
            raise UnsupportedError(
                f"model {echo(name)} has no head that classifies: serve one that dialoop tune made from a "
                f"recipe of kind classify, or ask for a choice in a chat",
                param="model",
            )
        return known

    def now(self, name: str, before: AnyKnown) -> Opened:
        """What `name` means now, to whom it meant `before` when the request came.

        Raises UnknownModelError where it means that no longer, unless by another version of an adapter.
        """
        known = self.known(name)
        if known is not before and _base(known) is not _base(before):
            raise UnknownModelError(name, self._models)
        return known.opened

    def version(self, ref: ModelRef) -> Known:
        """An adapter of a served base, under a key that none had before; `put` makes it known.

        Raises ModelError where there is no such base, RequestError where the name is a whole model's.
        """
        self._replaceable(ref.name)
        host = self._hosts.get(ref.base.resolve())
        if host is None or ref.adapter is None:
            raise ModelError(
                f"{ref.adapter or ref.base}: is no adapter of a base that is served here, and only such "
                f"can be loaded while serving: serve its base under a name of its own"
            )
        served = replace(host.opened.served, name=ref.name, created=int(time.time()))
        key = f"{ref.name}/{next(self._versions)}"
        return replace(host, opened=replace(host.opened, served=served, adapter=key))

    def put(self, known: Known) -> Opened | None:
        """From now on its name means `known`; what it meant before."""
        name = known.opened.served.name
        before = self._models.get(name)
        self._models[name] = known
        return None if before is None else before.opened

    def remove(self, name: str) -> Opened:
        """What the name meant, which it does no longer.

        Raises UnknownModelError, and RequestError where the name is a whole model's.
        """
        self.known(name)
        self._replaceable(name)
        return self._models.pop(name).opened

    def _replaceable(self, name: str) -> None:
        """Raises RequestError for a whole model."""
        known = self._models.get(name)
        if known is not None and not known.opened.adapter:
            raise RequestError(
                f"model {echo(name)} is a whole model, which stays as long as the server: name an adapter",
                param="model",
            )


def _base(known: AnyKnown) -> object:
    """The same for all that lies on one base: what was read with its tokenizer fits."""
    return known.tokenizer if isinstance(known, Known) else known.reader
