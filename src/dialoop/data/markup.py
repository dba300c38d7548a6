"""HTML and e-mail boilerplate, taken out of turns without eating comparisons or code."""

from __future__ import annotations

import html
import re
from collections.abc import Callable

_NAMES = (
    "a|abbr|address|article|aside|b|big|blockquote|body|button|caption|center|cite|code|dd|del|details|div|dl|dt|em|"
    "figure|font|footer|form|h[1-6]|head|header|html|i|iframe|ins|label|li|main|mark|nav|ol|option|p|pre|q|s|section|"
    "select|small|span|strike|strong|sub|summary|sup|table|tbody|td|textarea|tfoot|th|thead|title|tr|tt|u|ul|video"
)
_ATTRIBUTES = r"(?:\s+[a-zA-Z_:][\w:.-]*\s*=\s*(?:\"[^\"<]*\"|'[^'<]*'|[^\s\"'<>=]+))*"
_CLOSE = re.compile(rf"</({_NAMES})\s*>", re.IGNORECASE)
_OPEN = re.compile(rf"<({_NAMES})({_ATTRIBUTES})\s*/?>", re.IGNORECASE)
_VOID = re.compile(rf"<(br|hr|img|input|wbr|meta|link)({_ATTRIBUTES})\s*/?>", re.IGNORECASE)
_DROPPED = re.compile(
    r"<(script|style)\b[^<>]*>.*?</\1\s*>|<!--.*?-->|<!doctype[^<>]*>", re.IGNORECASE | re.DOTALL
)
_LINK = re.compile(
    r"<a\s[^<>]*?href\s*=\s*[\"']?(https?://[^\s\"'<>]+)[\"']?[^<>]*>([^<>]*)</a\s*>", re.IGNORECASE
)
_BLOCK = frozenset({
    "address", "article", "blockquote", "dd", "div", "dl", "dt", "footer", "form", "h1", "h2", "h3", "h4",
    "h5", "h6", "header", "li", "main", "ol", "p", "pre", "section", "table", "tr", "ul", "br", "hr",
})  # fmt: skip
_ENTITY = re.compile(r"&(?:[A-Za-z][A-Za-z0-9]{1,31}|#\d{1,7}|#[xX][0-9A-Fa-f]{1,6});")
_CODE = re.compile(r"(```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]+`)", re.DOTALL)
_ABOUT_CODE = re.compile(
    r"\b(?:html5?|css|xml|svg|jsx|javascript|typescript|markup|markdown|tags?|elements?|regex|template)\b"
    r"|标签|网页|代码|前端|源码|正则|元素|#include|\bdef \w+\(|\bfunction\b.*\{|std::|;\s*$",
    re.IGNORECASE | re.MULTILINE,
)
_BLANK_LINES = re.compile(r"[ \t]*\n(?:[ \t]*\n){2,}")

_AUTOMATIC = re.compile(
    r"^[ \t]*[\[【(（<](?:系统消息|系统提示|系统通知|自动回复|自动消息|机器人消息|"
    r"system message|system notice|automated message|automatic reply|auto-?reply)[\]】)）>].*(?:\n|\Z)",
    re.IGNORECASE | re.MULTILINE,
)
_SENT_FROM = re.compile(
    r"^[ \t]*(?:sent from (?:my |mail for |yahoo mail|outlook)[^\n]{0,60}|get outlook for [^\n]{0,30}"
    r"|(?:发自|来自|發自)我的[^\n]{1,40}|从我的[^\n]{1,20}发送)[ \t]*(?:\n|\Z)",
    re.IGNORECASE | re.MULTILINE,
)
_SIGNATURE = re.compile(r"(?:\A|\n)-- \n(?:[^\n]{0,80}(?:\n|\Z)){0,8}\Z")
_ORIGINAL = re.compile(
    r"(?:\A|\n)[ \t]*-{2,}[ \t]*(?:original message|forwarded message|原始邮件|原邮件|转发邮件)[ \t]*-{2,}"
    r".*\Z",
    re.IGNORECASE | re.DOTALL,
)
_QUOTED = re.compile(
    r"(?:\A|\n)[ \t]*"
    r"(?:on [^\n]{4,120} wrote:|[^\n]{0,80}于[^\n]{2,60}写道[:：]|在[^\n]{2,80}写道[:：])[ \t]*"
    r"(?:\n[ \t]*)*(?:\n[ \t]*>[^\n]*)+",
    re.IGNORECASE,
)
_DISCLAIMER = re.compile(
    r"(?:\A|\n)[ \t]*(?:this (?:e-?mail|message)[^\n]{0,80}(?:confidential|intended (?:solely|only))"
    r"|(?:confidentiality notice|disclaimer):|本邮件(?:及其附件)?[^\n]{0,20}(?:保密|机密))[^\n]*\s*\Z",
    re.IGNORECASE,
)
_BOILERPLATE: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("automatic text", _AUTOMATIC),
    ("quoted reply", _ORIGINAL),
    ("quoted reply", _QUOTED),
    ("signature", _SENT_FROM),
    ("signature", _SIGNATURE),
    ("disclaimer", _DISCLAIMER),
)
_BOILERPLATE_HINTS = (
    "--", "wrote:", "写道", "sent from", "get outlook", "auto", "system ", "this email", "this e-mail",
    "this message", "confidential", "disclaimer",
    "系统", "自动", "机器人", "自我的", "來自", "来自", "从我的", "發自", "本邮件",
)  # fmt: skip


