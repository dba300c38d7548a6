"""Errors about a chat, in the words of the response that asked for it."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from dialoop.errors import RenderError, RequestError

_WORDS = {
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "response_format.json_schema": "text.format",
    "reasoning_effort": "reasoning.effort",
    "verbosity": "text.verbosity",
    "logprobs": "include",
    "tool_choice.allowed_tools": "tool_choice",
    "messages": "input",
}
_CHAT = re.compile(
    r"\bmessages\[(?P<message>\d+)\]|(?P<tool>\btools\[\d+\])\.(?:function|custom)\b|\b(?P<word>"
    + "|".join(re.escape(word) for word in sorted(_WORDS, key=len, reverse=True))
    + r")\b"
)


@contextmanager
def in_the_words_of_responses(places: Sequence[str]) -> Iterator[None]:
    """Errors raised within name the fields of a response. places: where in it each message comes from."""
    try:
        yield
    except RenderError as error:
        raise RequestError(str(error), param="input") from None
    except RequestError as error:
        raise _reworded(error, places) from None


def _reworded(error: RequestError, places: Sequence[str]) -> RequestError:
    def word(found: re.Match[str]) -> str:
        if found["message"]:
            index = int(found["message"])
            return places[index] if index < len(places) else "input"
        return found["tool"] or _WORDS[found["word"]]

    again = copy.copy(error)
    again.args = (_CHAT.sub(word, str(error)),)
    again.param = error.param and _CHAT.sub(word, error.param)
    return again
