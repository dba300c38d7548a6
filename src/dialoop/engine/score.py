"""log P(answer | history): of whole conversations, and of many answers to one history."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from itertools import islice, pairwise

import numpy as np
import torch
from torch import Tensor

from dialoop.chat.render import Rendered, render
from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.models.cache import Cache, Span
from dialoop.models.packed import PackedBody, fill
from dialoop.models.paged import Body
from dialoop.models.steps import SpanStep
from dialoop.types import Conversation, Scored

BATCH_TOKENS = 4096


@torch.no_grad()
def log_likelihoods(
    model: torch.nn.Module,
    tokenizer: ChatTokenizer,
    conversations: Sequence[Conversation],
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[tuple[float, int]]:
    """Of each conversation's last assistant turn, its end-of-turn included: (sum of natural logs, tokens)."""
    rows = [render(conversation, tokenizer, mask="last") for conversation in conversations]
    body = PackedBody(model)
    try:
        found: list[tuple[float, int]] = []
        for batch in fill([len(row.token_ids) for row in rows], range(len(rows)), BATCH_TOKENS):
            found += _score(body, [rows[i] for i in batch])
            if on_progress is not None:
                on_progress(len(found), len(rows))
        return found
    finally:
        body.release()


def answers_to_one_history(
    body: Body, rows: Sequence[Rendered], step_tokens: int
) -> Generator[None, None, list[Scored]]:
    """What `rows`, which begin alike, have in common is read once. Yields after each forward.

    The log-probabilities of each row's learnt tokens; `step_tokens` bounds a forward, one row at least.
    """
    learnt = [[i for i, weight in enumerate(row.loss_mask) if weight > 0] for row in rows]
    # The token before an answer is read with each answer: its logits say what comes first.
    common = min(_common(rows), *(places[0] - 1 for places in learnt))
    lengths = [len(row.token_ids) - common for row in rows]
    device = body.device
    cache = Cache(common + max(step_tokens, *lengths))
    nothing = torch.zeros(0, dtype=torch.long, device=device)
    for start in range(0, common, step_tokens):
        stop = min(start + step_tokens, common)
        ids = torch.tensor(rows[0].token_ids[start:stop], device=device)
        body.logits(ids, SpanStep(cache, [Span(start, stop, range(stop))], device), nothing)
        yield
    scored: dict[int, Scored] = {}
    for batch in fill(lengths, range(len(rows)), step_tokens):
        ends = np.cumsum([0, *(lengths[i] for i in batch)]).tolist()
        spans = [
            Span(common, len(rows[i].token_ids), [*range(common), *range(common + a, common + b)])
            for i, (a, b) in zip(batch, pairwise(ends), strict=True)
        ]
        ids = torch.tensor([t for i in batch for t in rows[i].token_ids[common:]], device=device)
        wanted = [
            start + place - common for i, start in zip(batch, ends, strict=False) for place in learnt[i]
        ]
        targets = torch.tensor(wanted, device=device)
        logs = body.logits(ids, SpanStep(cache, spans, device), targets - 1).log_softmax(-1)
        found = iter(logs.gather(1, ids[targets, None]).squeeze(1).tolist())
        scored |= {i: Scored(tuple(islice(found, len(learnt[i])))) for i in batch}
        yield
    return [scored[i] for i in range(len(rows))]


def _common(rows: Sequence[Rendered]) -> int:
    """Tokens that all rows begin with."""
    first, last = min(row.token_ids for row in rows), max(row.token_ids for row in rows)
    pairs = zip(first, last, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(last)))


def _score(body: PackedBody, rows: Sequence[Rendered]) -> list[tuple[float, int]]:
    lengths = [len(row.token_ids) for row in rows]
    ids = torch.tensor([i for row in rows for i in row.token_ids], device=body.device)
    learnt = torch.tensor([weight > 0 for row in rows for weight in row.loss_mask], device=ids.device)
    places = learnt.nonzero().squeeze(1)
    hidden = body.hidden(ids, lengths)[places - 1]
    logs: Tensor = body.logits(hidden).float().log_softmax(-1).gather(1, ids[places, None]).squeeze(1)
    owners = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(lengths))[places.cpu()]
    sums = torch.zeros(len(rows), dtype=torch.float64).index_add_(0, owners, logs.cpu().double())
    counts = torch.bincount(owners, minlength=len(rows))
    return list(zip(sums.tolist(), counts.tolist(), strict=True))
