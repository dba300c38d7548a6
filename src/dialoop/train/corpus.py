"""Pre-training sources as arrays of tokens on disk, and the stages that draw from them."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dialoop.chat.plain import TextTokenizer
from dialoop.chat.render import render
from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.chat.wire import conversation_from_openai
from dialoop.config import PretrainRecipe, Stage, TextSource, expand
from dialoop.data.language import spaced
from dialoop.data.mix import epoch_order
from dialoop.errors import DataError, RenderError, TrainError
from dialoop.models.packed import fill
from dialoop.train.batch import Batch, Ints, windows

WANTED = {"text": ("text",), "chat": ("messages",), "parallel": ("en", "zh"), "words": ("tokens",)}
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tokens:
    """One source: the documents' tokens end to end, which of them are learnt, and where each begins.

    tokens: (N,) uint16 or uint32; answers: (N,) bool, all of a text; offsets: (documents + 1,) int64.
    """

    tokens: NDArray[np.integer]
    answers: NDArray[np.bool_]
    offsets: Ints


def rows(source: TextSource) -> Iterator[Mapping[str, Any]]:
    """The rows of a source's JSONL file whose licence is wanted. Raises DataError with file and line."""
    path = expand(source.path)
    if not path.is_file():
        raise DataError(f"{path}: no such file: a source is a JSONL file, gzipped or not")
    with (
        gzip.open(path, "rt", encoding="utf-8")
        if path.suffix == ".gz"
        else path.open(encoding="utf-8") as lines
    ):
        for number, line in enumerate(lines, 1):
            if line.strip():
                row = _row(line, source, f"{path}:{number}")
                if not source.licences or row.get("licence") in source.licences:
                    yield row


def _row(line: str, source: TextSource, where: str) -> Mapping[str, Any]:
    wanted = WANTED[source.as_]
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: not JSON: expected one object a line, with {' and '.join(wanted)}"
        ) from error
    if not isinstance(row, dict) or any(key not in row for key in wanted):
        raise DataError(
            f"{where}: lacks {' or '.join(wanted)}: write it, or set the source's `as` to what the rows are"
        )
    return row


def plain_text(row: Mapping[str, Any], source: TextSource) -> str:
    """A row's text, as an encoder reads it and merges are learnt from it."""
    if source.as_ == "chat":
        return "\n".join(turn.get("content") or "" for turn in row["messages"])
    if source.as_ == "words":
        return spaced([str(word) for word in row["tokens"]])
    return str(row["text"]) if source.as_ == "text" else f"{row['en']}\n{row['zh']}"


def is_held_out(name: str, index: int, share: float) -> bool:
    """Whether document `index` of source `name` is kept from training: a hash, so adding rows moves none."""
    digest = hashlib.blake2b(f"{name}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def tokenise(
    name: str, source: TextSource, tokenizer: ChatTokenizer | TextTokenizer, folder: Path, held_out: float
) -> Tokens:
    """The source's training tokens, made once and kept in `folder`; held-out rows go to a JSONL beside.

    An encoder's tokenizer reads conversations as plain text.
    """
    target = folder / f"{name}.npz"
    if not target.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        pieces, kept_out, refused = [], [], 0
        for index, row in enumerate(rows(source)):
            if is_held_out(name, index, held_out):
                kept_out.append(json.dumps(row, ensure_ascii=False))
            elif (piece := _tokens_of(row, source, tokenizer)) is not None:
                pieces.append(piece)
            else:
                refused += 1
        if refused:
            log.warning("%s: %d conversations cannot be rendered and are left out", name, refused)
        (folder / f"{name}.held_out.jsonl").write_text("\n".join(kept_out), encoding="utf-8")
        _write(target, pieces, tokenizer.vocab_size)
    arrays = np.load(target)
    learnt = arrays["answers"] if source.as_ == "chat" else np.ones(len(arrays["tokens"]), bool)
    return Tokens(arrays["tokens"], learnt, arrays["offsets"])


