"""The kernels in C++ against torch, for this processor and for older ones that it can stand for."""

from __future__ import annotations

import ctypes
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from dialoop.models import cache, linear, steps
from dialoop.models.adapters import Adapters
from dialoop.models.cache import Cache, Lane, Span
from dialoop.models.lean import LeanDecoder
from dialoop.models.native import build, layers
from dialoop.models.native.kernels import LARGEST_HALF, Kernels, Layer, Stack, Weights
from dialoop.models.steps import SpanStep
from tests.compilers import COMPILER, TARGETS

pytestmark = pytest.mark.skipif(not COMPILER, reason="no C++ compiler")


@pytest.fixture(scope="module", params=TARGETS, ids=" ".join)
def own(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    file = build.compiled(COMPILER, tmp_path_factory.mktemp("kernels"), target=request.param)
    return Kernels(ctypes.CDLL(str(file)))


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 40), inputs=st.integers(1, 300), outputs=st.integers(1, 200), seed=st.integers(0, 99)
)
def test_fp16_weights_are_multiplied_in_float32(
    own: Kernels, rows: int, inputs: int, outputs: int, seed: int
) -> None:
    weight, bias, x = (drawn(*shape, seed=seed) for shape in ((outputs, inputs), (outputs,), (rows, inputs)))
    got = Weights(own, weight, bias)(x)
    wanted = functional.linear(x, weight.half().float(), bias)
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-5)
    alone = torch.cat([Weights(own, weight, bias)(row[None]) for row in x])
    assert torch.equal(got, alone)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 40), inputs=st.integers(1, 300), outputs=st.integers(1, 200), seed=st.integers(0, 99)
)
def test_int8_weights_are_multiplied_by_inputs_in_as_many_levels(
    own: Kernels, rows: int, inputs: int, outputs: int, seed: int
) -> None:
    if not own.bytes:
        pytest.skip("the processor sums no products of bytes")
    made = torch.Generator().manual_seed(seed)
    weight = torch.randint(-127, 128, (outputs, inputs), generator=made, dtype=torch.int8)
    scales, bias, x = (
        torch.rand(outputs, generator=made),
        drawn(outputs, seed=seed),
        drawn(rows, inputs, seed=seed),
    )
    got = Weights(own, weight, bias, scales)(x)
    step = x.abs().amax(1, keepdim=True) / 127
    exact = torch.round(x / step).double() @ weight.double().T
    # A number halfway between two levels may take either.
    off = step.double() * scales * weight.double().abs().amax(1) * 2
    assert ((got - (exact * step * scales + bias)).abs() <= off + 1e-4).all()
    alone = torch.cat([Weights(own, weight, bias, scales)(row[None]) for row in x])
    assert torch.equal(got, alone)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
@pytest.mark.parametrize("place", [0, 40])
def test_what_is_no_number_stays_none_and_keeps_to_its_row(own: Kernels, wrong: float, place: int) -> None:
    weight, x = drawn(20, 41, seed=1), drawn(3, 41, seed=2)
    x[1, place] = wrong
    layers = [Weights(own, weight, None)]
    if own.bytes:
        layers.append(Weights(own, weight.mul(30).to(torch.int8), None, torch.ones(20)))
    for layer in layers:
        got = layer(x)
        assert not got[1].isfinite().any()
        assert got[[0, 2]].isfinite().all()


@pytest.mark.parametrize("size", [16, 64, 80, 128])
@pytest.mark.parametrize(("window", "cap"), [(None, None), (100, None), (None, 5.0), (600, 5.0)])
@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (6, 2), (7, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.half])
def test_tokens_attend_to_their_lanes(
    own: Kernels, size: int, window: int | None, cap: float | None, heads: int, key_heads: int,
    dtype: torch.dtype,
) -> None:  # fmt: skip
    stops = torch.tensor([1, 17, 18, 19, 512, 513, 1300])
    places = torch.tensor([0, 1, 1, 1, 2, 3, 4])
    rows = len(stops)
    held = drawn(5, 2 * key_heads, 1536, size, seed=1).to(dtype)
    query, pairs = drawn(rows, heads, size, seed=2), drawn(rows, 2 * key_heads, size, seed=3)
    lanes = held.clone()
    got = own.attend(lanes, places, stops, query, pairs, scale=0.3, window=window, cap=cap)
    held[places, :, stops - 1] = pairs.to(dtype)
    for i, (place, stop) in enumerate(zip(places.tolist(), stops.tolist(), strict=True)):
        first = max(0, stop - window) if window else 0
        k, v = held[place, :, first:stop].repeat_interleave(heads // key_heads, 0).double().chunk(2)
        scores = k @ query[i].double()[:, :, None] * 0.3
        weights = (scores if cap is None else torch.tanh(scores / cap) * cap).softmax(1)
        torch.testing.assert_close(got[i].double(), (weights * v).sum(1), atol=1e-5, rtol=1e-5)
    assert torch.equal(lanes, held), "new keys and values are written, and nothing else"


def test_keys_beyond_fp16_become_its_largest(own: Kernels) -> None:
    lanes, one = torch.zeros(1, 2, 4, 16, dtype=torch.half), torch.ones(1, dtype=torch.long)
    pairs = torch.full((1, 2, 16), 1e6)
    got = own.attend(lanes, 0 * one, one, torch.ones(1, 1, 16), pairs, scale=1.0, window=None, cap=None)
    assert (got == LARGEST_HALF).all()


SIZE: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "pad_token_id": 0,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
    "initializer_range": 0.2,
}  # fmt: skip
MODELS = {
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZE)),  # biases
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZE, head_dim=32)),  # norms of heads
    "gemma": lambda: GemmaForCausalLM(GemmaConfig(**SIZE, head_dim=16)),  # GELU by tanh
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**SIZE, head_dim=16, sliding_window=6)),  # caps, windows
    "phi3": lambda: Phi3ForCausalLM(Phi3Config(**SIZE, partial_rotary_factor=0.5)),
}


