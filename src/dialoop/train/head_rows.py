"""Rows for heads as token ids and what is learnt at which of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dialoop.chat.plain import TextTokenizer
from dialoop.data.word_ids import WordIds
from dialoop.errors import TrainError
from dialoop.train.batch import Batch, Ints
from dialoop.types import Labelled, Tagged


@dataclass(frozen=True, slots=True)
class HeadRow:
    """token_ids: (T,); places: where something is learnt; classes: what, as numbers.

    words: of a tagged row, all that it had before it was cut.
    """

    token_ids: tuple[int, ...]
    places: tuple[int, ...]
    classes: tuple[int, ...]
    words: int = 0


@dataclass(frozen=True, slots=True)
class HeadRows:
    """rows; `cut` of them lost what went beyond the length."""

    rows: tuple[HeadRow, ...]
    cut: int


def labelled_rows(
    rows: Sequence[Labelled], labels: Sequence[str], tokenizer: TextTokenizer, max_length: int
) -> HeadRows:
    """The class is learnt at the last token. Raises TrainError for a class that training rows do not have."""
    number = {label: i for i, label in enumerate(labels)}
    made, cut = [], 0
    for row in rows:
        ids, shorter = cut_text(tokenizer, row.text, max_length)
        cut += shorter
        made.append(HeadRow(tuple(ids), (len(ids) - 1,), (_numbered(row.label, number),)))
    return HeadRows(tuple(made), cut)


def _numbered(label: str, number: dict[str, int]) -> int:
    if label not in number:
        raise TrainError(
            f"class {label!r} is in no training row: give rows of it, or take it out of the test rows"
        )
    return number[label]


def cut_text(tokenizer: TextTokenizer, text: str, max_length: int) -> tuple[list[int], bool]:
    """The ids of a text, its end cut off where it is too long; and whether it was. One token at least."""
    bare = tokenizer.encode(text, framed=False) or tokenizer.encode(".", framed=False)
    room = max_length - len(tokenizer.frame([]))
    return tokenizer.frame(bare[:room]), len(bare) > room


def tagged_rows(
    rows: Sequence[Tagged], tags: Sequence[str], tokenizer: TextTokenizer, max_length: int
) -> HeadRows:
    """The tag of a word is learnt at its first token; words beyond `max_length` are cut off."""
    number = {tag: i for i, tag in enumerate(tags)}
    spell = WordIds(tokenizer)
    made, cut = [], 0
    for row in rows:
        ids, places = spell.ids(row.tokens, max_length)
        cut += len(places) < len(row.tokens)
        classes = tuple(_numbered(tag, number) for tag in row.tags[: len(places)])
        made.append(HeadRow(tuple(ids), tuple(places), classes, len(row.tokens)))
    return HeadRows(tuple(made), cut)


def pack_heads(rows: Sequence[HeadRow], class_weights: Sequence[float] | None = None) -> Batch:
    """Rows side by side; targets and weights stand where something is learnt.

    class_weights: by class, None = 1 each.
    """
    lengths = tuple(len(row.token_ids) for row in rows)
    starts = np.cumsum([0, *lengths[:-1]])
    total = sum(lengths)
    targets, weights = np.zeros(total, np.int64), np.zeros(total, np.float32)
    for start, row in zip(starts, rows, strict=True):
        at = start + np.asarray(row.places, dtype=np.int64)
        targets[at] = row.classes
        weights[at] = 1.0 if class_weights is None else [class_weights[c] for c in row.classes]
    ids: Ints = np.concatenate([np.asarray(row.token_ids, np.int64) for row in rows])
    return Batch(ids, targets, weights, lengths)


@dataclass(frozen=True, slots=True)
class GroupedBatch(Batch):
    """Documents that are learnt group by group: where memory ends, it is halved between groups.

    groups: how many documents each has.
    """

    groups: tuple[int, ...] = ()

    @property
    def rows(self) -> int:
        return len(self.groups)

    def halves(self) -> tuple[GroupedBatch, GroupedBatch]:
        """Two batches of about as many tokens; of at least two groups."""
        documents = np.cumsum(self.groups)[:-1]
        ends = np.cumsum(self.lengths)[documents - 1]
        group = int(np.abs(ends - len(self.token_ids) / 2).argmin())
        place, count = int(ends[group]), int(documents[group])
        first = self.part(slice(None, place), slice(None, count))
        second = self.part(slice(place, None), slice(count, None))
        return (
            replace(first, groups=self.groups[: group + 1]),
            replace(second, groups=self.groups[group + 1 :]),
        )


def pack_groups(
    groups: Sequence[Sequence[HeadRow]], class_weights: Sequence[float] | None = None
) -> GroupedBatch:
    """Groups side by side, as `pack_heads` lays rows."""
    batch = pack_heads([row for group in groups for row in group], class_weights)
    return GroupedBatch(batch.token_ids, batch.targets, batch.weights, batch.lengths, tuple(map(len, groups)))
