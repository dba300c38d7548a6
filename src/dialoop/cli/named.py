"""Models by the names that the command line and HOME/dialoop.toml give them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dialoop.engine.loaded import Loaded
    from dialoop.safety.policy import SafetySettings
    from dialoop.serve.adapters import AdapterFolders
    from dialoop.types import ModelRef


def resolve(home: Path, names: list[str]) -> list[ModelRef]:
    """Where the named models lie, under the names they are served by. Raises StoreError."""
    from dataclasses import replace

    from dialoop.store.registry import Store

    with Store.open(home) as store:
        refs = {served_name(name): store.models.resolve(name) for name in names}
    return [replace(ref, name=name) for name, ref in refs.items()]


def open_models(home: Path, names: list[str], max_model_len: int | None = None) -> dict[str, Loaded]:
    """The named models, loaded into this process, by those names. Raises StoreError or ModelError."""
    from dialoop.engine import loaded

    return loaded.open_models(resolve(home, names), context=max_model_len)


def adapter_folders(home: Path, folders: list[Path]) -> AdapterFolders:
    """The home and `folders`, whose adapters lie on the bases that they name."""
    from dialoop.serve.adapters import AdapterFolders
    from dialoop.store.registry import Store

    def resolve(folder: Path) -> ModelRef:
        with Store.open(home) as store:
            return store.models.resolve(str(folder))

    return AdapterFolders((home, *folders), resolve)


def served_name(name: str) -> str:
    """What clients call a model: its registered name, or the last part of its directory's path."""
    return Path(name).expanduser().resolve().name if "/" in name or name.startswith((".", "~")) else name


def moderator(home: Path, safety: SafetySettings) -> list[str]:
    """The model that the filter asks, if it asks one. Raises StoreError or ConfigError."""
    if safety.classifier is None:
        return []
    from dialoop.safety.classifier import check_labels

    (ref,) = resolve(home, [safety.classifier.model])
    check_labels(safety.classifier, ref.base)
    return [safety.classifier.model]
