"""The tokenizer of a Hugging Face directory, with its chat template and the tokens that end a turn."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cached_property
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

from dialoop.chat.callstyle import HERMES, CallStyle, style_of
from dialoop.chat.directory import TokenizerFiles, read_files
from dialoop.chat.encode import Encoded, Encoder, Part
from dialoop.chat.marks import guard
from dialoop.chat.template import ChatTemplate
from dialoop.errors import ModelError, RenderError
from dialoop.types import Message, Tool, ToolCall

_ANSWER = "Qzx 7"
_PROBE = (
    Message("system", "Be brief. 请简短。"),
    Message("user", "Where is order 42?\n  Thanks! 🙂"),
    Message("assistant", "It ships today. 今天发货。"),
    Message("user", "谢谢"),
    Message("assistant", "", tool_calls=(ToolCall("callabcd1", "track", '{"order": 42}'),)),
    Message("tool", "on its way", name="track", tool_call_id="callabcd1"),
    Message("assistant", "它在路上。"),
)
_PROBE_SCHEMA = {"type": "object", "properties": {"order": {"type": "integer", "description": "Its number"}}}
_PROBE_TOOLS = (Tool("track", "Find a parcel", _PROBE_SCHEMA),)
_MAX_SHAPES = 10_000
_PROBE_DAY = datetime(2024, 2, 29, 12, 0)


class ChatTokenizer:
    """Text <-> ids for one model, and the template that renders its dialogues.

    stop_ids: any of these ends an answer (eos of the generation config, the config, the tokenizer, and the
    template's end of turn).
    """

    def __init__(self, files: TokenizerFiles) -> None:
        """Raises ModelError where the files contradict each other."""
        self.template = ChatTemplate(files.template, files.special_tokens, files.where)
        self._tool_template = ChatTemplate(files.tool_template, files.special_tokens, files.where)
        special, templates = files.added(special=True), files.template + files.tool_template
        self._special = frozenset(special)
        tags = (t for t in files.added(special=False) if len(t) > 2 and not t.isspace() and t in templates)
        control = frozenset(special) | frozenset(tags)
        self._encoder = Encoder(files.spec, control)
        self.guard = guard(tuple(control))
        self.special_guard = guard(tuple(special))
        vocabulary = self._encoder.full.get_vocab(with_added_tokens=True)
        self.vocab_size: int = max(vocabulary.values()) + 1
        self.bos_id = self._id(files, "bos_token")
        self.eos_id = self._id(files, "eos_token")
        self.pad_id = self._id(files, "pad_token")
        self.end_of_turn, self.closing = self._find_end_of_turn()
        ends = {self.eos_id, self._encoder.full.token_to_id(self.end_of_turn or "")}
        self.stop_ids: frozenset[int] = files.eos_ids | {i for i in ends if i is not None}
        self.header = self._find_header()
        self.verified: set[Any] = set()

    @classmethod
    def load(cls, directory: Path) -> ChatTokenizer:
        """From a Hugging Face directory. Raises ModelError with what is missing."""
        return cls(read_files(Path(directory)))

    @cached_property
    def call_style(self) -> CallStyle:
        """How this model's answers call tools."""
        template = self._tool_template
        return style_of(template.source) if template.shows("tools") else HERMES

    @cached_property
    def takes_system(self) -> bool:
        """Whether the template takes a system turn."""
        try:
            self.template.render([Message("system", "Be brief."), Message("user", "Hi")])
        except RenderError:
            return False
        return True

    def special_id(self, token: str) -> int | None:
        """The id of a special token; None where `token` is plain text."""
        token_id = self._token_id(token)
        return token_id if token_id is not None and token in self._special else None

    def template_for(self, tools: Sequence[Any]) -> ChatTemplate:
        """The template for a dialogue with these tools: some models have one of its own for them."""
        return self._tool_template if tools else self.template

    def encode(self, text: str, *, control: bool = False) -> list[int]:
        """Ids of `text`; unless `control`, control tokens spelt in it are plain text. Adds no bos or eos."""
        return self._encoder.encode(text, control=control)

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Ids of a text that is no dialogue: control tokens are such, and it begins as the tokenizer's files
        want every text to begin.
        """
        probe, full = self.encode("a", control=True), self._encoder.full.encode("a").ids
        start = next((i for i in range(len(full)) if full[i : i + len(probe)] == probe), 0)
        return (*full[:start], *self.encode(text, control=True))

    def pieces(self, ids: Sequence[int]) -> tuple[str, ...]:
        """What tokens are written as in the vocabulary; "" outside of it."""
        return tuple(self._encoder.full.id_to_token(token) or "" for token in ids)

    def encode_parts(self, parts: Sequence[Part]) -> Encoded:
        """Ids of a text in parts, such that a part never changes the ids of those before it."""
        return self._encoder.encode_parts(parts)

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Text of `ids`; bytes that are no UTF-8 become U+FFFD."""
        return str(self._encoder.full.decode(list(ids), skip_special_tokens=skip_special))

    def decode_showing(self, shown: frozenset[int]) -> Callable[[Sequence[int]], str]:
        """`decode` that shows these of the special tokens."""

        def decode(ids: Sequence[int]) -> str:
            if shown.isdisjoint(ids):
                return self.decode(ids)
            places = [i for i, token in enumerate(ids) if token in shown]
            stretches = pairwise([-1, *places, len(ids)])
            texts = [self.decode(ids[a + 1 : b]) for a, b in stretches]
            marks = [self.token_bytes(ids[i]).decode() for i in places]
            return "".join(a + b for a, b in zip_longest(texts, marks, fillvalue=""))

        return decode

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that one token stands for. Raises ModelError outside the vocabulary."""
        return self._encoder.token_bytes(token_id)

    def to_json(self) -> str:
        """The whole tokenizer as tokenizers' JSON."""
        return str(self._encoder.full.to_str())

    @property
    def control_pattern(self) -> Any:
        """A compiled pattern that finds control tokens in a rendered text."""
        return self._encoder.control_pattern

    def fingerprint(self) -> str:
        """sha256 (32 hex digits) of a probe dialogue's tokens: the same for tokenizers that render alike."""
        digest = hashlib.sha256()
        for part in self._probe_texts():
            digest.update(json.dumps([part, self.encode(part, control=True)]).encode())
        return digest.hexdigest()[:32]

    def _probe_texts(self) -> list[str]:
        """The probe with and without its system turn, its tools and the generation prompt, on a fixed day."""
        cases: list[tuple[tuple[Message, ...], tuple[Tool, ...]]] = [
            (_PROBE[1:4], ()), (_PROBE[:4], ()), (_PROBE[1:], _PROBE_TOOLS),
        ]  # fmt: skip
        return [
            self._probe_text(messages, tools, prompt) for messages, tools in cases for prompt in (False, True)
        ]

    def _probe_text(self, messages: Sequence[Message], tools: Sequence[Tool], prompt: bool) -> str:
        try:
            return self.template_for(tools).render(
                messages, tools, add_generation_prompt=prompt, strftime_now=_PROBE_DAY.strftime
            )
        except RenderError:
            return "refused"

    def _id(self, files: TokenizerFiles, name: str) -> int | None:
        token = files.special_tokens.get(name)
        return None if token is None else self._token_id(token)

    def _token_id(self, token: str) -> int | None:
        return self._encoder.full.token_to_id(token)

    def remember(self, shape: Any) -> None:
        """Note that dialogues of this shape have been checked; forgets all when there are too many."""
        if len(self.verified) >= _MAX_SHAPES:
            self.verified.clear()
        self.verified.add(shape)

    def _find_header(self) -> str | None:
        """What the generation prompt adds, if it holds a control token; None: turns have no such sign."""
        user = [Message("user", "Hi")]
        try:
            without, text = self.template.render(user), self.template.render(user, add_generation_prompt=True)
        except RenderError:
            return None
        pairs = enumerate(zip(without, text, strict=False))
        common = next((i for i, (a, b) in pairs if a != b), min(len(without), len(text)))
        for match in self.control_pattern.finditer(text):
            if match.start() < common < match.end():
                common = match.start()
        return text[common:] if self.control_pattern.search(text, common) else None

    def _find_end_of_turn(self) -> tuple[str | None, str | None]:
        """The control token after an answer, and what the template writes after that; None: none, unknown."""
        try:
            text = self.template.render([Message("user", "Hi"), Message("assistant", _ANSWER)])
        except RenderError:
            return None, None
        _, found, tail = text.rpartition(_ANSWER)
        if not found:
            raise ModelError(f"{self.template.where}: it does not show what the assistant says")
        end = self.control_pattern.search(tail)
        return (end[0], tail[end.end() :]) if end else (None, "")
