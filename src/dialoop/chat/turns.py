"""A dialogue drawn by its template: the text, and where each assistant turn begins and ends in it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any

from dialoop.chat.marks import BREAK, Marked, protect, read_marks
from dialoop.chat.template import ChatTemplate, template_message, template_tool
from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.errors import RenderError, RequestError, echo
from dialoop.types import Conversation, Message, Prompting

Shape = tuple[bool, frozenset[tuple[tuple[Any, ...], tuple[Any, ...]]]]


@dataclass(frozen=True, slots=True)
class Turn:
    """One assistant turn: its message's index; text[start:end] is what the model writes, with its end."""

    index: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Drawn:
    """text: the whole dialogue.  breaks: places inside spelt control tokens.  cuts: where answers begin."""

    text: str
    breaks: tuple[int, ...]
    cuts: tuple[int, ...]
    turns: tuple[Turn, ...] = ()


@dataclass(frozen=True, slots=True)
class Pen:
    """Renders the beginnings of one conversation, always on the same day and with the same tools.

    continued: the last message, the assistant's, ends where its text does.
    """

    tokenizer: ChatTokenizer
    template: ChatTemplate
    rows: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]]
    answers: tuple[int, ...]
    extras: Mapping[str, Any] = field(default_factory=dict)
    continued: bool = False

    @classmethod
    def of(cls, conversation: Conversation, tokenizer: ChatTokenizer, prompting: Prompting) -> Pen:
        """Raises RenderError for a conversation without messages, RequestError about `prompting`."""
        if not conversation.messages:
            raise RenderError("the conversation has no messages: give at least one")
        template = tokenizer.template_for(conversation.tools)
        answers = tuple(i for i, m in enumerate(conversation.messages) if m.role == "assistant")
        rows = [_row(message, template, tokenizer) for message in conversation.messages]
        if prompting.continued:
            _check_continued(conversation.messages[-1])
            rows[-1]["content"] += BREAK
        return cls(
            tokenizer=tokenizer,
            template=template,
            rows=rows,
            tools=[protect(template_tool(tool), tokenizer.guard) for tool in conversation.tools],
            answers=answers,
            extras={
                **protect(_variables(prompting, template), tokenizer.guard),
                "strftime_now": datetime.now().strftime,
            },
            continued=prompting.continued,
        )

    def draw(self, upto: int | None = None, *, prompt: bool = False) -> Marked:
        """The first `upto` messages (None: all), with the generation prompt if `prompt`."""
        rows = self.rows if upto is None else self.rows[:upto]
        marked = read_marks(self.template.render_marked(rows, self.tools, prompt, self.extras))
        return _cut(marked) if self.continued and len(rows) == len(self.rows) else marked

    def start(self, index: int, text: str) -> int | None:
        """Where the answer `index` begins in `text`; None where its prompt is no beginning of `text`."""
        try:
            prompt = self.draw(index, prompt=True).text
        except RenderError:
            return None
        return len(prompt) if text.startswith(prompt) else None

    def end(self, index: int, text: str) -> int | None:
        """Where the answer `index` ends in `text`, its end of turn included; None where `text` differs."""
        try:
            body = self._without_closing(self.draw(index + 1).text)
        except RenderError:
            return None
        return len(body) if text.startswith(body) else None

    def find_turns(self, whole: Marked) -> list[Turn] | None:
        """The turns by the headers before them, where each has one: a message cannot spell it unbroken."""
        header, end = self.tokenizer.header, self.tokenizer.end_of_turn
        if header is None or end is None:
            return None
        starts = [at + len(header) for at in _unbroken(header, whole) if at + len(header) < len(whole.text)]
        ends = list(_unbroken(end, whole))
        if len(starts) != len(self.answers) or not ends or (starts and ends[-1] < starts[-1]):
            return None
        stops = [ends[bisect_left(ends, start)] + len(end) for start in starts]
        return [Turn(*places) for places in zip(self.answers, starts, stops, strict=True)]

    def shape(self, learnt: Container[int]) -> Shape:
        """What a template may branch on: the kinds of neighbours, and which turns are learnt."""
        kinds = [(*_kind(row), i in learnt) for i, row in enumerate(self.rows)]
        return bool(self.tools), frozenset(pairwise([(), *kinds, ()]))

    def _without_closing(self, text: str) -> str:
        """`text` without what the template writes after the end of a turn, such as a newline."""
        end, closing = self.tokenizer.end_of_turn, self.tokenizer.closing
        if end is not None and closing is not None and text.endswith(end + closing):
            return text[: len(text) - len(closing)]
        ends = [match.end() for match in self.tokenizer.control_pattern.finditer(text)]
        return text[: ends[-1]] if ends and not text[ends[-1] :].strip() else text


def _unbroken(token: str, whole: Marked) -> Iterator[int]:
    """Where `token` begins in a text, unless a message spells it there."""
    at = whole.text.find(token)
    while at >= 0:
        i = bisect_right(whole.breaks, at)
        if i == len(whole.breaks) or whole.breaks[i] >= at + len(token):
            yield at
        at = whole.text.find(token, at + 1)


def _row(message: Message, template: ChatTemplate, tokenizer: ChatTokenizer) -> dict[str, Any]:
    """A protected message. What the assistant wrote may hold tags that are no special tokens (`<think>`)."""
    row = template_message(message)
    if row["role"] == "developer" and not template.shows("developer"):
        row["role"] = "system"
    guard = tokenizer.special_guard if message.role == "assistant" else tokenizer.guard
    return {key: protect(value, guard) for key, value in row.items()}


def _check_continued(last: Message) -> None:
    if last.role != "assistant" or last.tool_calls:
        raise RequestError(
            "continue_final_message came and the last message is no text of the assistant's: leave it out",
            param="continue_final_message",
        )


def _cut(marked: Marked) -> Marked:
    """Up to the last break, which stands where the last message's text ends."""
    *breaks, end = marked.breaks
    spans = tuple((start, min(stop, end)) for start, stop in marked.spans)
    return Marked(marked.text[:end], tuple(breaks), spans)


def _variables(prompting: Prompting, template: ChatTemplate) -> dict[str, Any]:
    """Of the template, by the request. Raises RequestError for one that it does not read."""
    for name, value in prompting.variables.items():
        if name not in template.variables and value is not False:
            known = ", ".join(sorted(template.variables)) or "none"
            raise RequestError(
                f"chat_template_kwargs: {template.where} does not read {echo(name)}; it reads: {known[:200]}",
                param="chat_template_kwargs",
            )
    if prompting.documents and not template.shows("documents"):
        raise RequestError(
            f"documents: {template.where} does not show documents: put them into a message", param="documents"
        )
    wishes = {name: value for name, value in prompting.wishes.items() if name in template.variables}
    documents = {"documents": list(prompting.documents)} if prompting.documents else {}
    return {**wishes, **prompting.variables, **documents}


def _kind(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """A message's role, and whether it has text, calls, reasoning or a tag of reasoning."""
    content, present = row["content"], ("tool_calls" in row, "reasoning_content" in row)
    return (row["role"], bool(content.strip()), *present, "</think>" in content)
