"""What CUDA computes, held against the CPU's float64; run where there is a GPU."""

from __future__ import annotations

import pytest
import torch

from dialoop.config import ArchitectureSettings
from dialoop.engine.loaded import open_model
from dialoop.engine.runner import PagedRunner, runner_of
from dialoop.engine.scheduler import Piece, Tokens
from dialoop.models.attention import packed_attention
from dialoop.models.decoder import Decoder
from dialoop.train.loss import cross_entropy
from dialoop.types import ModelRef
from tests.tiny import tiny_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
LENGTHS = (5, 5, 5, 300, 17, 2, 128, 128)


def apart(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """The error's share of the whole."""
    return float((got.detach().double().cpu() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize(("dtype", "within"), [(torch.bfloat16, 1e-2), (torch.float32, 1e-5)])
def test_packed_attention_and_its_gradients(dtype: torch.dtype, within: float) -> None:
    torch.manual_seed(0)
    shapes = [(sum(LENGTHS), heads, 64) for heads in (8, 2, 2)]
    given = [torch.randn(shape, device="cuda", dtype=dtype, requires_grad=True) for shape in shapes]
    exact = [x.detach().double().cpu().requires_grad_() for x in given]
    got = packed_attention(*given, LENGTHS, 0.125)
    wanted = packed_attention(*exact, LENGTHS, 0.125)
    grad = torch.randn_like(got)
    assert apart(got, wanted.detach()) < within
    gradients = torch.autograd.grad(got, given, grad)
    for own, reference in zip(
        gradients, torch.autograd.grad(wanted, exact, grad.double().cpu()), strict=True
    ):
        assert apart(own, reference) < within


@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_a_decoder_that_is_pre_trained_there_has_the_gradients_of_one_here(family: str) -> None:
    shape = ArchitectureSettings.model_validate(
        {"family": family, "hidden": 128, "layers": 2, "heads": 4, "kv_heads": 2, "mlp": 256}
    )
    ids, targets = torch.randint(0, 512, (2, sum(LENGTHS)))
    weights = torch.ones(len(ids))
    here, there = Decoder(shape, 512, seed=1), Decoder(shape, 512, seed=1).to("cuda", torch.bfloat16)
    for decoder in (here, there):
        place = decoder.head.device
        loss = cross_entropy(
            decoder(ids.to(place), LENGTHS), decoder.head, targets.to(place), weights.to(place)
        )
        loss.backward()  # type: ignore[no-untyped-call]
    for (name, wanted), got in zip(here.named_parameters(), there.parameters(), strict=True):
        assert got.grad is not None
        assert wanted.grad is not None
        assert apart(got.grad, wanted.grad.double()) < 5e-2, name


def test_the_engine_reads_sequences_over_blocks_there() -> None:
    loaded = open_model(ModelRef("tiny", tiny_model()))
    assert next(loaded.model.parameters()).is_cuda
    assert runner_of(loaded.model, 4).shares


def test_decoding_is_replayed_from_graphs_and_stays_what_it_was(caplog: pytest.LogCaptureFixture) -> None:
    model = open_model(ModelRef("tiny", tiny_model())).model
    runner = runner_of(model, 64, context=256)
    assert isinstance(runner, PagedRunner)
    assert runner.graphs is not None
    told = []
    for graphs in (runner.graphs, None):
        runner.graphs = graphs
        sequences = [Tokens([7, 8, 9, 10 + i]) for i in range(3)]
        for i, tokens in enumerate(sequences):
            tokens.blocks = list(range(4 * i, 4 * i + 4))
        said = [runner.logits([Piece(tokens, 0, 4) for tokens in sequences])]
        for _ in range(20):
            for tokens, best in zip(sequences, said[-1].argmax(-1).tolist(), strict=True):
                tokens.ids.append(best)
            end = len(sequences[0].ids)
            said.append(runner.logits([Piece(tokens, end - 1, end) for tokens in sequences]))
        for tokens in sequences:
            runner.forget(tokens)
        told.append(torch.stack(said).double().cpu())
        assert graphs is None or len(graphs) == 1, caplog.text
    assert apart(told[0], told[1]) < 1e-2
