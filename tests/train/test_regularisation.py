"""What holds training back: how it is computed, and that validation is without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter, functional

from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.config import OptimSettings, RegularisationSettings
from dialoop.models.load import load_model
from dialoop.models.packed import PackedBody
from dialoop.train.batch import pack
from dialoop.train.fit import fit_rows
from dialoop.train.loss import cross_entropy
from dialoop.train.objective import Objective, divergence
from dialoop.train.optim import Optimizer
from dialoop.train.tune import tune
from dialoop.types import ModelRef
from tests.tiny import tiny_model
from tests.train.drill import DIALOGUES, recipe


def model() -> Any:
    return load_model(ModelRef("tiny", tiny_model()), dtype=torch.float32, device="cpu")


def objective(**held_back: float) -> Objective:
    return Objective(model(), RegularisationSettings.model_validate(held_back))


def batch() -> Any:
    rows = fit_rows(DIALOGUES, ChatTokenizer.load(tiny_model()), max_length=128, mask="assistant")
    return pack(rows.rows[:3])


def test_smoothed_cross_entropy_is_that_of_torch_with_its_gradients() -> None:
    torch.manual_seed(0)
    hidden, head = (torch.randn(n, 8, requires_grad=True) for n in (9, 30))
    targets, weights = torch.randint(0, 30, (9,)), torch.rand(9)
    wanted = functional.cross_entropy(hidden @ head.t(), targets, reduction="none", label_smoothing=0.2)
    found = cross_entropy(hidden, head, targets, weights, 0.2)
    torch.testing.assert_close(found, (wanted * weights).sum())
    for mine, theirs in zip(
        torch.autograd.grad(found, (hidden, head)),
        torch.autograd.grad((wanted * weights).sum(), (hidden, head)),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("held_back", [{"label_smoothing": 0.1}, {"neftune": 5.0}, {"r_drop": 1.0}])
def test_validation_is_without_it(held_back: dict[str, float]) -> None:
    plain, held = objective(), objective(**held_back)
    torch.testing.assert_close(held(batch()), plain(batch()), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("held_back", [{"label_smoothing": 0.1}, {"neftune": 5.0}])
def test_training_is_held_back(held_back: dict[str, float]) -> None:
    plain, held = objective(), objective(**held_back)
    held.model.train()
    assert float(held(batch()).detach()) != pytest.approx(float(plain(batch()).detach()), rel=1e-4)


def test_noise_is_as_wide_as_its_paper_says_and_keeps_documents_apart() -> None:
    body = PackedBody(model().train())
    ids = torch.arange(300) % 400
    plain = body._inputs(ids, (100, 200))["input_ids"]
    assert torch.equal(plain[0], ids)
    body.noise = 5.0
    noise = body._inputs(ids, (100, 200))["inputs_embeds"][0] - body.model.get_input_embeddings()(ids)
    for part, length in ((noise[:100], 100), (noise[100:], 200)):
        assert float(part.detach().abs().max()) == pytest.approx(5.0 / (length * 64) ** 0.5, rel=0.02)


def test_two_passes_alike_do_not_diverge_and_others_do() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(2, 5, 7)
    assert torch.allclose(divergence(first, first), torch.zeros(5))
    p, q = first.log_softmax(-1), second.log_softmax(-1)
    both = functional.kl_div(q, p, log_target=True, reduction="none").sum(-1)
    both += functional.kl_div(p, q, log_target=True, reduction="none").sum(-1)
    torch.testing.assert_close(divergence(first, second), both / 2)


def stepped(optimizer: Optimizer, weight: Parameter, times: int) -> list[Tensor]:
    seen = []
    for _ in range(times):
        (weight.float() ** 2).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step(0.1, 1.0)
        seen.append(weight.detach().float().clone())
    return seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_mean_of_the_weights_is_judged_kept_and_resumed(dtype: torch.dtype) -> None:
    settings = OptimSettings.model_validate({"weight_decay": 0.0})
    weight = Parameter(torch.ones(3).to(dtype))
    optimizer = Optimizer({"w": weight}, settings, ema=0.5)
    seen = stepped(optimizer, weight, 3)
    mean = torch.ones(3)
    for each in seen:
        mean = mean.lerp(each, 0.5)
    torch.testing.assert_close(optimizer.kept()["master.w"], mean, atol=1e-2, rtol=1e-2)
    with optimizer.judged():
        torch.testing.assert_close(weight.detach().float(), mean, atol=1e-2, rtol=1e-2)
    assert torch.equal(weight.detach().float(), seen[-1])
    again = Optimizer({"w": Parameter(torch.zeros(3).to(dtype))}, settings, ema=0.5)
    again.load(optimizer.state())
    assert torch.equal(again.kept()["master.w"], optimizer.kept()["master.w"])


def test_a_run_with_all_of_it_trains_and_resumes_to_the_bit(tmp_path: Path) -> None:
    held_back = {"label_smoothing": 0.1, "neftune": 5.0, "r_drop": 0.5, "ema": 0.9}
    chosen = recipe(regularisation=held_back, train__epochs=1.5, train__checkpoint_every=2)
    base = ModelRef("tiny", tiny_model())

    class StopError(Exception):
        pass

    def stop(progress: Any) -> None:
        if progress.step == 5:
            raise StopError

    with pytest.raises(StopError):
        tune(chosen, base, DIALOGUES, DIALOGUES[:2], tmp_path / "cut", on_progress=stop)
    sums = []
    for name in ("cut", "whole"):
        tuned = tune(chosen, base, DIALOGUES, DIALOGUES[:2], tmp_path / name)
        assert tuned.artefact is not None
        assert tuned.artefact.adapter is not None
        sums.append((tuned.artefact.adapter / "adapter_model.safetensors").read_bytes())
    assert sums[0] == sums[1]
