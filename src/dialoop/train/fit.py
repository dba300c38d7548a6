"""Conversations as rendered training rows that fit a length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from dialoop.chat.render import Rendered, render
from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.config import MaskKind
from dialoop.data.mix import SOURCE
from dialoop.errors import RenderError, TrainError
from dialoop.types import Conversation, Preference

Item = TypeVar("Item", Conversation, Preference)
Row = TypeVar("Row")


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
    def rendered(self) -> tuple[Rendered, ...]:
        """All that the model sees, in order."""
        return self.rows

    @property
    def supervised(self) -> int:
        """Tokens that are learnt."""
        return sum(weight > 0 for row in self.rows for weight in row.loss_mask[1:])


def fit_rows(
    conversations: Sequence[Conversation], tokenizer: ChatTokenizer, *, max_length: int, mask: MaskKind
) -> Rows:
    """Render all. Raises TrainError with the row's number where a conversation has nothing to learn."""

    def draw(conversation: Conversation) -> Rendered | None:
        row = render(conversation, tokenizer, mask=mask)
        return row if row.size <= max_length else None

    return Rows(*fit_each(conversations, draw, without_oldest, max_length))


def fit_each(
    items: Sequence[Item],
    draw: Callable[[Item], Row | None],
    shorten: Callable[[Item], Item | None],
    max_length: int,
) -> tuple[tuple[Row, ...], int, tuple[int, ...], tuple[str, ...]]:
    """What `Rows` holds. draw: an item's row, None where it is too long.  shorten: None at the shortest.

    Raises TrainError as `fit_rows`.
    """
    fitted: list[Row] = []
    sources: list[str] = []
    shortened, dropped = 0, []
    for position, item in enumerate(items):
        try:
            row, cut = _fit(item, draw, shorten)
        except RenderError as error:
            raise TrainError(f"{_name(item, position)}: {error}") from error
        shortened += cut
        if row is None:
            dropped.append(position)
        else:
            fitted.append(row)
            sources.append(str(item.metadata.get(SOURCE, "")))
    if not fitted:
        raise TrainError(
            f"none of {len(items)} conversations fits {max_length} tokens: raise train.max_length"
        )
    return tuple(fitted), shortened, tuple(dropped), tuple(sources)


def _fit(
    item: Item, draw: Callable[[Item], Row | None], shorten: Callable[[Item], Item | None]
) -> tuple[Row | None, bool]:
    """The row, its oldest turns left out until it fits, and whether any was; None where none fits."""
    row = draw(item)
    cut = row is None
    while row is None:
        shorter = shorten(item)
        if shorter is None:
            return None, False
        item = shorter
        try:
            row = draw(item)
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


def fitted(history: Conversation, fits: Callable[[Conversation], bool]) -> Conversation:
    """The history without its oldest exchanges until it fits; its last one stays, whether it fits or not."""
    while not fits(history) and (shorter := without_oldest(history)) is not None:
        history = shorter
    return history


def _name(item: Conversation | Preference, position: int) -> str:
    source, line = item.metadata.get(SOURCE), item.metadata.get("line")
    return f"{source}:{line}" if source and line else f"conversation {position + 1}"
