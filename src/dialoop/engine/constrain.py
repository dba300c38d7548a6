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

from dialoop.chat.callgrammar import SPACING
from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.errors import RequestError
from dialoop.types import Grammar

KEPT = 64
"""Compiled grammars that are kept, the last used."""
MARGIN = 24
"""Tokens that an answer may have left, beyond those of the way to its end, when it begins to be led there."""
SPARE = 4
TRIED = 8
"""Of the most probable tokens: whether an end is in reach after them."""
LONGEST_WAY = 1024


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

    def constraint(self, grammar: Grammar, limit: int) -> Constraint:
        """A new answer's place in `grammar`; it has room for `limit` tokens.

        Raises RequestError where the grammar cannot be compiled.
        """
        with self._lock:
            if grammar not in self._compiled:
                self._compiled[grammar] = self._compile(grammar)
                if len(self._compiled) > KEPT:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(grammar)
            return Constraint(self._compiled[grammar].deep_copy(), self._threads, self._ways_out, limit)

    @cached_property
    def _ways_out(self) -> WaysOut:
        return WaysOut(self._tokenizer)

    def _compile(self, grammar: Grammar) -> LLMatcher:
        try:
            text = _WRITTEN[grammar.kind](grammar.text)
            failed, messages = LLMatcher.validate_grammar_with_warnings(text, self._vocabulary)
        except ValueError as error:  # JSON beyond what the library reads, such as nested too deeply
            failed, messages = True, [str(error)]
        if failed:
            reason = messages[0].split("\n")[0][:200]
            raise RequestError(
                f"the {grammar.kind} cannot be followed: {reason}: mend it", param=grammar.param
            )
        return LLMatcher(self._vocabulary, text, log_level=0)


class WaysOut:
    """Which token a text in a grammar ends soonest with; a good guess, which the grammar then checks."""

    _FIRST = ('"', "}", "]", ",", "0", "a", "1", " ")

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        ids = [tokenizer.encode(text) for text in self._FIRST]
        self._first = [each[0] for each in ids if len(each) == 1]
        self.ends = tokenizer.stop_ids
        self.end = min(self.ends, default=None)

    def path(self, matcher: LLMatcher, most: int) -> list[int] | None:
        """Tokens that lead to an end, at most so many; None where none was found."""
        found: list[int] = []
        while len(found) <= most:
            if matcher.is_accepting() and not matcher.is_stopped():
                return found if self.end is None else [*found, self.end]
            if matcher.is_stopped():
                return None if matcher.is_error() else found
            found += (forced := matcher.compute_ff_tokens() or [self._choose(matcher)])
            if not matcher.consume_tokens(forced):
                return None
        return None

    def _choose(self, matcher: LLMatcher) -> int:
        bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        known = next((token for token in self._first if token < len(bits) and bits[token]), None)
        return int(bits.argmax()) if known is None else known


class Constraint:
    """Where one answer stands in its grammar.

    limit: tokens that it has room for. Where they run short, tokens after which no end is in reach are not
    drawn: so that an answer to a schema ends well, however weak the model.
    hurried: that has kept a probable token out.
    """

    def __init__(self, matcher: LLMatcher, threads: ThreadPoolExecutor, ways: WaysOut, limit: int) -> None:
        self._matcher = matcher
        self._threads = threads
        self._ways = ways
        self._left = self._look_at = limit
        self._ready: Future[tuple[bytes, list[int] | None]] | None = None
        self.hurried = False

    @property
    def ended(self) -> bool:
        """Whether nothing may follow but the end."""
        return self._matcher.is_stopped()

    def begin(self) -> None:
        """Find out which tokens may come next, beside the model's step."""
        self._ready = self._ready or self._threads.submit(self._find)

    def apply(self, logits: Tensor) -> None:
        """Set the others' `logits`, (V,), to -inf in place."""
        self.begin()
        assert self._ready is not None
        mask, way = self._ready.result()
        packed = np.frombuffer(mask, dtype=np.uint8)
        allowed = torch.from_numpy(np.unpackbits(packed, count=len(logits), bitorder="little"))
        logits.masked_fill_(allowed.to(logits.device) == 0, -torch.inf)
        if way:
            self._lead(logits, way)

    def add(self, token: int) -> None:
        """The answer goes on with `token`."""
        self._ready = None
        self._left -= 1
        self._matcher.consume_token(token)

    def _find(self) -> tuple[bytes, list[int] | None]:
        """A bit for each token, and, where there is hurry, a way to the end."""
        return self._matcher.compute_bitmask(), self._way() if self._left <= self._look_at else None

    def _way(self) -> list[int] | None:
        """The farther the end of the room, the later a way is looked for again."""
        way = self._ways.path(self._matcher.deep_copy(), min(self._left, LONGEST_WAY))
        needed = MARGIN + len(way or ())
        self._look_at = max(needed, (self._left + needed) // 2)
        free = way == [self._ways.end]
        return way if needed >= self._left and not free else None

    def _lead(self, logits: Tensor, way: list[int]) -> None:
        """Keep tokens out after which the room does not last; where it is narrow, all that were not tried."""
        best = logits.topk(min(TRIED, len(logits)))
        tried = [
            token
            for token, value in zip(*map(Tensor.tolist, reversed(best)), strict=True)
            if value > -torch.inf
        ]
        needed = {token: self._needed_after(token) for token in tried}
        kept = [token for token in tried if needed[token] <= self._left]
        self.hurried = self.hurried or len(kept) < len(tried)
        if max(needed.values(), default=0) + SPARE > self._left:
            kept = kept or way[:1]
            values = logits[kept].clamp_min(torch.finfo(logits.dtype).min)
            logits.fill_(-torch.inf)[kept] = values

    def _needed_after(self, token: int) -> int:
        """Tokens up to the end, `token` included."""
        matcher = self._matcher.deep_copy()
        if token in self._ways.ends or not matcher.consume_token(token):
            return 1
        way = self._ways.path(matcher, min(self._left, LONGEST_WAY))
        return 1 + (LONGEST_WAY if way is None else len(way))


def _choice(text: str) -> str:
    return "start: " + " | ".join(json.dumps(each, ensure_ascii=False) for each in json.loads(text))


_WRITTEN: dict[str, Callable[[str], str]] = {
    "json_schema": lambda text: LLMatcher.grammar_from_json_schema(text, overrides=SPACING),  # type: ignore[arg-type]
    "regex": LLMatcher.grammar_from_regex,
    "lark": LLMatcher.grammar_from_lark,
    "choice": lambda text: LLMatcher.grammar_from_lark(_choice(text)),
}
