"""Model versions: numbered, with their lineage and the sha256 of every file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from dialoop import __version__
from dialoop.errors import StoreError, echo, nearest
from dialoop.store.artefacts import (
    changed_files,
    copy_files,
    discard,
    numbered,
    publish,
    reason,
    staged,
    sweep,
)
from dialoop.store.database import writing
from dialoop.store.identity import new_id, now_micros
from dialoop.store.records import as_json
from dialoop.store.resolve import ADAPTER, Resolve, check_template, directory_ref, template_hash
from dialoop.store.shipped import SHIPPED, shipped_directory
from dialoop.store.tables import model_versions
from dialoop.types import ModelRef

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
T = model_versions.c


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One registered model.

    kind: `full`, `lora`, `pretrained`, ...  path: its directory.  base: name@version, the shipped model's
    name or a path.  files: sha256 by relative path.  created: UTC microseconds.  state: `ready` or `removed`.
    alias: a second name, such as `ft:base:org:suffix:id`, which no other version of any project has.
    """

    id: str
    name: str
    version: int
    kind: str
    path: Path
    base: str | None
    data_hash: str | None
    recipe: Mapping[str, Any]
    code_version: str
    metrics: Mapping[str, Any]
    files: Mapping[str, str]
    template_hash: str | None
    created: int
    run_id: str | None
    state: str
    alias: str | None = None

    @property
    def ref(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    @property
    def prompt(self) -> str | None:
        """`name@version` of the prompt that its training rows were put into."""
        prompt = (self.recipe.get("data") or {}).get("prompt")
        return None if prompt is None else str(prompt["name"])


@dataclass(frozen=True, slots=True)
class Models:
    """The model versions of one project. folder: of their files, below the home, its own."""

    engine: sa.Engine
    project: str
    home: Path
    folder: str = "models"

    @property
    def root(self) -> Path:
        """Where the versions' directories lie: root / name / version."""
        return self.home / self.folder

    def register(
        self,
        name: str,
        kind: str,
        files: Path,
        *,
        base: str | None = None,
        data_hash: str | None = None,
        recipe: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        alias: str | None = None,
        continues: bool = False,
        code_version: str = __version__,
    ) -> ModelVersion:
        """Copy the directory `files` into the store as the next version of `name`. Raises StoreError.

        continues: `files` is the adapter `base`, trained on; it lies on what that lies on.
        All or nothing: a failure or a kill leaves no version, and what it copied is cleared away later.
        """
        _check_name(name)
        facts = {"recipe": as_json(recipe, "recipe"), "metrics": as_json(metrics, "metrics")}
        try:
            with staged(self.root) as folder:
                hashes = copy_files(files, folder)
                canonical, below = self._below(folder, base, continues)
                draft = ModelVersion(
                    id=new_id("model"),
                    name=name,
                    version=0,
                    kind=kind,
                    path=folder,
                    base=canonical,
                    data_hash=data_hash,
                    code_version=code_version,
                    files=hashes,
                    template_hash=template_hash(folder, below),
                    created=now_micros(),
                    run_id=run_id,
                    state="ready",
                    alias=alias,
                    **facts,
                )
                return self._publish(draft)
        except (OSError, sa.exc.OperationalError) as error:
            raise StoreError(
                f"{self.root / name}: cannot be written: {reason(error)}; nothing was registered: "
                f"free space or set the permissions, then register again"
            ) from error

    def _publish(self, draft: ModelVersion) -> ModelVersion:
        final = draft
        try:
            with writing(self.engine).begin() as connection:
                version = self._next_version(connection, draft.name)
                final = replace(draft, version=version, path=self.root / draft.name / str(version))
                row = {"project_id": self.project, **self._row(final)}
                connection.execute(sa.insert(model_versions).values(**row))
                publish(draft.path, final.path)
        except BaseException as error:
            if not draft.path.exists():
                final.path.rename(draft.path)
            if isinstance(error, sa.exc.IntegrityError):
                raise StoreError(
                    f"no run {echo(draft.run_id)} in this store, or {echo(draft.alias)} names another model: "
                    f"start the run before its model, and give it an alias of its own"
                ) from error
            raise
        return final

    def _next_version(self, connection: sa.Connection, name: str) -> int:
        """One more than the highest ever given, or than the highest directory, which is never overwritten."""
        query = sa.select(sa.func.max(T.version)).where(T.project_id == self.project, T.name == name)
        given = int(connection.execute(query).scalar() or 0)
        return max([given, *numbered(self.root / name)]) + 1

    def get(self, name: str) -> ModelVersion:
        """The version `name@3` or of an alias, or the newest of `name`. Raises StoreError."""
        query = sa.select(model_versions).where(*self._mine(), self._named(name)).order_by(T.version.desc())
        with self.engine.connect() as connection:
            row = connection.execute(query.limit(1)).one_or_none()
        if row is None:
            raise StoreError(
                f"no model {echo(name)} in this store{nearest(name, self._known(name))}: "
                f"see dialoop models list"
            )
        return self._version(row)

    def list(self) -> tuple[ModelVersion, ...]:
        """All versions that were not removed, by name, then the newest first."""
        query = sa.select(model_versions).where(*self._mine()).order_by(T.name, T.version.desc())
        with self.engine.connect() as connection:
            return tuple(self._version(row) for row in connection.execute(query))

    def remove(self, name: str) -> ModelVersion:
        """Remove the version `name@3`, or of that alias, and its files; its row stays for the lineage.

        A whole model that adapters lie on stays. What was only trained on, an adapter or a whole model, has
        its own copy of everything. Raises StoreError.
        """
        if not is_alias(name) and split_name(name)[1] is None:
            raise StoreError(f"{echo(name)} names every version: name one, such as {self.get(name).ref}")
        version = self.get(name)
        with writing(self.engine).begin() as connection:
            if users := self._lying_on(connection, version):
                raise StoreError(f"{version.ref} is the base of {', '.join(users)}: remove these first")
            connection.execute(sa.update(model_versions).where(T.id == version.id).values(state="removed"))
        discard(version.path, self.root)
        return replace(version, state="removed")

    def _lying_on(self, connection: sa.Connection, version: ModelVersion) -> tuple[str, ...]:
        """The adapters that need a whole model's files, perhaps by way of removed ones."""
        users: tuple[str, ...] = ()
        below = [] if ADAPTER in version.files else [version.ref]
        while below:
            query = sa.select(model_versions).where(T.project_id == self.project, T.base.in_(below))
            rows = connection.execute(query.order_by(T.name, T.version)).all()
            adapters = [each for each in map(self._version, rows) if ADAPTER in each.files]
            users += tuple(each.ref for each in adapters if each.state != "removed")
            below = [each.ref for each in adapters]
        return users

    def tidy(self) -> None:
        """Finish what killed processes began: half-written directories, and files of removed versions."""
        sweep(self.root)
        query = sa.select(T.path).where(T.project_id == self.project, T.state == "removed")
        with self.engine.connect() as connection:
            paths = [self.home / path for path in connection.execute(query).scalars()]
        for path in paths:
            discard(path, self.root)

    def strays(self) -> tuple[Path, ...]:
        """Numbered directories that no record describes, such as a kill or a restored backup leaves; kept."""
        known = {version.path for version in self.list()}
        folders = sorted(p for p in self.root.glob("*") if not p.name.startswith("."))
        return tuple(f / str(n) for f in folders for n in numbered(f) if f / str(n) not in known)

    def lineage(self, name: str) -> tuple[ModelVersion | str, ...]:
        """The version, its base, removed or not, and so on down; what lies outside the store is a string."""
        outside = self._registered(name) is None and (name == SHIPPED or Path(name).expanduser().is_dir())
        found: list[ModelVersion | str] = [name if outside else self.get(name)]
        while isinstance(last := found[-1], ModelVersion) and last.base:
            found.append(self._recorded(last.base) or last.base)
        return tuple(found)

    def verify(self, name: str) -> tuple[str, ...]:
        """The files of a version that are missing or hold other bytes than were registered."""
        version = self.get(name)
        return tuple(changed_files(version.path, version.files))

    def resolve(self, name: str) -> ModelRef:
        """Where a registered model, the shipped one or the directory at a path lies. Raises StoreError."""
        return self._resolve(name, self._whole)

    def folder_of(self, found: ModelVersion | str) -> Path:
        """Where an entry of a lineage lies."""
        if isinstance(found, ModelVersion):
            return found.path
        return shipped_directory() if found == SHIPPED else Path(found)

    def name_of(self, ref: ModelRef) -> str:
        """What `resolve` calls the model that lies there, whatever `ref` calls it."""
        folder = ref.adapter or ref.base
        mine = next((version.ref for version in self.list() if version.path == folder), None)
        return mine or (SHIPPED if folder == shipped_directory() else str(folder))

    def _whole(self, name: str) -> ModelRef:
        """As `resolve`, for the base of an adapter, which must not be an adapter."""
        return self._resolve(name, None)

    def _resolve(self, name: str, below: Resolve | None) -> ModelRef:
        version = self._registered(name)
        if version is not None:
            return self._resolve_version(version, below)
        if name == SHIPPED:
            return directory_ref(name, shipped_directory(), below)
        folder = Path(name).expanduser()
        if folder.is_dir():
            return directory_ref(name, folder.resolve(), below)
        known = {*self._known(name), SHIPPED}
        raise StoreError(
            f"{echo(name)} is no registered model and no directory{nearest(name, known)}: "
            f"see dialoop models list"
        )

    def _resolve_version(self, version: ModelVersion, below: Resolve | None) -> ModelRef:
        gone = [name for name in version.files if not (version.path / name).is_file()]
        if gone:
            raise StoreError(
                f"{version.path}: {gone[0]} of {version.ref} is missing: restore it from a backup, or "
                f"remove the version with dialoop models rm {version.ref}"
            )
        ref = directory_ref(version.ref, version.path, below and self._under, version.base)
        check_template(ref, version.template_hash)
        return ref

    def _under(self, base: str) -> ModelRef:
        """`base`, or what it lies on where it is an adapter that was trained on and removed since."""
        while (version := self._recorded(base)) and version.state == "removed" and ADAPTER in version.files:
            assert version.base is not None
            base = version.base
        return self.resolve(base)

    def _below(self, folder: Path, base: str | None, continues: bool) -> tuple[str | None, Path | None]:
        """The full name of `base` and the directory of the whole model; an adapter in `folder` must lie on
        one, or go on from another adapter.
        """
        if base is None:
            return None, None
        ref = self.resolve(base)
        if ref.adapter is not None and not continues and (folder / ADAPTER).is_file():
            raise StoreError(
                f"{echo(base)} is itself an adapter, expected a whole model below an adapter: "
                f"dialoop models export {base} --as merged --to DIR, then train on DIR"
            )
        version = self._registered(base)
        if version is not None:
            return version.ref, ref.base
        return (base if base == SHIPPED else str(ref.adapter or ref.base)), ref.base

    def _registered(self, name: str) -> ModelVersion | None:
        plain = name.partition("@")[0]
        possible = is_alias(name) or NAME.fullmatch(plain) is not None
        return self.get(name) if possible and plain in self._known(name) else None

    def _recorded(self, base: str) -> ModelVersion | None:
        """The version that another's `base` names, though it was removed; None for what lies outside."""
        name, _, number = base.rpartition("@")
        if NAME.fullmatch(name) is None or not number.isdecimal():
            return None
        query = sa.select(model_versions).where(
            T.project_id == self.project, T.name == name, T.version == int(number)
        )
        with self.engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else self._version(row)

    def _named(self, name: str) -> sa.ColumnElement[bool]:
        if is_alias(name):
            return T.alias == name
        plain, version = split_name(name)
        return T.name == plain if version is None else sa.and_(T.name == plain, T.version == version)

    def _known(self, name: str) -> set[str]:
        """Names in the store; versions too where `name` asks for one of a known name."""
        plain, _, version = name.partition("@")
        with self.engine.connect() as connection:
            rows = connection.execute(sa.select(T.name, T.version, T.alias).where(*self._mine())).all()
        names = {str(row.name) for row in rows} | {str(row.alias) for row in rows if row.alias}
        return names | {f"{row.name}@{row.version}" for row in rows if version and row.name == plain}

    def _mine(self) -> tuple[sa.ColumnElement[bool], ...]:
        return (T.project_id == self.project, T.state != "removed")

    def _row(self, version: ModelVersion) -> dict[str, Any]:
        row = {name: getattr(version, name) for name in ModelVersion.__slots__}
        return {**row, "path": version.path.relative_to(self.home).as_posix()}

    def _version(self, row: sa.Row[Any]) -> ModelVersion:
        values = {name: row._mapping[name] for name in ModelVersion.__slots__}
        return ModelVersion(**{**values, "path": self.home / row.path})


def is_alias(name: str) -> bool:
    """Whether `name` is a model's second name: no first one has a colon."""
    return ":" in name


def split_name(name: str) -> tuple[str, int | None]:
    """`shop@3` as ("shop", 3), `shop` as ("shop", None). Raises StoreError."""
    plain, separator, version = name.partition("@")
    if not separator:
        return plain, None
    if not (version.isascii() and version.isdigit() and len(version) <= 9):
        raise StoreError(f"{echo(name)}: version {echo(version)} is not a number: write name@3")
    return plain, int(version)


def _check_name(name: str) -> None:
    if NAME.fullmatch(name) is None:
        raise StoreError(
            f"{echo(name)} cannot name a model: use 1 to 63 of a-z, 0-9, '.', '_' and '-', "
            f"the first a letter or digit"
        )
