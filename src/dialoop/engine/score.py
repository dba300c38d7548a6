"""log P(answer | history) of whole conversations."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dialoop.chat.render import Rendered, render
from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.models.packed import PackedBody, fill
from dialoop.types import Conversation

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


def _score(body: PackedBody, rows: Sequence[Rendered]) -> list[tuple[float, int]]:
    lengths = [len(row.token_ids) for row in rows]
    ids = torch.tensor([i for row in rows for i in row.token_ids], device=body.head.device)
    learnt = torch.tensor([weight > 0 for row in rows for weight in row.loss_mask], device=ids.device)
    places = learnt.nonzero().squeeze(1)
    hidden = body.hidden(ids, lengths)[places - 1]
    logs: Tensor = body.logits(hidden).float().log_softmax(-1).gather(1, ids[places, None]).squeeze(1)
    owners = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(lengths))[places.cpu()]
    sums = torch.zeros(len(rows), dtype=torch.float64).index_add_(0, owners, logs.double().cpu())
    counts = torch.bincount(owners, minlength=len(rows))
    return list(zip(sums.tolist(), counts.tolist(), strict=True))
