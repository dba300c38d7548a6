"""The kernels for training against torch's numbers and gradients, for this processor and for older ones."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from dialoop.models import between
from dialoop.models.attention import attend
from dialoop.models.between import Norm, Turns, gated, gated_backward
from dialoop.models.native import build, training
from dialoop.models.native.training import TYPES, Training
from dialoop.models.quantised import Int8Matrix
from tests.compilers import COMPILER, TARGETS
from tests.models.test_attention import reference

pytestmark = pytest.mark.skipif(not COMPILER, reason="no C++ compiler")


@pytest.fixture(scope="module", params=TARGETS, ids=" ".join)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("kernels")
    return ctypes.CDLL(str(build.compiled(COMPILER, folder, build.TRAINING, request.param)))


@pytest.fixture(scope="module", params=TYPES, ids=str)
def own(request: pytest.FixtureRequest, made: ctypes.CDLL) -> Training:
    return Training(made, request.param)


def drawn(own: Training, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(own.dtype)


def check(own: Training, got: Sequence[Tensor], wanted: Sequence[Tensor], size: float = 1.0) -> None:
    """Within a rounding of the largest number of each, or of one of that `size`."""
    exact = 1e-5 if own.dtype == torch.float32 else 2**-7
    for one, other in zip(got, wanted, strict=True):
        assert one.shape == other.shape
        assert largest(one - other) <= exact * max(1.0, size, largest(other))


def largest(x: Tensor) -> float:
    return float(x.detach().abs().max())


def wide(*tensors: Tensor) -> list[Tensor]:
    return [x.double().requires_grad_() for x in tensors]


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 150), min_size=1, max_size=5),
    heads=st.sampled_from([(1, 1), (4, 4), (6, 2), (3, 1)]),
    size=st.sampled_from([16, 48, 64, 80, 128]),
)
def test_attention_and_its_gradients(
    own: Training, lengths: list[int], heads: tuple[int, int], size: int
) -> None:
    many, few = heads
    qkv = drawn(own, sum(lengths), (many + 2 * few) * size)
    parts = [many * size, few * size, few * size]
    q, k, v = (x.unflatten(1, (-1, size)) for x in qkv.split(parts, 1))  # type: ignore[no-untyped-call]
    grad = drawn(own, *q.shape, seed=1)
    out, logs = own.attend(q, k, v, lengths, 0.2)
    into = [x.unflatten(1, (-1, size)) for x in torch.full_like(qkv, torch.nan).split(parts, 1)]
    own.attend_back(grad, (q, k, v, out, logs), lengths, 0.2, (into[0], into[1], into[2]))
    inputs = wide(q, k, v)
    wanted = reference(*inputs, lengths, 0.2)
    check(
        own,
        [out, into[2]],
        [wanted, *torch.autograd.grad(wanted, inputs[2], grad.double(), retain_graph=True)],
    )
    # What is seen comes rounded to the gradient of scores, and is subtracted there.
    rounded = float((grad.double() * wanted.detach()).abs().sum(-1).max()) * 0.2 * max(largest(q), largest(k))
    check(own, into[:2], torch.autograd.grad(wanted, inputs[:2], grad.double()), rounded)


def test_a_document_sees_itself_alone_to_the_last_bit(own: Training) -> None:
    q, k, v = (drawn(own, 200, heads, 32, seed=heads) for heads in (4, 2, 2))
    both, _ = own.attend(q, k, v, (77, 123), 0.2)
    alone, _ = own.attend(q[77:], k[77:], v[77:], (123,), 0.2)
    assert torch.equal(both[77:], alone)


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 200), size=st.sampled_from([16, 48, 576]), past=st.booleans())
def test_norms(own: Training, rows: int, size: int, past: bool) -> None:
    x, grad, beside = (drawn(own, rows, size, seed=i) for i in range(3))
    weight = drawn(own, size, seed=3)
    y, squares = own.norm(x, weight, 1e-5)
    dx, dweight = own.norm_back(grad, x, weight, squares, 1e-5, beside if past else None, trained=True)
    assert dweight is not None
    inputs = wide(x, weight)
    wanted = functional.rms_norm(inputs[0], (size,), inputs[1], 1e-5)
    found = list(torch.autograd.grad(wanted, inputs, grad.double()))
    found[0] = found[0] + beside if past else found[0]
    check(own, [y, dx, dweight], [wanted, *found])


def test_rotary_positions_there_and_back(own: Training) -> None:
    x = drawn(own, 33, 3, 64)
    angles = torch.rand(33, 32, generator=torch.Generator().manual_seed(1)) * 6
    cos, sin = (f(torch.cat([angles, angles], 1)).to(own.dtype) for f in (torch.cos, torch.sin))
    turns, turned = Turns.of(cos, sin), x.clone()
    own.turn(turned, turns.cos, turns.sin)
    first, second = x.double().chunk(2, -1)
    wanted = x.double() * cos[:, None] + torch.cat([-second, first], -1) * sin[:, None]
    check(own, [turned], [wanted])
    own.turn(turned, turns.cos, turns.sin, back=True)
    check(own, [turned], [x.double()])


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 70), inner=st.sampled_from([16, 48, 1536]), by=st.sampled_from([1.0, 30.0]))
def test_gates(own: Training, rows: int, inner: int, by: float) -> None:
    both, grad = drawn(own, rows, 2 * inner) * by, drawn(own, rows, inner, seed=1)
    (x,) = wide(both)
    gate, up = x.chunk(2, 1)
    wanted = functional.silu(gate) * up
    got = own.gated(both), own.gated_back(grad, both)
    check(own, got, [wanted, *torch.autograd.grad(wanted, [x], grad.double())])


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 400), rows=st.integers(1, 300), columns=st.integers(1, 300), seed=st.integers(0, 99)
)
def test_products_with_a_matrix_in_int8_are_as_exact_as_levels_of_their_inputs(
    made: ctypes.CDLL, count: int, rows: int, columns: int, seed: int
) -> None:
    own = Training(made, torch.float32)
    if not own.bytes:
        pytest.skip("this processor does not sum products of bytes")
    matrix = Int8Matrix(drawn(own, rows, columns, seed=seed))
    dense = matrix.dense(torch.float64)
    x, wider = drawn(own, count, columns, seed=1), drawn(own, count, rows + 3, seed=2)
    grad = wider[:, 1 : rows + 1]
    for inputs, factor, back in ((x, dense.t(), False), (grad, dense, True)):
        got = own.multiply(inputs, matrix.codes, matrix.scales, back=back)
        scaled = inputs * matrix.scales if back else inputs
        by = matrix.codes.double().abs() if back else factor.abs()
        wanted, most = inputs.double() @ factor, torch.zeros(1)
        for group, weights in zip(scaled.split(64, 1), by.split(64), strict=True):
            most = most + 0.51 / 127 * group.abs().amax(1, keepdim=True).double() * weights.sum(0)
        assert ((got - wanted).abs() <= most + 1e-5 * wanted.abs() + 1e-6).all()
        alone = own.multiply(inputs[-1:], matrix.codes, matrix.scales, back=back)
        assert torch.equal(got[-1:], alone)


def test_torch_does_the_same_where_there_are_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(0)
    x, grad, past, weight, sin = (torch.randn(9, 32, generator=draw) for _ in range(5))
    q = torch.randn(9, 4, 32, generator=draw)
    norm, turns = Norm(weight[0].requires_grad_(), 1e-6), Turns.of(weight, sin)

    def outcome() -> list[Tensor]:
        y, squares = norm.forward(x)
        dx, (dweight,) = norm.backward(grad, x, squares, past)
        turned = q.clone()
        turns.turn(turned)
        back = turned.clone()
        turns.turn_back(back)
        seen, kept = attend(q, q[:, :2], turned[:, 2:], (4, 5), 0.3)
        into = tuple(torch.empty(9, heads, 32) for heads in (4, 2, 2))
        kept.backward(turned.flatten(1), (into[0], into[1], into[2]))
        return [y, dx, dweight, turned, back, gated(x), gated_backward(grad[:, :16], x), seen, *into]

    assert training.training(x) is not None
    with torch.no_grad():
        ours = outcome()
        monkeypatch.setattr(between, "training", lambda *_: None)
        monkeypatch.setattr("dialoop.models.attention.training", lambda *_: None)
        torch.testing.assert_close(ours, outcome(), atol=1e-5, rtol=1e-5)


def test_what_does_not_fill_vectors_is_left_to_torch() -> None:
    assert training.training(torch.zeros(2, 24, 8 * 3 + 1)) is None
    assert training.training(torch.zeros(2, 64, dtype=torch.float64)) is None
    assert training.training(torch.zeros(2, 64), torch.zeros(64, dtype=torch.bfloat16)) is None
