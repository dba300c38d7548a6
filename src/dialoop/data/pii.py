"""Personal data in text: e-mail, phone, IP, bank card, Chinese identity number; found and masked.

Numbers need a shape, a checksum or a word before them: dates, prices, versions and order numbers stay.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from hashlib import blake2b
from typing import Any, Literal

from dialoop.types import Conversation, Message, ToolCall

Kind = Literal["email", "id", "card", "phone", "ip"]
KINDS: tuple[Kind, ...] = ("email", "id", "card", "phone", "ip")


@dataclass(frozen=True, slots=True)
class Span:
    """Characters [start, end) of a text that hold personal data of one kind."""

    start: int
    end: int
    kind: Kind


_DIGIT = re.compile(r"[0-9]")
_HINT = re.compile(r"[0-9][0-9.:()]|::|@")
_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9_%+-](?:[A-Za-z0-9._%+-]{0,62}[A-Za-z0-9_%+-])?"
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9]|-[A-Za-z0-9])"
)
_START = r"(?<![0-9A-Za-z_])(?<![0-9A-Za-z_][-./])(?<![0-9][,:])(?<![$¥€£￥#])"
_END = r"(?![0-9A-Za-z_])(?![-.,/:][0-9])"
_ID = re.compile(r"(?<![0-9A-Za-z_])[1-9]\d{16}[\dXx](?![0-9A-Za-z_])")
_CARD = re.compile(rf"{_START}\d(?:[ -]?\d){{12,18}}{_END}")
_CN_MOBILE = re.compile(rf"{_START}(?:(?:\+|00)?86[- ]?)?1[3-9]\d(?:[- ]?\d{{4}}){{2}}{_END}")
_PLUS = re.compile(rf"(?<![0-9A-Za-z_+])\+\d{{1,3}}(?:[ .-]?\(\d{{1,4}}\))?(?:[ .-]?\d{{1,4}}){{2,7}}{_END}")
_NANP = re.compile(rf"{_START}(?:1[-. ])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[-. ])[2-9]\d\d[-. ]\d{{4}}{_END}")
_LANDLINE = re.compile(rf"{_START}(?:\(0\d{{2,3}}\) ?|0\d{{2,3}}[- ])\d{{7,8}}(?:-\d{{1,5}})?{_END}")
_TRUNK = re.compile(
    rf"{_START}(?:0\d{{3,4}} \d{{5,6}}|0\d{{1,4}}[ -]\d{{3,4}}[ -]\d{{3,4}}|[48]00-\d{{3,4}}-\d{{3,4}}){_END}"
)
_BARE = re.compile(rf"{_START}\(?\d{{2,4}}\)?(?:[ -]?\d{{2,5}}){{1,4}}{_END}")
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4 = re.compile(rf"(?<![0-9A-Za-z_.])(?:{_OCTET}\.){{3}}{_OCTET}(?![0-9A-Za-z_]|\.\d)")
_IPV6 = re.compile(r"(?<![0-9A-Za-z_:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![0-9A-Za-z_:])")

_VERSION_BEFORE = re.compile(
    r"(?:\bv|\bver\.?|version|release|firmware|build|section|版本|版本号|固件|第)\s*[:：]?\s*$", re.IGNORECASE
)
_CALL = re.compile(
    r"(?:\b(?:phone|tel|telephone|mobile|cell|call|dial|text|fax|whatsapp|reach me at|number is)\b"
    r"|电话|手机|联系方式|致电|拨打|打给我|微信)[^\d\n]{0,12}$",
    re.IGNORECASE,
)
_ORDER = re.compile(
    r"\b(?:order|tracking|invoice|ticket|reference|ref|purchase|sku|serial|case|id|isbn|model|transaction|shipment|"
    r"parcel|confirmation|booking)\b|订单|单号|运单|快递|编号|发票|流水|工单|型号|序列|货号|条码|税号",
    re.IGNORECASE,
)
_CARD_WORD = re.compile(
    r"\bcard\b|\bvisa\b|\bmastercard\b|\bdebit\b|\bcredit\b|银行|卡号|储蓄卡|信用卡|借记卡", re.I
)
_PHONE_WORD = re.compile(
    r"\b(?:phone|tel|mobile|cell|call|whatsapp)\b|电话|手机|联系|致电|拨打", re.IGNORECASE
)
_DATE = re.compile(r"(?:19|20)\d\d[- ]?[01]?\d[- ]?[0-3]?\d|[0-3]?\d[- ][0-3]?\d[- ](?:19|20)\d\d")
_BEFORE = 24
_PLACEHOLDER = re.compile(r"\[(?:EMAIL|ID|CARD|PHONE|IP)_\d{1,9}\]")


def find(text: str) -> tuple[Span, ...]:
    """Spans of personal data in order, none overlapping."""
    if not (_DIGIT.search(text) or "@" in text or "::" in text) or not _HINT.search(text):
        return ()
    spans: list[Span] = []
    for kind, finder in _FINDERS:
        for start, end in finder(text):
            if all(end <= s.start or start >= s.end for s in spans):
                spans.append(Span(start, end, kind))
    return tuple(sorted(spans, key=lambda span: span.start))


def _emails(text: str) -> Iterator[tuple[int, int]]:
    return (match.span() for match in _EMAIL.finditer(text)) if "@" in text else iter(())


def _identities(text: str) -> Iterator[tuple[int, int]]:
    return (match.span() for match in _ID.finditer(text) if is_identity_number(match[0]))


def is_identity_number(number: str) -> bool:
    """Whether 18 characters are a Chinese resident identity number (GB 11643-1999, ISO 7064 MOD 11-2)."""
    if (
        len(number) != 18
        or not (number[:17].isascii() and number[:17].isdigit())
        or not 11 <= int(number[:2]) <= 91
    ):
        return False
    try:
        born = date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    total = sum(int(digit) * (2 ** (17 - i) % 11) for i, digit in enumerate(number[:17]))
    return 1850 <= born.year <= 2100 and "10X98765432"[total % 11] == number[17].upper()


def _cards(text: str) -> Iterator[tuple[int, int]]:
    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if _is_card(digits) and not _is_said(_ORDER, text, match.start(), unless=_CARD_WORD):
            yield match.span()


def _is_card(digits: str) -> bool:
    """A length and first digits that a card network issues, and Luhn's checksum (ISO/IEC 7812-1)."""
    return len(set(digits)) > 1 and passes_luhn(digits) and _is_issued(digits)