def is_about_code(text: str) -> bool:
    """Whether tags in `text` are likely its subject rather than its dress."""
    return "```" in text or _ABOUT_CODE.search(text) is not None


def plain(text: str, *, keep_tags: bool = False) -> tuple[str, tuple[str, ...]]:
    """`text` without markup and boilerplate, and what was taken out. Fenced and inline code stays."""
    changes: list[str] = []
    if not keep_tags and ("<" in text or "&" in text):
        text = _outside_code(text, lambda part: _without_markup(part, changes))
    lowered = text.lower()
    if any(map(lowered.__contains__, _BOILERPLATE_HINTS)):
        text = _without_boilerplate(text, changes)
    return (_BLANK_LINES.sub("\n\n", text).strip() if changes else text), tuple(dict.fromkeys(changes))


def _outside_code(text: str, change: Callable[[str], str]) -> str:
    if "`" not in text and "~~~" not in text:
        return change(text)
    return "".join(part if i % 2 else change(part) for i, part in enumerate(_CODE.split(text)))


def _without_markup(text: str, changes: list[str]) -> str:
    after = _without_tags(text) if "<" in text else text
    if after != text:
        changes.append("tag")
    unescaped = _ENTITY.sub(_character, after)
    if unescaped != after:
        changes.append("entity")
    return unescaped


def _without_tags(text: str) -> str:
    """An opening tag goes only with its closing one, so `if a <b and c> d` stays."""
    text = _DROPPED.sub("", text)
    text = _LINK.sub(_link, text)
    text = _VOID.sub(lambda match: "\n" if match[1].lower() in ("br", "hr") else "", text)
    closed = {match[1].lower() for match in _CLOSE.finditer(text)}
    if not closed:
        return text
    opened = {match[1].lower() for match in _OPEN.finditer(text)}
    both = closed & opened
    text = _OPEN.sub(lambda match: _space_for(match, both, ""), text)
    return _CLOSE.sub(lambda match: _space_for(match, both, "\n"), text)


def _space_for(match: re.Match[str], known: set[str], after_block: str) -> str:
    name = match[1].lower()
    if name not in known:
        return match[0]
    if name in ("td", "th"):
        return " " if after_block else ""
    return after_block if name in _BLOCK else ""


def _link(match: re.Match[str]) -> str:
    address, label = match[1], match[2].strip()
    return label or address if label in ("", address) else f"{label} ({address})"


def _character(match: re.Match[str]) -> str:
    """The character of a known entity; control characters and unknown names stay as written."""
    char = html.unescape(match[0])
    if char == "\u00a0":
        return " "
    return char if char != match[0] and (char.isprintable() or char in "\n\t") else match[0]


def _without_boilerplate(text: str, changes: list[str]) -> str:
    for name, pattern in _BOILERPLATE:
        after = pattern.sub("\n" if name == "quoted reply" else "", text)
        if after != text:
            changes.append(name)
            text = after
    return text
