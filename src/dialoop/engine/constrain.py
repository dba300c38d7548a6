"""Answers that keep to a grammar: JSON, JSON Schema, regular expression, choice, Lark; by llguidance."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from threading import Lock

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from torch import Tensor

from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.errors import RequestError
from dialoop.types import Grammar

KEPT = 64
"""Compiled grammars that are kept, the last used."""
_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class Grammars:
    """Grammars compiled for one vocabulary; any thread may ask."""

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._tokenizer = tokenizer
        self._lock = Lock()
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="dialoop-grammar")
        self._compiled: OrderedDict[Grammar, LLMatcher] = OrderedDict()

    @cached_property
    def _vocabulary(self) -> LLTokenizer:
        return LLTokenizer(self._tokenizer.to_json(), eos_token=sorted(self._tokenizer.stop_ids))

    def constraint(self, grammar: Grammar) -> Constraint:
        """A new answer's place in `grammar`. Raises RequestError where it cannot be compiled."""
        with self._lock:
            if grammar not in self._compiled:
                self._compiled[grammar] = self._compile(grammar)
                if len(self._compiled) > KEPT:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(grammar)
            return Constraint(self._compiled[grammar].deep_copy(), self._threads)

    def _compile(self, grammar: Grammar) -> LLMatcher:
        text = _WRITTEN[grammar.kind](grammar.text)
        failed, messages = LLMatcher.validate_grammar_with_warnings(text, self._vocabulary)
        if failed:
            reason = messages[0].split("\n")[0][:200]
            raise RequestError(
                f"the {grammar.kind} cannot be followed: {reason}: mend it", param="response_format"
            )
        return LLMatcher(self._vocabulary, text, log_level=0)


class Constraint:
    """Where one answer stands in its grammar."""

    def __init__(self, matcher: LLMatcher, threads: ThreadPoolExecutor) -> None:
        self._matcher = matcher
        self._threads = threads
        self._mask: Future[bytes] | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing may follow but the end."""
        return self._matcher.is_stopped()

    def begin(self) -> None:
        """Find out which tokens may come next, beside the model's step."""
        self._mask = self._mask or self._threads.submit(self._matcher.compute_bitmask)

    def apply(self, logits: Tensor) -> None:
        """Set the others' `logits`, (V,), to -inf in place."""
        self.begin()
        assert self._mask is not None
        packed = np.frombuffer(self._mask.result(), dtype=np.uint8)
        allowed = torch.from_numpy(np.unpackbits(packed, count=len(logits), bitorder="little"))
        logits.masked_fill_(allowed.to(logits.device) == 0, -torch.inf)

    def add(self, token: int) -> None:
        """The answer goes on with `token`."""
        self._mask = None
        self._matcher.consume_token(token)


def _choice(text: str) -> str:
    return "start: " + " | ".join(json.dumps(each, ensure_ascii=False) for each in json.loads(text))


_WRITTEN: dict[str, Callable[[str], str]] = {
    "json_schema": lambda text: LLMatcher.grammar_from_json_schema(text, overrides=_STYLE),  # type: ignore[arg-type]
    "regex": LLMatcher.grammar_from_regex,
    "lark": LLMatcher.grammar_from_lark,
    "choice": lambda text: LLMatcher.grammar_from_lark(_choice(text)),
}