def answers(lean: LeanDecoder, half: bool = False) -> Tensor:
    """Logits of three prompts in one step, of a few tokens of each in the next two, and of a mixed one."""
    held, device, found = Cache(144, longest=48, half=half), torch.device("cpu"), []
    blocks, lanes = [range(48 * i, 48 * i + 48) for i in range(3)], [Lane() for _ in range(3)]
    starts = [0, 0, 0]
    for sizes in ((11, 5, 9), (1, 1, 1), (1, 3, 2), (1, 18, 1)):
        spans = [
            Span(start, start + n, own, lane=lane)
            for start, n, own, lane in zip(starts, sizes, blocks, lanes, strict=True)
        ]
        starts = [span.stop for span in spans]
        ids = 7 * torch.arange(sum(sizes))
        found.append(lean.logits(ids, SpanStep(held, spans, device), torch.arange(len(ids))))
    return torch.cat(found)


@pytest.mark.parametrize("name", MODELS)
def test_layers_give_the_logits_of_torch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "default_dtype", lambda device: torch.float32)  # as where bf16 is slow
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    own = LeanDecoder(model, "half", Adapters(model))
    calls = names_called(monkeypatch)
    got, in_16_bits = answers(own), answers(own, half=True)
    assert calls == {"open", "decode"}
    monkeypatch.setattr(layers.NativeLayers, "of", lambda *_: None)
    for room in (cache, steps):
        monkeypatch.setattr(room, "attending", lambda _: None)
    wanted = answers(LeanDecoder(model, "half", Adapters(model)))
    torch.testing.assert_close(got, wanted, atol=2e-4, rtol=1e-4)
    assert 0 < (in_16_bits - wanted).norm() <= 2**-10 * wanted.norm()


def names_called(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    calls: set[str] = set()
    opened, decoded = Layer.open, Stack.decode

    def counted(self: Layer, *given: Any) -> Tensor:
        calls.add("open")
        return opened(self, *given)

    def counted_too(self: Stack, *given: Any) -> None:
        calls.add("decode")
        decoded(self, *given)

    monkeypatch.setattr(Layer, "open", counted)
    monkeypatch.setattr(Stack, "decode", counted_too)
    return calls


@pytest.fixture
def anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """As if the kernels had never been wanted: their folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build.library.cache_clear()
    yield tmp_path / "dialoop"
    build.library.cache_clear()


def test_the_kernels_are_compiled_once(anew: Path) -> None:
    assert build.library(build.ANSWERING) is not None
    (file,) = anew.glob("*.so")
    made = file.stat().st_mtime_ns
    build.library.cache_clear()
    assert build.library(build.ANSWERING) is not None
    assert [each.stat().st_mtime_ns for each in anew.iterdir()] == [made]


@pytest.mark.parametrize(
    ("compiler", "told"), [("false", "false cannot make the kernels"), ("no-such", "no-such")]
)
@pytest.mark.parametrize("source", [build.ANSWERING, build.TRAINING], ids=["answering", "training"])
def test_without_a_compiler_that_works_the_log_says_so(
    anew: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    source: Path,
    compiler: str,
    told: str,
) -> None:
    monkeypatch.setenv("CXX", compiler)
    with caplog.at_level(logging.WARNING, logger="dialoop.engine"):
        assert build.library(source) is None
    assert told in caplog.text
    assert not list(anew.glob("*.so"))


def test_threads_of_torch_wait_briefly_where_the_kernels_have_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processor = {
        "intel": "GenuineIntel avx2 avx512_bf16",
        "amd": "AuthenticAMD avx512_bf16",
        "amx": "amx_bf16",
    }
    waits = {}
    for name, told in processor.items():
        monkeypatch.setattr(Path, "read_text", lambda _, told=told: f"flags: {told}\n\nflags: another")
        waits[name] = build.with_brief_waits({"A": "1"}).get("GOMP_SPINCOUNT")
    assert waits == {"intel": "1000", "amd": None, "amx": None}
    monkeypatch.setattr(Path, "read_text", lambda _: "flags: avx2")
    assert build.with_brief_waits({"GOMP_SPINCOUNT": "7"}) == {"GOMP_SPINCOUNT": "7"}