def _is_issued(digits: str) -> bool:
    size, two, four = len(digits), int(digits[:2]), int(digits[:4])
    if digits[0] == "4":
        return size in (13, 16, 19)
    if two in (34, 37):
        return size == 15
    if two in (30, 36, 38):
        return size == 14
    if two in (60, 62, 64, 65, 81, 95):
        return 16 <= size <= 19
    return size == 16 and (51 <= two <= 55 or two == 35 or 2221 <= four <= 2720)


def passes_luhn(digits: str) -> bool:
    """Whether the last digit is Luhn's check digit of those before it."""
    total = 0
    for i, char in enumerate(reversed(digits)):
        value = int(char) * (1 + i % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _is_said(word: re.Pattern[str], text: str, start: int, *, unless: re.Pattern[str]) -> bool:
    """Whether `word` stands shortly before `start` with no `unless` after it."""
    before = text[max(0, start - _BEFORE) : start]
    said = [match.end() for match in word.finditer(before)]
    return bool(said) and not any(match.end() > said[-1] for match in unless.finditer(before))


def _phones(text: str) -> Iterator[tuple[int, int]]:
    for pattern in (_CN_MOBILE, _PLUS, _NANP, _LANDLINE, _TRUNK):
        for match in pattern.finditer(text):
            digits = sum(map(str.isdigit, match[0]))
            if 7 <= digits <= 15 and not _is_said(_ORDER, text, match.start(), unless=_PHONE_WORD):
                yield match.span()
    for match in _BARE.finditer(text):
        before = text[max(0, match.start() - _BEFORE) : match.start()]
        called = (
            7 <= sum(map(str.isdigit, match[0])) <= 13 and _CALL.search(before) and not _is_date(match[0])
        )
        if called and not _is_said(_ORDER, text, match.start(), unless=_PHONE_WORD):
            yield match.span()


def _is_date(text: str) -> bool:
    return _DATE.fullmatch(text) is not None


def _addresses(text: str) -> Iterator[tuple[int, int]]:
    for match in _IPV4.finditer(text):
        before = text[max(0, match.start() - _BEFORE) : match.start()]
        if not _VERSION_BEFORE.search(before) and not match[0].startswith(("0.", "127.")):
            yield match.span()
    for match in _IPV6.finditer(text):
        if _is_ipv6(match[0]):
            yield match.span()


def _is_ipv6(text: str) -> bool:
    """Valid, with digits and enough groups not to be a time or a scope such as `abc::def`."""
    groups = [group for group in text.split(":") if group]
    if len(groups) < 2 or not any(char.isdigit() for char in text):
        return False
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return len(groups) > 2 or len(groups[0]) == 4


_FINDERS: tuple[tuple[Kind, Callable[[str], Iterator[tuple[int, int]]]], ...] = (
    ("email", _emails),
    ("id", _identities),
    ("card", _cards),
    ("phone", _phones),
    ("ip", _addresses),
)


class Numbering:
    """Gives every value its number: 1, 2, ... within a kind. Keeps digests of values, not values."""

    def __init__(self, letter: str = "") -> None:
        self._letter = letter
        self._names: dict[bytes, str] = {}
        self._last: Counter[Kind] = Counter()
        self._taken: set[str] = set()

    def reserve(self, text: str) -> None:
        """Placeholders that `text` already holds are not given out again."""
        if "_" in text:
            self._taken.update(match[0] for match in _PLACEHOLDER.finditer(text))

    def name(self, kind: Kind, value: str) -> str:
        """The placeholder of `value`."""
        key = blake2b(
            f"{kind}:{_same(kind, value)}".encode("utf-8", "surrogatepass"), digest_size=12
        ).digest()
        if key not in self._names:
            self._names[key] = self._next(kind)
        return self._names[key]

    def _next(self, kind: Kind) -> str:
        while True:
            self._last[kind] += 1
            name = f"[{kind.upper()}_{self._letter}{self._last[kind]}]"
            if name not in self._taken:
                return name


class Masker:
    """Replaces personal data by placeholders; the same value always gets the same one.

    mapping: placeholder -> what it stands for, as first written.
    """

    def __init__(self, numbering: Numbering) -> None:
        self._numbering = numbering
        self.mapping: dict[str, str] = {}
        self.kinds: Counter[Kind] = Counter()

    def mask(self, text: str) -> str:
        """`text` with its personal data replaced; every other character as it was."""
        spans = find(text)
        if not spans:
            return text
        parts, end = [], 0
        for span in spans:
            value = text[span.start : span.end]
            name = self._numbering.name(span.kind, value)
            self.mapping.setdefault(name, value)
            self.kinds[span.kind] += 1
            parts += [text[end : span.start], name]
            end = span.end
        return "".join([*parts, text[end:]])


def _same(kind: Kind, value: str) -> str:
    """One form for the ways of writing a value."""
    if kind in ("email", "ip"):
        return value.casefold()
    digits = re.sub(r"[^0-9Xx]", "", value).upper()
    return re.sub(r"^(?:00)?86(?=1\d{10}$)", "", digits) if kind == "phone" else digits


@dataclass(frozen=True, slots=True)
class Masked:
    """A conversation without personal data, what its placeholders stand for, and spans found by kind."""

    conversation: Conversation
    mapping: Mapping[str, str]
    kinds: tuple[tuple[Kind, int], ...]


def mask_conversation(conversation: Conversation, run: Numbering) -> Masked:
    """Turns and tool calls are numbered within the conversation, as in `[EMAIL_1]`.

    Metadata is numbered over the whole `run`, as in `[EMAIL_R1]`, so that a customer stays one group.
    """
    numbering = Numbering()
    for message in conversation.messages:
        numbering.reserve(message.content)
    turns, extra = Masker(numbering), Masker(run)
    messages = tuple(_masked(message, turns) for message in conversation.messages)
    metadata = {key: _masked_value(value, extra) for key, value in conversation.metadata.items()}
    if not turns.mapping and not extra.mapping:
        return Masked(conversation, {}, ())
    masked = replace(conversation, messages=messages, metadata=metadata)
    kinds = turns.kinds + extra.kinds
    return Masked(masked, {**turns.mapping, **extra.mapping}, tuple(sorted(kinds.items())))


def _masked(message: Message, masker: Masker) -> Message:
    content = masker.mask(message.content)
    if not (message.reasoning or message.name or message.tool_calls):
        return message if content is message.content else replace(message, content=content)
    reasoning = masker.mask(message.reasoning) if message.reasoning else message.reasoning
    name = masker.mask(message.name) if message.name else message.name
    calls = tuple(_masked_call(call, masker) for call in message.tool_calls)
    if (content, reasoning, name, calls) == (
        message.content,
        message.reasoning,
        message.name,
        message.tool_calls,
    ):
        return message
    return replace(message, content=content, reasoning=reasoning, name=name, tool_calls=calls)


def _masked_call(call: ToolCall, masker: Masker) -> ToolCall:
    """Arguments stay JSON: a number that is masked becomes a string."""
    try:
        values = json.loads(call.arguments)
    except ValueError:
        return replace(call, arguments=masker.mask(call.arguments))
    masked = _masked_value(values, masker)
    return call if masked == values else replace(call, arguments=json.dumps(masked, ensure_ascii=False))


def _masked_value(value: Any, masker: Masker) -> Any:
    if isinstance(value, str):
        return masker.mask(value)
    if isinstance(value, bool) or not isinstance(value, int | list | tuple | dict):
        return value
    if isinstance(value, int):
        masked = masker.mask(str(value))
        return value if masked == str(value) else masked
    if isinstance(value, dict):
        return {key: _masked_value(item, masker) for key, item in value.items()}
    return [_masked_value(item, masker) for item in value]
