"""The reversible mapping of masked values: encrypted on disk, its key in a file of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from dialoop.errors import ConfigError, DataError


class Vault:
    """Writes one encrypted line (Fernet: AES-128-CBC and HMAC-SHA256) for every masked conversation.

    key_file is made with mode 0600 where it is missing. Raises ConfigError where the `pii` extra is
    missing, the key is not a key, or others may read it.
    """

    def __init__(self, path: Path, key_file: Path) -> None:
        self._cipher = _cipher(key_file, make=True)
        self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")

    def put(self, row: str, mapping: Mapping[str, str]) -> None:
        """Store what the placeholders of one row stand for."""
        clear = json.dumps({"row": row, "mapping": dict(mapping)}, ensure_ascii=False).encode()
        self._file.write(self._cipher.encrypt(clear) + b"\n")

    def __enter__(self) -> Vault:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def read_vault(path: Path, key_file: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """(row, placeholder -> value) of every masked row. Raises DataError where the key is not the file's."""
    from cryptography.fernet import InvalidToken

    cipher = _cipher(key_file, make=False)
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                entry = json.loads(cipher.decrypt(line.strip()))
            except InvalidToken as error:
                raise DataError(
                    f"{path}:{number}: not encrypted with the key in {key_file}: "
                    f"name the key file that was given when it was written"
                ) from error
            yield entry["row"], entry["mapping"]


def _cipher(key_file: Path, *, make: bool) -> Any:
    try:
        from cryptography.fernet import Fernet
    except ImportError as error:
        raise ConfigError(
            "a reversible mapping is kept encrypted only, and the package `cryptography` is missing: "
            "pip install 'dialoop[pii]', or mask without a key file"
        ) from error
    if make and not key_file.exists():
        _make_key(key_file, Fernet.generate_key())
    if not key_file.is_file():
        raise ConfigError(
            f"{key_file}: no such key file: name the one that was given when the mapping was written"
        )
    if key_file.stat().st_mode & 0o077:
        raise ConfigError(f"{key_file}: others may read this key: chmod 600 {key_file}")
    try:
        return Fernet(key_file.read_bytes().strip())
    except ValueError as error:
        raise ConfigError(
            f"{key_file}: not a key (32 bytes in URL-safe base64): "
            f"name a file that does not exist yet, and one is made"
        ) from error


def _make_key(key_file: Path, key: bytes) -> None:
    with os.fdopen(os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(key + b"\n")
