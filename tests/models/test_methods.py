"""Every tuning method on decoders of several families, and what is special to each."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from dialoop.config import (
    BitFitMethod,
    BottleneckMethod,
    FreezeMethod,
    FullMethod,
    IA3Method,
    LoraMethod,
    MethodSettings,
    PrefixMethod,
    PromptMethod,
    PTuningV2Method,
)
from dialoop.errors import ModelError
from dialoop.models.bottleneck import Bottleneck
from dialoop.models.load import load_model
from dialoop.models.method import Attached, method_of
from dialoop.types import ModelRef
from tests.conformance.method import DOCUMENTS, IDS, MethodConformance, hidden, loaded, logits
from tests.decoders import decoder
from tests.tiny import make_tiny_model, tiny_model

METHODS: dict[str, MethodSettings] = {
    "full": FullMethod(),
    "freeze": FreezeMethod(layers=1),
    "lora": LoraMethod(rank=4, alpha=8.0),
    "rslora": LoraMethod(rank=4, alpha=8.0, rslora=True),
    "dora": LoraMethod(rank=4, alpha=8.0, dora=True),
    "houlsby": BottleneckMethod(size=8, placement="houlsby"),
    "pfeiffer": BottleneckMethod(size=8),
    "parallel": BottleneckMethod(size=8, placement="parallel"),
    "prompt": PromptMethod(tokens=4),
    "prefix": PrefixMethod(tokens=4, hidden=16),
    "p-tuning-v2": PTuningV2Method(tokens=4),
    "bitfit": BitFitMethod(),
    "ia3": IA3Method(),
}
CASES = [
    *((name, "llama") for name in METHODS),
    *((name, "gpt2") for name in METHODS if name not in ("rslora", "houlsby", "full")),
    *((name, "qwen2") for name in ("bitfit", "p-tuning-v2")),
]
OF_PEFT = ("lora", "rslora", "dora", "ia3", "prompt", "prefix", "p-tuning-v2")


@pytest.fixture(scope="module")
def other_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("other") / "model", layers=1, hidden=128)


@pytest.mark.parametrize(("name", "family"), CASES)
class TestMethods(MethodConformance):
    @pytest.fixture
    def settings(self, name: str) -> MethodSettings:
        return METHODS[name]

    @pytest.fixture
    def base(self, family: str) -> Path:
        return decoder(family)


def attach(settings: MethodSettings, family: str = "qwen3", seed: int = 0) -> Attached:
    ref = ModelRef("tiny", decoder(family))
    return method_of(settings).attach(loaded(ref), ref, seed=seed)


def alone(model: nn.Module, opening: tuple[int, ...] = ()) -> list[Tensor]:
    """Logits of each document, by the model's own forward."""
    with torch.no_grad():
        ids = [torch.cat([torch.tensor(opening, dtype=torch.long), part]) for part in IDS.split(DOCUMENTS)]
        return [model(input_ids=each[None], use_cache=False).logits[0, len(opening) :] for each in ids]


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
@pytest.mark.parametrize("name", OF_PEFT)
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_peft_loads_what_is_written_and_computes_the_same(name: str, family: str, tmp_path: Path) -> None:
    attached = MethodConformance().taught(METHODS[name], decoder(family))
    wanted = logits(attached.model).detach()
    ref = attached.save(tmp_path / "saved")
    assert ref.adapter is not None
    plain: Any = AutoModelForCausalLM.from_pretrained(decoder(family), dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's, of what it prefers to be told
        theirs = PeftModel.from_pretrained(plain, ref.adapter).eval()
        with torch.no_grad():
            parts = [theirs(input_ids=part[None]).logits[0] for part in IDS.split(DOCUMENTS)]
    got = torch.cat([part[-n:] for part, n in zip(parts, DOCUMENTS, strict=True)])
    torch.testing.assert_close(got, wanted, atol=1e-3, rtol=1e-3)


@pytest.mark.filterwarnings("ignore:Unmerge result can be inaccurate:UserWarning")
@pytest.mark.parametrize("name", ["lora", "dora", "ia3"])
def test_merging_and_taking_back_leaves_what_was(name: str) -> None:
    attached: Any = MethodConformance().taught(METHODS[name], decoder("llama"))
    with torch.no_grad():
        before = logits(attached.model)
        attached.wrapped.merge_adapter()
        merged = logits(attached.model)
        attached.wrapped.unmerge_adapter()
        torch.testing.assert_close(merged, before, atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(logits(attached.model), before, atol=2e-3, rtol=2e-3)


def test_a_prompt_opens_every_document_alone() -> None:
    attached: Any = MethodConformance().taught(METHODS["prompt"], decoder("llama"))
    wanted = alone(attached.model, attached.opening.ids)
    torch.testing.assert_close(logits(attached.model).detach(), torch.cat(wanted), atol=1e-3, rtol=1e-3)


def test_a_prompt_begins_at_a_text(tmp_path: Path) -> None:
    attached: Any = attach(PromptMethod(tokens=3, init="text", text="order number"))
    words = attached.opening.words.weight
    nearest = torch.cdist(attached.opening.prompt, words).argmin(1)
    assert torch.equal(attached.opening.prompt, words[nearest])
    assert len({int(i) for i in nearest}) > 1


def test_a_random_prompt_is_as_long_as_words_are() -> None:
    attached: Any = attach(PromptMethod(tokens=50, init="random"))
    words, prompt = (
        x.detach().norm(dim=1).mean() for x in (attached.opening.weight, attached.opening.prompt)
    )
    assert 0.5 * words < prompt < 2 * words


def test_the_seed_decides_the_first_adapter() -> None:
    first, again, other = (attach(LoraMethod(rank=4), seed=seed).weights for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_rank_and_targets_are_those_of_the_settings() -> None:
    weights = attach(LoraMethod(rank=3, targets=("q_proj", "v_proj"))).weights
    assert {name.split(".")[-4] for name in weights} == {"q_proj", "v_proj"}
    assert {min(weight.shape) for weight in weights.values()} == {3}


def test_rslora_scales_by_the_root_of_the_rank(tmp_path: Path) -> None:
    saved = attach(METHODS["rslora"]).save(tmp_path / "saved")
    assert saved.adapter is not None
    assert json.loads((saved.adapter / "adapter_config.json").read_text())["use_rslora"] is True


def test_full_saving_takes_the_tokenizer_along(tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_model(), tmp_path / "base")
    model = loaded(ModelRef("tiny", copy))
    saved = method_of(FullMethod()).attach(model, ModelRef("tiny", copy), seed=0).save(tmp_path / "saved")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (saved.base / name).read_bytes() == (copy / name).read_bytes()


def test_freezing_computes_no_gradient_below_the_first_trained_layer() -> None:
    attached = attach(FreezeMethod(layers=2), "llama")
    needs: dict[int, bool] = {}
    model: Any = attached.model
    for i, layer in enumerate(model.model.layers):
        layer.register_forward_hook(lambda _, __, out, i=i: needs.update({i: out.requires_grad}))
    hidden(model)
    assert needs == {0: False, 1: False, 2: True}
    assert not any("layers.0" in name or "layers.1" in name or "embed" in name for name in attached.weights)
    assert {"model.norm.weight", "lm_head.weight"} <= attached.weights.keys()


def test_more_layers_than_there_are_cannot_be_frozen() -> None:
    with pytest.raises(ModelError, match=r"method.layers 9: tiny has 3 layers: freeze fewer"):
        attach(FreezeMethod(layers=9), "llama")


@pytest.mark.parametrize(
    ("placement", "places"),
    [
        ("houlsby", {"self_attn.o_proj", "mlp.down_proj"}),
        ("pfeiffer", {"mlp.down_proj"}),
        ("parallel", {"mlp.down_proj"}),
    ],
)
def test_bottleneck_adapters_lie_where_their_papers_put_them(placement: Any, places: set[str]) -> None:
    weights = attach(BottleneckMethod(size=8, placement=placement), "llama").weights
    assert {name.split(".bottleneck")[0].split(".", 3)[3] for name in weights} == places
    assert len(weights) == 4 * 3 * len(places)


def test_a_parallel_adapter_reads_what_the_feed_forward_reads() -> None:
    model: Any = (
        MethodConformance().taught(BottleneckMethod(size=8, placement="parallel"), decoder("llama")).model
    )
    mlp, x = model.model.layers[0].mlp, torch.randn(3, 64)
    adapter: Bottleneck = mlp.down_proj.bottleneck
    with torch.no_grad():
        plain = nn.functional.linear(
            mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x), mlp.down_proj.weight
        ) + 4.0 * adapter.up(adapter.down(x).relu())
        torch.testing.assert_close(mlp(x), plain)


def test_bitfit_trains_the_biases_that_there_are_and_norms_where_there_are_none() -> None:
    assert {name.rpartition(".")[2] for name in attach(BitFitMethod(), "qwen2").weights} == {"bias"}
    norms = attach(BitFitMethod(), "llama").weights
    assert norms
    assert all("norm" in name for name in norms)
    both = attach(BitFitMethod(norms=True), "qwen2").weights
    assert {name.rpartition(".")[2] for name in both} == {"bias", "weight"}


def test_bitfit_without_anything_to_train_is_refused() -> None:
    with pytest.raises(
        ModelError, match=r"tiny has no biases, and method.norms is false: leave method.norms"
    ):
        attach(BitFitMethod(norms=False), "llama")


def test_ia3_takes_the_layers_that_it_is_told() -> None:
    weights = attach(IA3Method(targets=("k_proj",), feedforward=("up_proj",))).weights
    assert {name.split(".")[-3] for name in weights} == {"k_proj", "up_proj"}


def test_ia3_names_the_field_where_the_layers_are_not_known() -> None:
    with pytest.raises(ModelError, match=r"method.targets .*c_attn.* does not fit tiny"):
        attach(IA3Method(targets=("c_attn",)))


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("full", "freeze", "rslora")])
def test_a_base_that_is_an_adapter_is_refused(name: str, tmp_path: Path) -> None:
    ref = ModelRef("tuned", tiny_model(), tmp_path)
    model = load_model(ModelRef("tiny", tiny_model()), dtype=torch.float32, device="cpu")
    with pytest.raises(ModelError, match="is an adapter itself, and a new one would lose it"):
        method_of(METHODS[name]).attach(model, ref, seed=0)


def test_ours_are_refused_by_peft_by_their_names(tmp_path: Path) -> None:
    for name in ("pfeiffer", "bitfit"):
        saved = attach(METHODS[name]).save(tmp_path / name)
        assert saved.adapter is not None
        kind = json.loads((saved.adapter / "adapter_config.json").read_text())["peft_type"]
        assert kind.startswith("DIALOOP_")
        assert all(
            key.startswith("base_model.model.")
            for key in load_file(saved.adapter / "adapter_model.safetensors")
        )
        with pytest.raises((KeyError, ValueError), match=kind):
            PeftModel.from_pretrained(loaded(ModelRef("tiny", tiny_model())), saved.adapter)
