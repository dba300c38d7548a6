"""How a model writes calls in its answers, as its chat template shows them in a history."""

from __future__ import annotations

import re
import secrets
import string
from dataclasses import dataclass
from typing import Literal

StyleName = Literal["hermes", "mistral", "llama3", "json"]
_ALPHANUMERIC = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class CallStyle:
    """opener: what comes before a call, or before the first of several; None = calls open the answer.

    closer: what comes after each.  arguments: the key of the arguments in a call's JSON.
    listed: several calls stand in one list after one opener.  named: a name before the arguments alone is a
    call too.  bare: a JSON object that opens the answer is a call too.
    """

    name: StyleName
    opener: str | None
    closer: str = ""
    arguments: str = "arguments"
    listed: bool = False
    named: bool = False
    bare: bool = False

    def new_id(self) -> str:
        """An id for a call. Mistral's templates take nothing but nine letters and digits."""
        if self.name == "mistral":
            return "".join(secrets.choice(_ALPHANUMERIC) for _ in range(9))
        return f"call_{secrets.token_hex(12)}"


HERMES = CallStyle("hermes", "<tool_call>", "</tool_call>")
"""Hermes, Qwen, and every model whose template shows no calls: those are written for it in this style."""
MISTRAL = CallStyle("mistral", "[TOOL_CALLS]", listed=True, named=True)
LLAMA3 = CallStyle("llama3", "<|python_tag|>", arguments="parameters", bare=True)
PLAIN_JSON = CallStyle("json", None, bare=True)


def style_of(template: str) -> CallStyle:
    """The style of a chat template that shows tools."""
    if "[TOOL_CALLS]" in template:
        return MISTRAL
    if "<tool_call>" in template:
        return HERMES
    if "<|python_tag|>" in template or re.search(r"['\"]ipython['\"]", template):
        return LLAMA3
    return PLAIN_JSON
