"""From the scheduler's pieces to next-token logits."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Generator, Sequence
from contextlib import suppress
from itertools import accumulate, chain, groupby
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from dialoop.chat.render import Rendered
from dialoop.engine.embed import Vectors, embed_by_decoder, vectors_of
from dialoop.engine.prompt_logprobs import ROWS, prompt_logprobs, ranked
from dialoop.engine.reader import Wanted
from dialoop.engine.scheduler import Piece, Tokens
from dialoop.engine.score import answers_to_one_history
from dialoop.engine.wire import Ranked
from dialoop.errors import ModelError
from dialoop.models.adapters import Adapters
from dialoop.models.cache import Cache, Lane, Span
from dialoop.models.compiled import MOST_PARAMETERS
from dialoop.models.graphs import Graphs, recorder
from dialoop.models.lean import LeanDecoder
from dialoop.models.linear import pack_in_place
from dialoop.models.opening import PrefixOpening, opening_of
from dialoop.models.paged import Body, PagedBody, agrees
from dialoop.models.steps import SpanStep
from dialoop.types import Precision, Scored

log = logging.getLogger("dialoop.engine")

T = TypeVar("T")
BLOCK = 16
"""Tokens of a block."""
CACHE_SHARE = 0.25
"""Of the device's memory, the most that keys and values may take unless told otherwise."""


class Runner(Protocol):
    """Reads pieces.

    shares: a sequence may go on from blocks that another one filled, and from the middle of its own.
    """

    shares: bool

    def logits(self, pieces: Sequence[Piece]) -> Tensor:
        """After the pieces that are the last of their sequences, and after each token of their drafts, in
        order, (N, V) float32.
        """
        ...

    def forget(self, tokens: Tokens) -> None:
        """A sequence has left."""
        ...

    def score(
        self, rows: Sequence[Rendered], owner: str, step_tokens: int
    ) -> Generator[None, None, list[Scored]]:
        """Log-probabilities of what rows that begin alike learn; yields after each forward."""
        ...

    def prompt_logprobs(
        self, prompt: Sequence[int], owner: str, count: int, step_tokens: int
    ) -> Generator[None, None, list[list[Ranked]]]:
        """Each token of a prompt after the first, and the best in its place; yields after each forward."""
        ...

    def embed(
        self, texts: Sequence[Sequence[int]], owner: str, wanted: Wanted, step_tokens: int
    ) -> Generator[None, None, Vectors]:
        """Vectors of texts; yields after each forward."""
        ...


def runner_of(
    model: torch.nn.Module,
    blocks: int,
    *,
    context: int = 0,
    adapters: Adapters | None = None,
    precision: Precision | None = None,
    compiled: bool = False,
) -> Runner:
    """A paged runner over `blocks` blocks, or one that reads sequences one by one where it must.

    context: tokens of the longest sequence, 0 = not known.  precision: of the weights, which belong to the
    runner then and are packed; None = they stay as they are, others may use them.  compiled: the layers too,
    of a model so small that it helps; others say in the log that they are not.
    """
    adapters = adapters or Adapters(model)
    body = _body(model, adapters, precision, compiled)
    if body is not None:
        record = recorder(body.device) if opening_of(model) is None else None
        half = precision in ("half", "int8")
        cache = Cache(blocks * BLOCK, longest=context, zeroed=record is not None, half=half)
        graphs = None if record is None else Graphs(body, cache, BLOCK, record)
        return PagedRunner(body, cache, adapters, graphs)
    if isinstance(opening_of(model), PrefixOpening):
        raise ModelError(
            f"{type(model).__name__} takes no keys and values from outside: serve a model that was tuned by "
            f"another method"
        )
    return AloneRunner(model, adapters)


def _body(
    model: torch.nn.Module, adapters: Adapters, precision: Precision | None, compiled: bool
) -> Body | None:
    """The fastest that agrees with the model."""
    lean = None
    with suppress(ModelError):
        if agrees(LeanDecoder(model, None, adapters), model, in_float32=True):
            lean = LeanDecoder(model, precision or "float32", adapters)
    if compiled and (reason := _uncompiled(model, lean, precision)):
        log.warning("%s is not compiled: %s", type(model).__name__, reason)
    elif compiled and lean is not None:
        lean.compile(model)
    if lean is not None:
        if precision is not None:
            lean.release(model)
        return lean
    if precision is not None and all(p.device.type == "cpu" for p in model.parameters()):
        pack_in_place(model, precision)
    paged = PagedBody(model)
    return paged if agrees(paged, model) else None


