"""Conversations as rendered training rows that fit a length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dialoop.chat.render import Rendered, render
from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.config import MaskKind
from dialoop.data.mix import SOURCE
from dialoop.errors import RenderError, TrainError
from dialoop.types import Conversation


@dataclass(frozen=True, slots=True)
class Rows:
    """Rendered rows; `shortened` lost their oldest turns, `dropped` (positions) do not fit even so.

    sources: where each row came from, "" where its metadata does not say.
    """

    rows: tuple[Rendered, ...]
    shortened: int
    dropped: tuple[int, ...]
    sources: tuple[str, ...] = ()

    @property
    def supervised(self) -> int:
        """Tokens that are learnt."""
        return sum(weight > 0 for row in self.rows for weight in row.loss_mask[1:])


def fit_rows(
    conversations: Sequence[Conversation], tokenizer: ChatTokenizer, *, max_length: int, mask: MaskKind
) -> Rows:
    """Render all. Raises TrainError with the row's number where a conversation has nothing to learn."""
    fitted: list[Rendered] = []
    sources: list[str] = []
    shortened, dropped = 0, []
    for position, conversation in enumerate(conversations):
        try:
            row, cut = _fit(conversation, tokenizer, max_length, mask)
        except RenderError as error:
            raise TrainError(f"{_name(conversation, position)}: {error}") from error
        shortened += cut
        if row is None:
            dropped.append(position)
        else:
            fitted.append(row)
            sources.append(str(conversation.metadata.get(SOURCE, "")))
    if not fitted:
        raise TrainError(
            f"none of {len(conversations)} conversations fits {max_length} tokens: raise train.max_length"
        )
    return Rows(tuple(fitted), shortened, tuple(dropped), tuple(sources))


def _fit(
    conversation: Conversation, tokenizer: ChatTokenizer, max_length: int, mask: MaskKind
) -> tuple[Rendered | None, bool]:
    """The row, its oldest turns left out until it fits, and whether any was; None where none fits."""
    row = render(conversation, tokenizer, mask=mask)
    cut = False
    while len(row.token_ids) > max_length:
        shorter = without_oldest(conversation)
        if shorter is None:
            return None, False
        conversation, cut = shorter, True
        try:
            row = render(conversation, tokenizer, mask=mask)
        except RenderError:  # what could be learnt lay in the turns that were left out
            return None, False
    return row, cut


def without_oldest(conversation: Conversation) -> Conversation | None:
    """The conversation without its first exchange, system turns kept; None where only one is left."""
    messages = conversation.messages
    turns = [i for i, message in enumerate(messages) if message.role not in ("system", "developer")]
    starts = [i for i in turns[1:] if messages[i].role == "user"]
    if not starts:
        return None
    kept = (m for i, m in enumerate(messages) if i >= starts[0] or i not in turns)
    return replace(conversation, messages=tuple(kept))


def _name(conversation: Conversation, position: int) -> str:
    source, line = conversation.metadata.get(SOURCE), conversation.metadata.get("line")
    return f"{source}:{line}" if source and line else f"conversation {position + 1}"
