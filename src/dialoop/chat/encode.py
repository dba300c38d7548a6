"""Text -> token ids, in parts: control tokens as such, those that a message spells as plain text."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from tokenizers import Encoding, Tokenizer

from dialoop.errors import ModelError, echo

_ANCHORS = ("\n", "a", ".")
_PROBES = (("a", " b"), ("b\n", "c"), ("c.\n", "D e"))


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of rendered text that is tokenised by itself; plain: no control token is matched in it."""

    text: str
    plain: bool = False


@dataclass(frozen=True, slots=True)
class Encoded:
    """ids; starts: where each token begins in the text, in characters; firsts: first token of each part."""

    ids: list[int]
    starts: list[int]
    firsts: list[int]


class Encoder:
    """A `tokenizers` tokenizer with a chosen set of control tokens. Never adds bos or eos."""

    def __init__(self, spec: dict[str, Any], control: frozenset[str]) -> None:
        self._spec = spec
        self.control = control
        for token in spec["added_tokens"]:
            if token["content"] in control:
                token["normalized"] = False
        self.full = _tokenizer(spec)
        self._added = frozenset(token["content"] for token in spec["added_tokens"])
        self._byte_level = '"ByteLevel"' in json.dumps(spec.get("decoder"))
        ids = (self.full.token_to_id(token) for token in control)
        self.control_ids = frozenset(token_id for token_id in ids if token_id is not None)
        longest_first = sorted(control, key=len, reverse=True)
        self.control_pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    @cached_property
    def _plain(self) -> Tokenizer:
        """The same tokenizer, blind to control tokens."""
        added = self._spec["added_tokens"]
        tokens = [{**token, "special": token["content"] in self.control} for token in added]
        tokenizer = _tokenizer({**self._spec, "added_tokens": tokens})
        tokenizer.encode_special_tokens = True
        return tokenizer

    @cached_property
    def _joins(self) -> bool:
        """Whether two texts in a row have the tokens of their sum: no space is put before the first word."""
        return all(
            self._full_ids(left) + self._full_ids(right) == self._full_ids(left + right)
            for left, right in _PROBES
        )

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of one token. Raises ModelError outside the vocabulary."""
        piece = self.full.id_to_token(token_id)
        if piece is None:
            size = self.full.get_vocab_size()
            raise ModelError(f"token {token_id} is not in the vocabulary: give an id below {size}")
        if piece in self._added:
            return piece.encode()
        if self._byte_level:
            return bytes(_BYTE_OF[char] for char in piece)
        byte = re.fullmatch(r"<0x([0-9A-F]{2})>", piece)
        return bytes([int(byte[1], 16)]) if byte else piece.replace("▁", " ").encode()

    def _full_ids(self, text: str) -> list[int]:
        return self.full.encode(text, add_special_tokens=False).ids

    def encode(self, text: str, *, control: bool) -> list[int]:
        """The ids of one text from its beginning."""
        return self._full_ids(text) if control else self._encode_plain(text).ids

    def _encode_plain(self, text: str) -> _Tokens:
        encoding = self._plain.encode(text, add_special_tokens=False)
        if self.control_ids.isdisjoint(encoding.ids):
            return _Tokens.of(encoding)
        pieces = self._broken(text)
        if len(pieces) == 1:
            return _Tokens.of(encoding)
        return self._concatenated([Part(piece, plain=True) for piece in pieces])

    def _broken(self, text: str) -> list[str]:
        """`text` cut inside each control token, for models whose vocabulary spells one in a single piece."""
        cuts = [0, *(match.start() + 1 for match in self.control_pattern.finditer(text)), len(text)]
        return [text[a:b] for a, b in pairwise(cuts) if a < b]

    def _concatenated(self, parts: list[Part]) -> _Tokens:
        encoded = self.encode_parts(parts)
        return _Tokens(encoded.ids, encoded.starts)

    def encode_parts(self, parts: Sequence[Part]) -> Encoded:
        """The ids of a text given in parts. What comes later never changes the ids of what came before."""
        encoded = Encoded([], [], [])
        offset, text, unbroken = 0, "", True
        for part in parts:
            encoded.firsts.append(len(encoded.ids))
            text += part.text
            unbroken = unbroken and not part.plain
            grown = self._grown(text, encoded.ids) if unbroken and offset and not self._joins else None
            tokens = grown or self._next(part, first=offset == 0)
            encoded.ids.extend(tokens.ids)
            encoded.starts.extend(tokens.starts if grown else [start + offset for start in tokens.starts])
            offset = len(text)
        return encoded

    def _grown(self, text: str, before: list[int]) -> _Tokens | None:
        """The tokens that the whole text adds to `before`, or None where it would change those."""
        tokens = _Tokens.of(self.full.encode(text, add_special_tokens=False))
        if tokens.ids[: len(before)] != before:
            return None
        return _Tokens(tokens.ids[len(before) :], tokens.starts[len(before) :])

    def _next(self, part: Part, *, first: bool) -> _Tokens:
        encode = self._encode_plain if part.plain else self._encode_full
        if first or self._joins:
            return encode(part.text)
        return _continued(encode, part.text)

    def _encode_full(self, text: str) -> _Tokens:
        return _Tokens.of(self.full.encode(text, add_special_tokens=False))


@dataclass(frozen=True, slots=True)
class _Tokens:
    ids: list[int]
    starts: list[int]

    @staticmethod
    def of(encoding: Encoding) -> _Tokens:
        return _Tokens(encoding.ids, [start for start, _ in encoding.offsets])


def _continued(encode: Any, text: str) -> _Tokens:
    """The tokens of `text` in the middle of a line, for tokenizers that put a space before the first word."""
    for anchor in _ANCHORS:
        alone, tokens = encode(anchor), encode(anchor + text)
        size = len(alone.ids)
        if tokens.ids[:size] == alone.ids:
            return _Tokens(tokens.ids[size:], [max(0, start - 1) for start in tokens.starts[size:]])
    tokens = encode(text)
    return _Tokens(tokens.ids, tokens.starts)


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable character for each byte, inverted: printable bytes stand for themselves."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + i): byte for i, byte in enumerate(hidden)}


_BYTE_OF = _byte_alphabet()


def _tokenizer(spec: dict[str, Any]) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_str(json.dumps(spec, ensure_ascii=False))
    except Exception as error:  # the tokenizers package raises nothing narrower
        raise ModelError(
            f"tokenizer.json is not one that this version of tokenizers reads ({echo(str(error))}): save it "
            f"again with a current transformers, or upgrade tokenizers"
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
