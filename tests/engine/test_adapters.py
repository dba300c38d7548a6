"""Several adapters and their base in one engine: each answer is that of the adapter alone."""

from __future__ import annotations

import asyncio
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, Olmo2Config

from dialoop.engine.loaded import open_model, open_models
from dialoop.engine.local import LocalEngine
from dialoop.errors import ModelError
from dialoop.models.adapters import Adapters
from dialoop.types import Answer, ChatRequest, Conversation, Message, ModelRef, Precision, Sampling, fold
from tests.tiny import tiny_model

QUESTIONS = ["Where is my order?", "我想退货。", "Thanks! " * 12]


def write_adapter(folder: Path, seed: int, *, base: Path | None = None, **changes: Any) -> Path:
    """A LoRA adapter of a base, the tiny model unless given, that changes its answers."""
    torch.manual_seed(seed)
    config = LoraConfig(**{"r": 4, "lora_alpha": 16, "target_modules": "all-linear", **changes})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, message="`is_gradient_checkpointing`")
        wrapped = get_peft_model(AutoModelForCausalLM.from_pretrained(base or tiny_model()), config)
    for name, weight in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    return folder


def make_olmo(folder: Path) -> Path:
    """A model that no lean decoder fits, with the tiny model's tokenizer."""
    shutil.copytree(tiny_model(), folder, ignore=shutil.ignore_patterns("config.json", "*.safetensors"))
    tiny = AutoConfig.from_pretrained(tiny_model())
    config = Olmo2Config(
        vocab_size=tiny.vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=tiny.max_position_embeddings,
        initializer_range=0.3, eos_token_id=tiny.eos_token_id, pad_token_id=tiny.pad_token_id,
        bos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def refs(tmp_path_factory: pytest.TempPathFactory) -> list[ModelRef]:
    folder = tmp_path_factory.mktemp("adapters")
    first = write_adapter(folder / "first", 1)
    second = write_adapter(folder / "second", 2, r=2, use_rslora=True, target_modules=["q_proj", "down_proj"])
    base = tiny_model()
    return [ModelRef("base", base), ModelRef("first", base, first), ModelRef("second", base, second)]


def asking(model: str, text: str) -> ChatRequest:
    return ChatRequest(
        model, Conversation((Message("user", text),)), Sampling(temperature=0, max_tokens=16, logprobs=0)
    )


async def answers_of(engine: LocalEngine, requests: list[ChatRequest]) -> list[Answer]:
    found = await asyncio.gather(*(fold(engine.chat(request)) for request in requests))
    return [answer for (answer,) in found]


async def test_one_base_answers_for_all_as_each_would_alone(refs: list[ModelRef]) -> None:
    shared = open_models(refs)
    assert len({id(loaded.model) for loaded in shared.values()}) == 1
    requests = [asking(ref.name, text) for text in QUESTIONS for ref in refs]
    engine = LocalEngine(shared, step_tokens=24)
    together = await answers_of(engine, requests)
    await engine.aclose()
    alone = []
    for ref in refs:
        engine = LocalEngine({ref.name: open_model(ref)})
        alone.append(await answers_of(engine, [r for r in requests if r.model == ref.name]))
        await engine.aclose()
    for i, ref in enumerate(refs):
        for mine, other in zip(together[i::3], alone[i], strict=True):
            assert mine.text == other.text, ref.name
            logs = [[token.logprob for token in answer.logprobs] for answer in (mine, other)]
            assert logs[0] == pytest.approx(logs[1], abs=1e-4)
    assert len({answer.text for answer in together[:3]}) == 3


async def test_rows_keep_to_their_adapters_while_others_come_and_go(
    refs: list[ModelRef], tmp_path: Path
) -> None:
    """Adapters of several ranks and layers, from four in one step down to one and up again."""
    third = write_adapter(tmp_path / "third", 3, r=3, target_modules=["gate_proj", "k_proj"])
    all_refs = [*refs, ModelRef("third", refs[0].base, third)]
    limits = {"base": 3, "first": 12, "second": 6, "third": 9}
    late = ["third", "first", "second"]

    def request(name: str, text: str) -> ChatRequest:
        asked = asking(name, text)
        return replace(asked, sampling=replace(asked.sampling, max_tokens=limits[name], ignore_eos=True))

    engine = LocalEngine(open_models(all_refs))
    early = [request(name, QUESTIONS[0]) for name in limits]
    together = await answers_of(engine, early)
    together += await answers_of(engine, [request(name, QUESTIONS[1]) for name in late])
    await engine.aclose()
    alone = []
    for asked in (*early, *(request(name, QUESTIONS[1]) for name in late)):
        ref = next(ref for ref in all_refs if ref.name == asked.model)
        engine = LocalEngine({ref.name: open_model(ref)})
        alone += await answers_of(engine, [asked])
        await engine.aclose()
    for mine, other in zip(together, alone, strict=True):
        logs = [[token.logprob for token in answer.logprobs] for answer in (mine, other)]
        assert mine.text == other.text
        assert logs[0] == pytest.approx(logs[1], abs=1e-4)


async def test_a_prompt_is_read_through_the_adapter(refs: list[ModelRef]) -> None:
    found = []
    for models in (open_models(refs), {"first": open_model(refs[1])}):
        engine = LocalEngine(models)
        request = asking("first", QUESTIONS[0])
        sampling = replace(request.sampling, prompt_logprobs=0)
        ((told,),) = [await answers_of(engine, [replace(request, sampling=sampling)])]
        found.append([place[0].logprob for place in told.prompt_logprobs[1:]])
        await engine.aclose()
    assert found[0] == pytest.approx(found[1], abs=1e-4)


@pytest.mark.parametrize("precision", ["float32", "half"])
async def test_an_architecture_that_is_packed_in_place_is_answered_through_its_adapters_in_one_step(
    tmp_path: Path, precision: Precision
) -> None:
    """Those that it was opened with and those that come later."""
    base = make_olmo(tmp_path / "olmo")
    adapters = [write_adapter(tmp_path / str(i), i + 5, base=base) for i in range(2)]
    opened = [ModelRef("base", base), ModelRef("first", base, adapters[0])]
    engine = LocalEngine(open_models(opened, precision=precision))
    later = ModelRef("later", base, adapters[1])
    await engine.load(later)
    requests = [asking(ref.name, text) for ref in (*opened, later) for text in QUESTIONS]
    together = await answers_of(engine, requests)
    again = await answers_of(engine, requests[2::3])
    await engine.aclose()
    assert all(answer.usage.cached_tokens for answer in again), "not read over blocks"
    alone = []
    for ref in (*opened, later):
        engine = LocalEngine({ref.name: open_model(ref)})
        alone += await answers_of(engine, [r for r in requests if r.model == ref.name])
        await engine.aclose()
    assert len({answer.text for answer in alone[::3]}) == 3
    for mine, other in zip(together, alone, strict=True):
        first = [answer.logprobs[0] for answer in (mine, other)]
        assert first[0].token_id == first[1].token_id
        assert first[0].logprob == pytest.approx(
            first[1].logprob, abs=1e-4 if precision == "float32" else 0.05
        )


async def test_prefixes_are_not_shared_across_adapters(refs: list[ModelRef]) -> None:
    engine = LocalEngine(open_models(refs))
    for ref in refs:
        first, again = [await answers_of(engine, [asking(ref.name, QUESTIONS[2])]) for _ in range(2)]
        assert first[0].usage.cached_tokens == 0 < again[0].usage.cached_tokens
    await engine.aclose()


@pytest.mark.parametrize("changes", [{"use_dora": True}, {"alpha_pattern": {"q_proj": 8}}, {"bias": "all"}])
async def test_an_adapter_that_changes_more_has_a_base_of_its_own(
    tmp_path: Path, refs: list[ModelRef], changes: dict[str, Any]
) -> None:
    more = ModelRef("more", tiny_model(), write_adapter(tmp_path / "more", 3, **changes))
    with pytest.raises(ModelError):
        Adapters(open_model(refs[0]).model).read(more.adapter or tmp_path)
    opened = open_models([*refs[:2], more])
    assert len({id(loaded.model) for loaded in opened.values()}) == 3
    assert list(opened) == ["base", "first", "more"]


def test_an_adapter_is_read_beside_layers_whose_weights_were_let_go(refs: list[ModelRef]) -> None:
    model, folder = open_model(refs[0]).model, refs[1].adapter or Path()
    whole = Adapters(model).read(folder)
    adapters = Adapters(model)
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.weight = torch.nn.Parameter(torch.empty(0, dtype=torch.bfloat16))
    found = adapters.read(folder)
    assert (found.digest, found.size) == (whole.digest, whole.size)
    for path, factors in whole.layers.items():
        assert torch.equal(found.layers[path].a, factors.a)
        assert torch.equal(found.layers[path].b, factors.b)


def test_an_adapter_that_is_removed_leaves_the_model_as_it_was(refs: list[ModelRef]) -> None:
    model: Any = open_model(refs[0]).model
    ids = torch.arange(5)[None]
    with torch.inference_mode():
        before = model(ids).logits
        adapters = Adapters(model)
        adapters.add("first", adapters.read(refs[1].adapter or Path()))
        with adapters.applied([(slice(0, 5), "first")]):
            assert not torch.equal(model(ids).logits, before)
        assert torch.equal(model(ids).logits, before)
        adapters.remove("first")
    assert not any(layer._forward_hooks for layer in model.modules())