def _uncompiled(model: torch.nn.Module, lean: LeanDecoder | None, precision: Precision | None) -> str:
    """Why its layers are better not compiled, "" = they are."""
    size = sum(parameter.numel() for parameter in model.parameters())
    if lean is None:
        return "no lean decoder computes the same"
    if lean.by_kernels:
        return "dialoop's own kernels are faster than torch's compiler"
    if precision == "int8":
        return "its weights are int8"
    if size > MOST_PARAMETERS:
        return f"{size:,} parameters take longer to read than the calls that are saved ({MOST_PARAMETERS:,})"
    return ""


class PagedRunner:
    """All pieces in one forward over blocks of keys and values. graphs: of steps without adapters."""

    shares = True

    def __init__(self, body: Body, cache: Cache, adapters: Adapters, graphs: Graphs | None = None) -> None:
        self._body = body
        self.graphs = graphs
        self._adapters = adapters
        self._device = body.device
        self._cache = cache
        self._lanes: dict[Tokens, Lane] = {}

    def logits(self, pieces: Sequence[Piece]) -> Tensor:
        laid = sorted(pieces, key=self._place)
        ids = list(chain.from_iterable(piece.ids for piece in laid))
        spans = [self._span(piece) for piece in laid]
        ends = dict(zip(laid, accumulate(map(len, laid)), strict=True))
        wanted = [
            row
            for piece in pieces
            if piece.last
            for row in range(ends[piece] - 1 - len(piece.draft), ends[piece])
        ]
        with self._adapters.applied(_rows(laid)):
            rows = torch.tensor(wanted, dtype=torch.long, device=self._device)
            if self.graphs is not None and not self._adapters.active:
                logits = self.graphs.logits(ids, spans)
                if logits is not None:
                    return logits[rows]
            step = SpanStep(self._cache, spans, self._device)
            return self._body.logits(torch.tensor(ids, device=self._device), step, rows)

    def _place(self, piece: Piece) -> tuple[str, int]:
        """Rows of one owner lie together, in the order of their lanes."""
        lane = self._lanes.get(piece.tokens)
        return piece.tokens.owner, lane.index if lane and lane.group else sys.maxsize

    def _span(self, piece: Piece) -> Span:
        lane = self._lanes.setdefault(piece.tokens, Lane())
        return Span(piece.start, piece.start + len(piece), piece.tokens.blocks, BLOCK, lane)

    def forget(self, tokens: Tokens) -> None:
        self._lanes.pop(tokens, None)

    def score(
        self, rows: Sequence[Rendered], owner: str, step_tokens: int
    ) -> Generator[None, None, list[Scored]]:
        return _through(self._adapters, owner, answers_to_one_history(self._body, rows, step_tokens))

    def prompt_logprobs(
        self, prompt: Sequence[int], owner: str, count: int, step_tokens: int
    ) -> Generator[None, None, list[list[Ranked]]]:
        return _through(self._adapters, owner, prompt_logprobs(self._body, prompt, count, step_tokens))

    def embed(
        self, texts: Sequence[Sequence[int]], owner: str, wanted: Wanted, step_tokens: int
    ) -> Generator[None, None, Vectors]:
        return _through(self._adapters, owner, embed_by_decoder(self._body, texts, wanted, step_tokens))


