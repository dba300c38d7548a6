"""How probable each token of a prompt is after those before it."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import torch
from torch import Tensor

from dialoop.engine.wire import Ranked
from dialoop.models.cache import Cache, Span
from dialoop.models.paged import Body
from dialoop.models.steps import SpanStep

ROWS = 64
"""Places whose logits, (ROWS, V), are held at a time."""


def prompt_logprobs(
    body: Body, prompt: Sequence[int], count: int, step_tokens: int
) -> Generator[None, None, list[list[Ranked]]]:
    """Of each token after the first: itself, then the `count` best in its place. Yields after each forward.

    The prompt is read anew over a cache of its own: blocks hold no logits.
    """
    ids = torch.tensor(prompt, device=body.device)
    cache = Cache(len(ids))
    found: list[list[Ranked]] = []
    for start in range(0, len(ids) - 1, step_tokens):
        stop = min(start + step_tokens, len(ids) - 1)
        hidden = body.hidden(ids[start:stop], SpanStep(cache, [Span(start, stop, range(stop))], body.device))
        for place in range(start, stop, ROWS):
            wanted = ids[place + 1 : min(place + ROWS, stop) + 1]
            found += ranked(body.head(hidden[place - start :][: len(wanted)]), wanted, count)
        yield
    return found


@torch.inference_mode()
def ranked(logits: Tensor, wanted: Tensor, count: int) -> list[list[Ranked]]:
    """logits: (T, V); wanted: (T,), each first in its place. Rank 1 has no token more probable.

    Virtual tokens have no logits: what stands in their places means nothing.
    """
    logs = logits.float().log_softmax(-1)
    wanted = wanted.clamp(max=logs.shape[1] - 1)
    own = logs.gather(1, wanted[:, None])
    ranks = (logs > own).sum(-1) + 1
    best = logs.topk(min(count, logs.shape[1]))
    firsts = zip(wanted.tolist(), own.squeeze(1).tolist(), ranks.tolist(), strict=True)
    others = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [
        [first, *((t, log, i) for i, (t, log) in enumerate(zip(*other, strict=True), 1) if t != first[0])]
        for first, other in zip(firsts, others, strict=True)
    ]
