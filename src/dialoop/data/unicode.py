"""Text in one Unicode form: NFC, one line end, no control or invisible characters.

Chinese punctuation stays full-width; only full-width Latin letters and digits become ASCII.
"""

from __future__ import annotations

import re
import unicodedata

_CLEAN_ASCII = re.compile(r"[\n\t\x20-\x7e]*")
_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")
_INVISIBLE = re.compile("[\u00ad\u180e\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069]")
_JOINERS = re.compile("[\u200c\u200d\u200e\u200f]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_WIDE_ALNUM = re.compile("[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a]")
_SUSPECT = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00a0\u00ad\u180e\u200b-\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff"
    "\uff10-\uff19\uff20-\uff3a\uff3f\uff41-\uff5a\uff0d\uff0e\ud800-\udfff]"
)
"""Every character that some change below looks for; Chinese text seldom has one."""
_WIDE_SIGN = re.compile("(?<=[0-9A-Za-z])[\uff20\uff0e\uff0d\uff3f](?=[0-9A-Za-z])")


def normalise(text: str) -> tuple[str, tuple[str, ...]]:
    """`text` in the one form, and what was changed in it. A second pass changes nothing."""
    if text.isascii() and _CLEAN_ASCII.fullmatch(text):
        trimmed = text.strip()
        return (text, ()) if trimmed == text else (trimmed, ("space",))
    if not _SUSPECT.search(text) and unicodedata.is_normalized("NFC", text):
        trimmed = text.strip()
        return (text, ()) if trimmed == text else (trimmed, ("space",))
    changes = []
    for name, change in _CHANGES:
        after = change(text)
        if after != text:
            changes.append(name)
            text = after
    return text, tuple(changes)


def _one_line_end(text: str) -> str:
    return _LINE_ENDS.sub("\n", text)


def _without_controls(text: str) -> str:
    return _CONTROLS.sub("", _SURROGATES.sub("\ufffd", text))


def _without_invisible(text: str) -> str:
    return _JOINERS.sub(_joiner, _INVISIBLE.sub("", text))


def _joiner(match: re.Match[str]) -> str:
    """Joiners and marks of direction stay where a script or an emoji needs them."""
    text, start, end = match.string, match.start(), match.end()
    neighbours = (text[start - 1] if start else " ", text[end] if end < len(text) else " ")
    return match[0] if all(_joins(char) for char in neighbours) else ""


def _joins(char: str) -> bool:
    point = ord(char)
    return (
        0x0590 <= point <= 0x1CFF
        or 0x2190 <= point <= 0x2BFF
        or 0xFE00 <= point <= 0xFE0F
        or point >= 0x1F000
    )


def _narrow_latin(text: str) -> str:
    narrow = _WIDE_ALNUM.sub(lambda match: chr(ord(match[0]) - 0xFEE0), text)
    return _WIDE_SIGN.sub(lambda match: chr(ord(match[0]) - 0xFEE0), narrow)


def _plain_space(text: str) -> str:
    return text.replace("\u00a0", " ").strip()


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


_CHANGES = (
    ("line end", _one_line_end),
    ("control character", _without_controls),
    ("invisible character", _without_invisible),
    ("full-width letter or digit", _narrow_latin),
    ("composed form", _composed),
    ("space", _plain_space),
)
