"""How the hidden states of a text become one vector, as sentence-transformers' files in its directory say.

Needs no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dialoop.errors import ModelError, echo
from dialoop.models.weights import read_json

Pooling = Literal["mean", "cls", "last"]
_MODES: Mapping[str, Pooling] = {
    "mean": "mean", "mean_tokens": "mean", "cls": "cls", "cls_token": "cls", "lasttoken": "last",
}  # fmt: skip
_STAGES = {"Transformer", "Pooling", "Normalize"}


@dataclass(frozen=True, slots=True)
class Embedding:
    """What a directory says of its embeddings.

    pooling: over all tokens, or the first or last one's.  max_tokens: of a text, None = as many as the model
    has positions for.  cuts: lengths that a vector may be cut to (Kusupati et al. 2022, arXiv:2205.13147);
    None = any, () = none.
    """

    pooling: Pooling = "mean"
    max_tokens: int | None = None
    cuts: tuple[int, ...] | None = ()


def read_embedding(folder: Path) -> Embedding:
    """Mean pooling where nothing is said. Raises ModelError where more is asked for than pooling."""
    config = read_json(folder / "config.json")
    limits = _optional(folder / "sentence_bert_config.json")
    cuts = tuple(config.get("matryoshka_dimensions") or ())
    return Embedding(
        pooling=_pooling(folder),
        max_tokens=limits.get("max_seq_length"),
        cuts=None if config.get("is_matryoshka") and not cuts else cuts,
    )


def _pooling(folder: Path) -> Pooling:
    where = folder / "1_Pooling"
    for name, path in _stages(folder / "modules.json"):
        if name not in _STAGES:
            raise ModelError(
                f"{folder}: its modules.json puts a {echo(name)} stage after the model, and only "
                f"{', '.join(sorted(_STAGES))} are known: use a model without it"
            )
        where = folder / path if name == "Pooling" else where
    config = _optional(where / "config.json")
    modes = [key.removeprefix("pooling_mode_") for key, on in config.items() if on is True and "mode_" in key]
    modes = [config["pooling_mode"]] if isinstance(config.get("pooling_mode"), str) else modes
    if not modes:
        return "mean"
    if len(modes) > 1 or modes[0] not in _MODES:
        raise ModelError(
            f"{where}: pools by {', '.join(map(str, modes))}, and only one of mean, cls and lasttoken is "
            f"known: use a model that pools so"
        )
    return _MODES[modes[0]]


def _stages(path: Path) -> list[tuple[str, str]]:
    """The kind and the folder of each stage."""
    if not path.is_file():
        return []
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [(str(row["type"]).rpartition(".")[2], str(row["path"])) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: is no list of stages: copy the model again") from error


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
