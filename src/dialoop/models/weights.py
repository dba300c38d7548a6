"""Safetensors files of a directory, checked before any memory is taken for them.

Format: 8 bytes little-endian header length, a JSON header of {tensor: dtype, shape, data_offsets}, the data.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dialoop.errors import ModelError, echo

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
MAX_HEADER = 100_000_000


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ModelError naming the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{path}: cannot be read as JSON ({type(error).__name__}): copy the model again"
        ) from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: holds {echo(value)}, expected a JSON object: copy the model again")
    return value


def check_weights(folder: Path) -> tuple[Path, ...]:
    """The weight files of a model directory, headers verified. Raises ModelError naming file and tensor."""
    if (folder / INDEX).is_file():
        return _check_sharded(folder)
    if (folder / SINGLE).is_file():
        check_file(folder / SINGLE)
        return (folder / SINGLE,)
    raise ModelError(_no_weights(folder, SINGLE))


def check_adapter(folder: Path) -> Path:
    """The weight file of a PEFT directory, header verified. Raises ModelError."""
    path = folder / "adapter_model.safetensors"
    if not path.is_file():
        raise ModelError(_no_weights(folder, path.name))
    check_file(path)
    return path


def _no_weights(folder: Path, wanted: str) -> str:
    pickles = sorted(p.name for p in folder.glob("*") if p.suffix in PICKLES)
    if pickles:
        return (
            f"{folder}: {pickles[0]} is a pickle, which can run code when it is opened; expected {wanted}: "
            f"convert it with save_pretrained(..., safe_serialization=True)"
        )
    return f"{folder}: holds no {wanted}: copy the model's weights there"


def _check_sharded(folder: Path) -> tuple[Path, ...]:
    index = folder / INDEX
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{index}: has no weight_map of tensors to files: copy the model again")
    shards: dict[str, list[str]] = {}
    for tensor, name in weight_map.items():
        shards.setdefault(_inside(index, tensor, name), []).append(tensor)
    for name, tensors in shards.items():
        _check_shard(folder / name, tensors)
    return tuple(folder / name for name in sorted(shards))


def _inside(index: Path, tensor: str, name: object) -> str:
    """`name` where it is a plain file name, so that no index can point outside its folder."""
    plain = isinstance(name, str) and name == Path(name).name and name.endswith(".safetensors")
    if not plain:
        raise ModelError(
            f"{index}: tensor {echo(tensor)} lies in {echo(name)}, expected the name of a .safetensors "
            f"file in the same folder: copy the model again from a source that you trust"
        )
    return str(name)


def _check_shard(path: Path, tensors: Iterable[str]) -> None:
    if not path.is_file():
        raise ModelError(f"{path}: the shard is missing, though {INDEX} names it: copy it again")
    header = check_file(path)
    for tensor in tensors:
        if tensor not in header:
            raise ModelError(
                f"{path}: holds no tensor {echo(tensor)}, though {INDEX} says so: copy the model again"
            )


def check_file(path: Path) -> Mapping[str, Any]:
    """The header of a safetensors file whose tensors fill it exactly. Raises ModelError."""
    header, data_bytes = _read_header(path)
    spans: list[tuple[int, int, str]] = []
    for tensor, entry in header.items():
        if tensor == "__metadata__":
            continue
        offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
        if not (isinstance(offsets, list) and len(offsets) == 2 and all(isinstance(o, int) for o in offsets)):
            raise ModelError(f"{path}: tensor {echo(tensor)} has no data_offsets: copy the file again")
        spans.append((offsets[0], offsets[1], tensor))
    _check_spans(path, sorted(spans), data_bytes)
    return header


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 0 < length <= min(MAX_HEADER, size - 8):
            raise ModelError(
                f"{path}: {size} bytes do not start with a safetensors header (its length reads {length}): "
                f"copy the file again"
            )
        raw = file.read(length)
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: the safetensors header is not JSON: copy the file again") from error
    if not isinstance(header, dict):
        raise ModelError(
            f"{path}: the safetensors header is {echo(header)}, not an object: copy the file again"
        )
    return header, size - 8 - length


def _check_spans(path: Path, spans: list[tuple[int, int, str]], data_bytes: int) -> None:
    position = 0
    for start, end, tensor in spans:
        if start != position or end < start or end > data_bytes:
            raise ModelError(
                f"{path}: tensor {echo(tensor)} lies at bytes {start} to {end} of {data_bytes}: the file is "
                f"cut short or damaged, copy it again"
            )
        position = end
    if position != data_bytes:
        raise ModelError(
            f"{path}: {data_bytes} bytes of data, its tensors fill {position}: copy the file again"
        )