class AloneRunner:
    """Each sequence over a cache that transformers keeps: for architectures whose past is no attention's."""

    shares = False

    def __init__(self, model: torch.nn.Module, adapters: Adapters) -> None:
        self._model = model
        self._adapters = adapters
        self._device = next(model.parameters()).device
        self._caches: dict[Tokens, Any] = {}

    @torch.inference_mode()
    def logits(self, pieces: Sequence[Piece]) -> Tensor:
        return torch.cat([self._read(piece) for piece in pieces])[[piece.last for piece in pieces]]

    def _read(self, piece: Piece) -> Tensor:
        ids = torch.tensor([piece.tokens.ids[piece.start : piece.stop]], device=self._device)
        past = self._caches.get(piece.tokens) if piece.start else None
        with self._adapters.applied(_rows([piece])):
            output = self._model(input_ids=ids, past_key_values=past, use_cache=True, logits_to_keep=1)
        self._caches[piece.tokens] = output.past_key_values
        logits: Tensor = output.logits[:, -1].float()
        return logits

    def forget(self, tokens: Tokens) -> None:
        self._caches.pop(tokens, None)

    def score(
        self, rows: Sequence[Rendered], owner: str, step_tokens: int
    ) -> Generator[None, None, list[Scored]]:
        """Each row whole: nothing is shared here."""
        scored = []
        for row in rows:
            ids = torch.tensor([row.token_ids], device=self._device)
            with torch.inference_mode(), self._adapters.applied([(slice(None), owner)]):
                logs = self._model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)
            picked = logs[:-1].gather(1, ids[0, 1:, None]).squeeze(1).tolist()
            learnt = zip(picked, row.loss_mask[1:], strict=True)
            scored.append(Scored(tuple(logprob for logprob, weight in learnt if weight > 0)))
            yield
        return scored

    def prompt_logprobs(
        self, prompt: Sequence[int], owner: str, count: int, step_tokens: int
    ) -> Generator[None, None, list[list[Ranked]]]:
        return _through(self._adapters, owner, self._ranked(prompt, count))

    def embed(
        self, texts: Sequence[Sequence[int]], owner: str, wanted: Wanted, step_tokens: int
    ) -> Generator[None, None, Vectors]:
        return _through(self._adapters, owner, self._vectors(texts, wanted))

    def _vectors(self, texts: Sequence[Sequence[int]], wanted: Wanted) -> Generator[None, None, Vectors]:
        decoder: Any = self._model.get_decoder()  # type: ignore[operator]
        found: Vectors = []
        for text in texts:
            with torch.inference_mode():
                output = decoder(input_ids=torch.tensor([text], device=self._device), use_cache=False)
            found += vectors_of(output.last_hidden_state[0], [len(text)], wanted)
            yield
        return found

    def _ranked(self, prompt: Sequence[int], count: int) -> Generator[None, None, list[list[Ranked]]]:
        """Pieces as long as their logits may be."""
        ids = torch.tensor([prompt], device=self._device)
        past, found = None, list[list[Ranked]]()
        for start in range(0, len(prompt) - 1, ROWS):
            wanted = ids[0, start + 1 : start + ROWS + 1]
            with torch.inference_mode():
                piece = ids[:, start : start + len(wanted)]
                output = self._model(input_ids=piece, past_key_values=past, use_cache=True)
            past = output.past_key_values
            found += ranked(output.logits[0], wanted, count)
            yield
        return found


def _through(adapters: Adapters, owner: str, whole: Generator[None, None, T]) -> Generator[None, None, T]:
    """`whole`, each of its forwards through the owner's adapter."""
    while True:
        with adapters.applied([(slice(None), owner)]):
            try:
                next(whole)
            except StopIteration as ended:
                value: T = ended.value
                return value
        yield


def _rows(pieces: Sequence[Piece]) -> list[tuple[slice, str]]:
    """Which rows of a step belong to which owner; neighbours of one owner are one."""
    rows: list[tuple[slice, str]] = []
    start = 0
    for owner, run in groupby(pieces, key=lambda piece: piece.tokens.owner):
        stop = start + sum(map(len, run))
        rows.append((slice(start, stop), owner))
        start = stop
    return rows


def blocks_for(model: torch.nn.Module, tokens: int, context: int) -> int:
    """Blocks for `tokens` tokens, or for CACHE_SHARE of the memory; for a whole context at least."""
    config: Any = model.config
    config = config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    parameter = next(model.parameters())
    # On a CPU they are float32. Lanes may hold as many tokens again.
    per_value = 4 if parameter.device.type == "cpu" else parameter.element_size()
    per_token = 2 * 2 * config.num_hidden_layers * heads * size * per_value
    room = int(CACHE_SHARE * _memory(parameter.device) / per_token)
    return math.ceil(max(min(tokens, room), context) / BLOCK)


def _memory(device: torch.device) -> int:
    """Bytes of the device's memory that are free (of a GPU) or that the machine has."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
