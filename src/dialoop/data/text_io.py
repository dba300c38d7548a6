"""Bytes on disk to text: compression, encoding, and lines of bounded length."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from dialoop.errors import ConfigError, DataError, echo

SAMPLE_BYTES = 1 << 20
_PROBES, _PROBE_BYTES = 16, 1 << 16
CHUNK_BYTES = 1 << 18
MAX_ROW_BYTES = 64 << 20
"""A longer line, element or record is rejected, so that memory stays bounded."""

Reject = Callable[[int, str], None]
"""Called with the line and the reason of a row that cannot be used."""

_MAGIC = ((b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ\x00", "xz"))


def compression_of(path: Path) -> str | None:
    """`gzip`, `bzip2`, `xz` or None, by the first bytes. Raises DataError where there is no file."""
    with open_bytes(path, None) as file:
        head = file.read(6)
    return next((name for magic, name in _MAGIC if head.startswith(magic)), None)


class ByteReader:
    """Decompressed bytes of a file; broken compression is a DataError that says how far it was good."""

    def __init__(self, file: IO[bytes], path: Path, compression: str | None) -> None:
        self._file, self._path, self._compression = file, path, compression
        self._read = 0

    def read(self, size: int) -> bytes:
        """At most `size` bytes, none at the end."""
        return self._checked(self._file.read, size)

    def seek(self, position: int) -> None:
        """Go on at this byte."""
        self._file.seek(position)

    def readline(self, size: int) -> bytes:
        """Up to and with the next line feed, at most `size` bytes."""
        return self._checked(self._file.readline, size)

    def _checked(self, call: Callable[[int], bytes], size: int) -> bytes:
        try:
            data = call(size)
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            what = f"{self._compression} damaged or cut short" if self._compression else "unreadable"
            raise DataError(
                f"{self._path}: {what} after {self._read} bytes: copy or pack it again"
            ) from error
        self._read += len(data)
        return data


@contextmanager
def open_bytes(path: Path, compression: str | None) -> Iterator[ByteReader]:
    """The decompressed bytes. Raises DataError where there is no such file."""
    try:
        file = _handle(path, compression)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file: give the path of a data file") from error
    except IsADirectoryError as error:
        raise DataError(f"{path}: a folder: give the data files in it one by one") from error
    except (OSError, ValueError) as error:
        name = type(error).__name__
        raise DataError(f"{path}: cannot be opened ({name}): give a readable data file") from error
    with file:
        yield ByteReader(file, path, compression)


def _handle(path: Path, compression: str | None) -> IO[bytes]:
    match compression:
        case "gzip":
            return cast(IO[bytes], gzip.open(path, "rb"))
        case "bzip2":
            return cast(IO[bytes], bz2.open(path, "rb"))
        case "xz":
            return cast(IO[bytes], lzma.open(path, "rb"))
    return path.open("rb")


def sample_of(path: Path, compression: str | None) -> bytes:
    """The first mebibyte, decompressed."""
    with open_bytes(path, compression) as file:
        return file.read(SAMPLE_BYTES)


def probe_of(path: Path, compression: str | None, sample: bytes) -> bytes:
    """`sample`, with pieces from further on where it is ASCII alone and says nothing of the encoding."""
    size = path.stat().st_size
    if compression or size <= SAMPLE_BYTES or not sample.isascii():
        return sample
    pieces = [sample]
    with open_bytes(path, None) as file:
        for step in range(1, _PROBES + 1):
            file.seek((size - _PROBE_BYTES) * step // _PROBES)
            pieces += file.read(_PROBE_BYTES).split(b"\n")[1:-1]
    return b"\n".join(pieces)


def encoding_of(sample: bytes) -> str:
    """The Python codec that reads `sample`: by its mark, then UTF-16 by its zeros, then line by line."""
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ):
        if sample.startswith(mark):
            return name
    return _utf16_without_mark(sample) or _by_lines(sample)


def given_encoding(name: str, found: str) -> str:
    """The codec that a user named; UTF-16 without a byte order takes the one `found` in the file.

    Raises ConfigError where Python has no such text codec, or its lines do not end in a line feed's byte.
    """
    try:
        codec = codecs.lookup(name).name
        line_end = "\n".encode(codec)
    except (LookupError, UnicodeError) as error:
        raise ConfigError(
            f"encoding {echo(name)} is unknown: give a codec of Python such as utf-8, utf-16 or gb18030"
        ) from error
    if codec == "utf-16":
        return found if found.startswith("utf-16") else "utf-16-le"
    if codec.startswith("utf-16") or line_end == b"\n":
        return codec
    raise ConfigError(f"encoding {echo(name)} is not read: convert the file to utf-8 first")


def _utf16_without_mark(sample: bytes) -> str | None:
    """Every line end and ASCII character has a zero byte, always on the same side; other text has none."""
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if max(even, odd) < max(2, len(sample) / 400) or min(even, odd) * 4 > max(even, odd):
        return None
    return "utf-16-le" if odd > even else "utf-16-be"


def _by_lines(sample: bytes) -> str:
    lines = [line for line in _whole_lines(sample) if not line.isascii()]
    if not lines or _share_decoded(lines, "utf-8") > 0.5:
        return "utf-8"
    if _share_decoded(lines, "gb18030") > 0.5 and _looks_chinese(lines):
        return "gb18030"
    return _guessed(b"\n".join(lines))


def _whole_lines(sample: bytes) -> list[bytes]:
    """Lines of the sample; the last is left out where the sample may have cut it."""
    lines = sample.split(b"\n")
    if len(sample) < SAMPLE_BYTES:
        return lines
    return lines[:-1] or [sample]


def _share_decoded(lines: list[bytes], encoding: str) -> float:
    return sum(_decodes(line, encoding) for line in lines) / len(lines)


def _decodes(line: bytes, encoding: str) -> bool:
    try:
        codecs.getincrementaldecoder(encoding)("strict").decode(line, final=False)
    except UnicodeDecodeError:
        return False
    return True


def _looks_chinese(lines: list[bytes]) -> bool:
    """GB18030 decodes almost anything; Chinese text is mostly the GB 2312 part of it."""
    text = b"\n".join(lines).decode("gb18030", "ignore")
    wide = [char for char in text if ord(char) > 127]
    return sum(_in_gb2312(char) for char in wide) > 0.6 * len(wide)


def _in_gb2312(char: str) -> bool:
    try:
        char.encode("gb2312")
    except UnicodeEncodeError:
        return False
    return True


def _guessed(sample: bytes) -> str:
    from charset_normalizer import from_bytes

    best = from_bytes(sample[: 1 << 16]).best()
    return best.encoding if best is not None and not best.encoding.startswith("utf") else "utf-8"


def lines(
    path: Path, compression: str | None, encoding: str, reject: Reject, keep_damaged: bool = False
) -> Iterator[tuple[int, str]]:
    """(number from 1, text without its line end) of every line; bad lines go to `reject`.

    With `keep_damaged`, bytes that do not decode come as lone surrogates, for `is_damaged` to find.
    """
    for number, raw in _raw_lines(path, compression, encoding):
        if len(raw) > MAX_ROW_BYTES:
            reject(number, f"longer than {MAX_ROW_BYTES >> 20} MiB")
            continue
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError:
            if not keep_damaged:
                reject(number, undecodable(encoding))
                continue
            text = raw.decode("utf-8", "surrogateescape") + "\udcff"
        yield number, text.removeprefix("\ufeff").rstrip("\r\n") if number == 1 else text.rstrip("\r\n")


def undecodable(encoding: str) -> str:
    """The reason given for bytes that the encoding does not have."""
    return f"bytes that are not {encoding}"


def _raw_lines(path: Path, compression: str | None, encoding: str) -> Iterator[tuple[int, bytes]]:
    """Numbered lines; an overlong one comes as its first bytes, more than MAX_ROW_BYTES of them."""
    unit = 2 if encoding.startswith("utf-16") else 1
    with open_bytes(path, compression) as file:
        source = file if unit == 1 else _WideLines(file, encoding)
        number = 0
        while raw := source.readline(MAX_ROW_BYTES + 2):
            number += 1
            yield number, raw
            while len(raw) > MAX_ROW_BYTES and not raw.endswith(b"\n"):
                raw = source.readline(MAX_ROW_BYTES + 2)


class _WideLines:
    """`readline` over two-byte units, which a byte-wise split would cut inside a character."""

    def __init__(self, file: ByteReader, encoding: str) -> None:
        self._file = file
        self._end = "\n".encode(encoding)
        self._rest = b""

    def readline(self, limit: int) -> bytes:
        """Up to and with the next line end, or `limit` bytes, or what is left."""
        searched = 0
        while (end := self._line_end(searched)) < 0 and len(self._rest) < limit:
            searched = len(self._rest) - len(self._rest) % 2
            chunk = self._file.read(CHUNK_BYTES)
            if not chunk:
                break
            self._rest += chunk
        stop = end if end >= 0 else min(limit, len(self._rest))
        line, self._rest = self._rest[:stop], self._rest[stop:]
        return line

    def _line_end(self, start: int) -> int:
        """The position after the next aligned line end, or -1."""
        at = self._rest.find(self._end, start)
        while at >= 0 and at % 2:
            at = self._rest.find(self._end, at + 1)
        return at + 2 if at >= 0 else -1


def chunks(path: Path, compression: str | None, encoding: str) -> Iterator[str]:
    """Text in pieces; bytes that do not decode come as lone surrogates, for `is_damaged` to find."""
    wide = encoding.startswith("utf-16")
    decoder = codecs.getincrementaldecoder(encoding)("surrogatepass" if wide else "surrogateescape")
    first = True
    with open_bytes(path, compression) as file:
        while raw := file.read(CHUNK_BYTES):
            text = decoder.decode(raw)
            yield text.removeprefix("\ufeff") if first else text
            first = False
        yield _flushed(decoder)


def _flushed(decoder: codecs.IncrementalDecoder) -> str:
    try:
        return decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return "\udcff"


def is_damaged(text: str) -> bool:
    """Whether `text` holds surrogates: bytes that did not decode, or half of an escaped pair."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False
