"""Lanes: a sequence that decodes has its keys and values in one piece."""

from __future__ import annotations

import torch

from dialoop.models.cache import Cache, Lane, Span


def test_all_sequences_have_lanes_though_their_context_is_no_power_of_two() -> None:
    context, count, size = 320, 5, 16
    cache = Cache(count * context, lanes=True, longest=context)
    cache.layer(0, torch.zeros(1, 2, 4))
    blocks = [range(i * context // size, (i + 1) * context // size) for i in range(count)]
    spans = [Span(299, 300, own, size, Lane()) for own in blocks]
    seated = cache.seat(spans)
    assert [lanes.capacity for lanes in seated] == [context]
    assert [sorted(members) for members in seated.values()] == [list(range(count))]
