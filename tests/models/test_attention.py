"""Packed attention: each document sees itself alone, exactly as torch's own attention would compute it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from dialoop.models.attention import QUERY_BLOCK, packed_attention

SCALE = 0.3
lengths_of_documents = st.lists(st.integers(1, 40), min_size=1, max_size=6)


def rows(lengths: list[int], heads: int, kv_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(sum(lengths))
    shape = [(sum(lengths), n, 8) for n in (heads, kv_heads, kv_heads)]
    q, k, v = (torch.randn(s, dtype=torch.float64, generator=generator).requires_grad_() for s in shape)
    return q, k, v


def reference(q: Tensor, k: Tensor, v: Tensor, lengths: list[int], scale: float = SCALE) -> Tensor:
    """torch's kernel on one document after the other."""
    parts = [x.transpose(0, 1).split(lengths, dim=1) for x in (q, k, v)]
    seen = [
        scaled_dot_product_attention(*document, is_causal=True, scale=scale, enable_gqa=True)
        for document in zip(*parts, strict=True)
    ]
    return torch.cat(seen, dim=1).transpose(0, 1)


def check(lengths: list[int], heads: int, kv_heads: int) -> None:
    inputs = rows(lengths, heads, kv_heads)
    got, wanted = packed_attention(*inputs, lengths, SCALE), reference(*inputs, lengths)
    torch.testing.assert_close(got, wanted, atol=1e-12, rtol=1e-9)
    upstream = torch.randn(got.shape, dtype=got.dtype, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        torch.autograd.grad(got, inputs, upstream),
        torch.autograd.grad(wanted, inputs, upstream),
        atol=1e-11,
        rtol=1e-8,
    )


@settings(max_examples=25)
@given(lengths_of_documents, st.sampled_from([(1, 1), (4, 4), (4, 2), (6, 1)]))
def test_values_and_gradients_are_those_of_torch_on_each_document_alone(
    lengths: list[int], heads: tuple[int, int]
) -> None:
    check(lengths, *heads)


@pytest.mark.parametrize(
    "lengths",
    [
        [QUERY_BLOCK],
        [QUERY_BLOCK + 1],
        [2 * QUERY_BLOCK - 1, 3],
        [7, 2 * QUERY_BLOCK + 5, 2 * QUERY_BLOCK + 5, 1],
        [QUERY_BLOCK - 9, QUERY_BLOCK + 7, QUERY_BLOCK + 8, 2 * QUERY_BLOCK],
    ],
)
def test_documents_longer_than_a_block_of_queries_are_computed_alike(lengths: list[int]) -> None:
    check(lengths, 2, 1)


def test_changing_one_document_leaves_the_others_as_they_were() -> None:
    q, k, v = rows([5, 9, 4], 2, 2)
    before = packed_attention(q, k, v, [5, 9, 4], SCALE)
    with torch.no_grad():
        for x in (q, k, v):
            x[5:14] += 1.0
    after = packed_attention(q, k, v, [5, 9, 4], SCALE)
    assert torch.equal(before[:5], after[:5])
    assert torch.equal(before[14:], after[14:])
    assert not torch.allclose(before[5:14], after[5:14])


def test_dropout_leaves_out_weights_and_makes_the_others_more() -> None:
    """Of documents of one token each, whose only weight is 1."""
    q, k, v = rows([1] * 64, 4, 2)
    torch.manual_seed(0)
    seen = packed_attention(q, k, v, [1] * 64, SCALE, dropout=0.25)
    kept = seen.ne(0).all(-1)
    assert torch.equal(kept, seen.ne(0).any(-1))
    torch.testing.assert_close(seen, kept[..., None] * v.repeat_interleave(2, 1) / 0.75)
    assert 0.6 < kept.double().mean() < 0.9
    (gradient,) = torch.autograd.grad(seen.sum(), v)
    torch.testing.assert_close(gradient[..., 0], kept.double().view(64, 2, 2).sum(-1) / 0.75)
