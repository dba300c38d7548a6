"""Lanes: a sequence that decodes has its keys and values in one piece."""

from __future__ import annotations

import torch

from dialoop.models.cache import Cache, Lane, Span


def test_all_sequences_have_lanes_though_their_context_is_no_power_of_two() -> None:
    context, count, size = 320, 5, 16
    cache = Cache(count * context, longest=context)
    cache.layer(0, torch.zeros(1, 2, 4))
    blocks = [range(i * context // size, (i + 1) * context // size) for i in range(count)]
    spans = [Span(299, 300, own, size, Lane()) for own in blocks]
    seated = cache.seat(spans)
    assert [lanes.capacity for lanes in seated] == [context]
    assert [sorted(members) for members in seated.values()] == [list(range(count))]


def test_lanes_are_made_as_sequences_come_and_keep_what_they_hold() -> None:
    context, size = 64, 16
    cache = Cache(9 * context, longest=context)
    pairs = torch.randn(9 * context, 2, 4)
    cache.layer(0, pairs)[: len(pairs)] = pairs
    spans = [Span(10, 11, range(4 * i, 4 * i + 4), size, Lane()) for i in range(9)]
    for count in range(1, 10):
        ((lanes, members),) = cache.seat(spans[:count]).items()
        assert members == list(range(count))
        assert len(lanes.layers[0]) < 2 * count + 1
        for i, span in enumerate(spans[:count]):
            held = lanes.layers[0][i, :, :10].transpose(0, 1)
            assert torch.equal(held, pairs[span.slots(0, 10)])