def _tokens_of(
    row: Mapping[str, Any], source: TextSource, tokenizer: ChatTokenizer | TextTokenizer
) -> tuple[Ints, Any] | None:
    if isinstance(tokenizer, TextTokenizer):
        ids = np.asarray(tokenizer.encode(plain_text(row, source))[1:])  # without [CLS], with [SEP]
        return ids, np.ones(len(ids), bool)
    end = [] if tokenizer.pad_id is None else [tokenizer.pad_id]
    if source.as_ != "chat":
        ids = np.asarray(tokenizer.encode(plain_text(row, source)) + end)
        return ids, np.zeros(len(ids), bool)
    try:
        rendered = render(conversation_from_openai(row), tokenizer)
    except (DataError, RenderError):
        return None
    answers = [weight > 0 for weight in rendered.loss_mask] + [False] * len(end)
    return np.asarray([*rendered.token_ids, *end]), np.asarray(answers)


def _write(target: Path, pieces: Sequence[tuple[Ints, Any]], vocabulary: int) -> None:
    kind = np.uint16 if vocabulary <= 2**16 else np.uint32
    offsets = np.cumsum([0, *(len(ids) for ids, _ in pieces)])
    draft = target.with_name(target.name + ".draft.npz")
    empty = np.zeros(0, np.int64)
    tokens = np.concatenate([ids for ids, _ in pieces] or [empty]).astype(kind)
    answers = np.concatenate([mask for _, mask in pieces] or [empty]).astype(bool)
    np.savez(draft, tokens=tokens, answers=answers, offsets=offsets)
    draft.rename(target)


