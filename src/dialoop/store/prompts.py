"""Prompt templates: numbered versions beside those that are shipped, one of each name promoted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from importlib.resources import files
from typing import Any

import sqlalchemy as sa

from dialoop.config.prompts import PromptSettings, parse_prompt
from dialoop.errors import StoreError, echo, nearest
from dialoop.store.database import writing
from dialoop.store.identity import new_id, now_micros
from dialoop.store.models import split_name
from dialoop.store.records import as_json
from dialoop.store.tables_prompts import prompt_versions

T = prompt_versions.c


@dataclass(frozen=True, slots=True)
class PromptVersion:
    """One prompt template.

    version: 0 = shipped with dialoop.  source: the text of its file.  hash: of what it says and asks for.
    parent: name@version that it was made from.  evidence: why it is better, as whoever made it measured.
    created, promoted: UTC microseconds; the name alone means the version that was promoted last, or the
    newest that was written by hand.
    """

    id: str
    name: str
    version: int
    hash: str
    source: str
    parent: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    created: int = 0
    promoted: int | None = None

    @property
    def ref(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    @property
    def settings(self) -> PromptSettings:
        """What its file says."""
        return _parsed(self.source, self.ref)


@dataclass(frozen=True, slots=True)
class Prompts:
    """The prompt templates of one project."""

    engine: sa.Engine
    project: str

    def add(
        self, source: str, *, parent: str | None = None, evidence: Mapping[str, Any] | None = None
    ) -> PromptVersion:
        """The text of a template's file as the next version of its name; a version that says the same is it.

        Raises ConfigError for what is no template, StoreError.
        """
        settings = parse_prompt(source, "the prompt template")
        made = PromptVersion(
            "", settings.name, 0, settings.hash, source, parent, as_json(evidence, "evidence")
        )
        with writing(self.engine).begin() as connection:
            known = self._versions(connection, made.name)
            same = next((each for each in known if each.hash == made.hash), None)
            return same or self._insert(connection, made)

    def _insert(self, connection: sa.Connection, draft: PromptVersion) -> PromptVersion:
        known = self._versions(connection, draft.name)
        number = max((each.version for each in known), default=0) + 1
        made = replace(draft, id=new_id("pmpt_"), version=number, created=now_micros())
        connection.execute(sa.insert(prompt_versions).values(project_id=self.project, **asdict(made)))
        return made

    def list(self) -> tuple[PromptVersion, ...]:
        """All versions by name, the newest first; those of the same name that are shipped last."""
        with self.engine.connect() as connection:
            mine = self._versions(connection, None)
        return tuple(sorted([*mine, *shipped().values()], key=lambda each: (each.name, -each.version)))

    def get(self, ref: str) -> PromptVersion:
        """`name@2`, the id of a version, or of `name` the one that counts. Raises StoreError.

        One that a search has found, with its evidence, counts once it is promoted.
        """
        found: tuple[PromptVersion, ...]
        with self.engine.connect() as connection:
            if ref.startswith("pmpt_") and "@" not in ref:
                row = connection.execute(self._mine().where(T.id == ref)).one_or_none()
                found = () if row is None else (_version(row),)
            else:
                name, number = split_name(ref)
                found = self._versions(connection, name)
                found = tuple(each for each in found if number in (None, each.version))
        if not found:
            raise StoreError(
                f"no prompt {echo(ref)} here{nearest(ref, self._known(ref))}: see dialoop prompts list"
            )
        return max(found, key=lambda each: (each.promoted or 0, not each.evidence, each.version))

    def promote(self, ref: str) -> PromptVersion:
        """From now on the name means this version, which an older one may take back. Raises StoreError.

        Of a shipped one, which may be another after an upgrade, a copy is promoted.
        """
        found = self.get(ref)
        promoted = max(now_micros(), *(1 + (each.promoted or 0) for each in self.list()))
        with writing(self.engine).begin() as connection:
            if found.version == 0:
                found = self._insert(connection, replace(found, parent=found.ref))
            connection.execute(sa.update(prompt_versions).where(T.id == found.id).values(promoted=promoted))
        return replace(found, promoted=promoted)

    def _known(self, ref: str) -> set[str]:
        """Names; versions too where `ref` asks for one of a known name."""
        plain = ref.partition("@")[0]
        refs = {each.ref for each in self.list() if each.name == plain and "@" in ref}
        return {each.name for each in self.list()} | refs

    def _versions(self, connection: sa.Connection, name: str | None) -> tuple[PromptVersion, ...]:
        """Of a name, the shipped one included; None = all that are not shipped."""
        query = self._mine() if name is None else self._mine().where(T.name == name)
        found = tuple(_version(row) for row in connection.execute(query))
        same = None if name is None else shipped().get(name)
        return found if same is None else (*found, same)

    def _mine(self) -> sa.Select[Any]:
        return sa.select(prompt_versions).where(T.project_id == self.project)


@lru_cache(maxsize=1)
def shipped() -> Mapping[str, PromptVersion]:
    """The templates that travel inside the package, by name."""
    folder = files("dialoop.assets").joinpath("prompts")
    texts = [each.read_text(encoding="utf-8") for each in folder.iterdir() if each.name.endswith(".toml")]
    found = [(_parsed(text, "a shipped prompt"), text) for text in texts]
    return {s.name: PromptVersion(f"shipped_{s.name}", s.name, 0, s.hash, text) for s, text in found}


@lru_cache(maxsize=256)
def _parsed(source: str, where: str) -> PromptSettings:
    return parse_prompt(source, where)


def _version(row: sa.Row[Any]) -> PromptVersion:
    return PromptVersion(**{name: row._mapping[name] for name in PromptVersion.__slots__})