class StagePlan:
    """One stage as updates of packed rows."""

    def __init__(self, stage: Stage, recipe: PretrainRecipe, sources: Mapping[str, Tokens]) -> None:
        self.stage, self.recipe = stage, recipe
        self.sources = [sources[name] for name in stage.sources]
        repeats = [stage.repeat.get(name, recipe.sources[name].repeat) for name in stage.sources]
        self.documents = _documents(self.sources, repeats, recipe.seed)
        starts = [s.offsets for s in self.sources]
        self.lengths = np.asarray([starts[s][d + 1] - starts[s][d] for s, d in self.documents])
        self.steps = max(1, stage.tokens // stage.batch_tokens)
        self._order: tuple[int, Ints, Ints] | None = None
        self._rows: dict[int, list[list[int]]] = {}
        wanted = 1 if stage.mask == "assistant" else stage.length + 1
        if self.tokens < wanted:
            raise TrainError(
                f"stage {stage.name!r}: its sources hold {self.tokens} tokens, a row takes {wanted}: "
                f"add sources, or lower `length`"
            )

    @property
    def _room(self) -> int:
        """Tokens of whole conversations in one forward pass."""
        return min(self.recipe.micro_batch, self.stage.batch_tokens)

    @property
    def tokens(self) -> int:
        """Of one pass over the stage's sources."""
        return int(self.lengths.sum())

    def batches(self, step: int) -> Sequence[Batch]:
        return self._conversations(step) if self.stage.mask == "assistant" else self._windows(step)

    def _windows(self, step: int) -> Sequence[Batch]:
        """Windows of the epoch's running text, drawn in random order so that an update mixes sources."""
        length = self.stage.length
        count = (self.tokens - 1) // length
        per_update = min(max(self.stage.batch_tokens // length, 1), count)
        epoch, place = divmod(step * per_update, count // per_update * per_update)
        order = epoch_order(count, self.recipe.seed + 1, epoch)[place : place + per_update]
        rows = [self._stream(epoch, int(window) * length, length + 1) for window in order]
        micro = max(self.recipe.micro_batch // length, 1)
        return [windows(rows[i : i + micro]) for i in range(0, len(rows), micro)]

    def _stream(self, epoch: int, start: int, count: int) -> NDArray[np.integer]:
        if self._order is None or self._order[0] != epoch:
            order = epoch_order(len(self.documents), self.recipe.seed, epoch)
            self._order = (epoch, order, np.cumsum([0, *self.lengths[order]]))
        _, order, ends = self._order
        first = int(np.searchsorted(ends, start, side="right")) - 1
        parts, have, skip = [], 0, start - int(ends[first])
        while have < count:
            tokens = self.document(int(order[first]))[0][skip : skip + count - have]
            parts.append(tokens)
            have, skip, first = have + len(tokens), 0, first + 1
        return np.concatenate(parts)

    def document(self, index: int) -> tuple[NDArray[np.integer], NDArray[np.bool_]]:
        """Its tokens, and which of them are learnt."""
        source, document = self.documents[index]
        held = self.sources[source]
        span = slice(held.offsets[document], held.offsets[document + 1])
        return held.tokens[span], held.answers[span]

    def _conversations(self, step: int) -> Sequence[Batch]:
        """Whole conversations, each seeing itself alone; longer ones are cut at `length`."""
        per_update = self.stage.batch_tokens // self._room
        epoch, place = 0, step * per_update
        while place >= len(packs := self._packs(epoch)):
            epoch, place = epoch + 1, place - len(packs)
        chosen = packs[place : place + per_update]
        return [self._pack(rows) for rows in chosen]

    def _packs(self, epoch: int) -> list[list[int]]:
        if epoch not in self._rows:
            capped = np.minimum(self.lengths, self.stage.length)
            order = epoch_order(len(self.documents), self.recipe.seed, epoch)
            self._rows[epoch] = fill(capped.tolist(), order, self._room)
        return self._rows[epoch]

    def _pack(self, rows: Sequence[int]) -> Batch:
        documents = sorted((self.document(row) for row in rows), key=lambda document: len(document[0]))
        cut = [(ids[: self.stage.length], answers[: self.stage.length]) for ids, answers in documents]
        return Batch(
            np.concatenate([ids for ids, _ in cut]).astype(np.int64),
            np.concatenate([np.append(ids[1:], 0) for ids, _ in cut]).astype(np.int64),
            np.concatenate([np.append(answers[1:], False) for _, answers in cut]).astype(np.float32),
            tuple(len(ids) for ids, _ in cut),
        )


def _documents(sources: Sequence[Tokens], repeats: Sequence[float], seed: int) -> list[tuple[int, int]]:
    """(source, document) as often as `repeats` says; a fraction takes that share, drawn once."""
    chosen: list[tuple[int, int]] = []
    for number, (source, repeat) in enumerate(zip(sources, repeats, strict=True)):
        count = len(source.offsets) - 1
        chosen += [(number, d) for _ in range(int(repeat)) for d in range(count)]
        extra = np.random.default_rng((seed, number)).permutation(count)[: round(count * (repeat % 1))]
        chosen += [(number, int(d)) for d in extra]
    return chosen


class StagesPlan:
    """All stages of a recipe, one after the other."""

    def __init__(self, recipe: PretrainRecipe, sources: Mapping[str, Tokens]) -> None:
        self.stages = [StagePlan(stage, recipe, sources) for stage in recipe.stages]

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

    def _find(self, step: int) -> tuple[StagePlan, int]:
        for stage in self.stages:
            if step < stage.steps:
                return stage, step
            step -= stage.steps
        return self.stages[-1], step

    def name(self, step: int) -> str:
        return self._find(step)[0].stage.name

    def batches(self, step: int) -> Sequence[Batch]:
        stage, local = self._find(step)
        return stage.batches(local)

    def rate(self, step: int) -> float:
        """Linear from the stage's rate to its `final` share, after a linear warm-up where it has one."""
        plan, local = self._find(step)
        share = local / plan.steps
        rate = plan.stage.learning_rate * (1 - share * (1 - plan.stage.final))
        return rate * min(1.0, (local + 1) / max(plan.stage.warmup, 1))
