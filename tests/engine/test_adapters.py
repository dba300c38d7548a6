"""Several adapters and their base in one engine: each answer is that of the adapter alone."""

from __future__ import annotations

import asyncio
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from dialoop.engine.loaded import open_model, open_models
from dialoop.engine.local import LocalEngine
from dialoop.errors import ModelError
from dialoop.models.adapters import Adapters
from dialoop.types import Answer, ChatRequest, Conversation, Message, ModelRef, Sampling, fold
from tests.tiny import tiny_model

QUESTIONS = ["Where is my order?", "我想退货。", "Thanks! " * 12]


def write_adapter(folder: Path, seed: int, **changes: Any) -> Path:
    """A LoRA adapter of the tiny model that changes its answers."""
    torch.manual_seed(seed)
    config = LoraConfig(**{"r": 4, "lora_alpha": 16, "target_modules": "all-linear", **changes})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, message="`is_gradient_checkpointing`")
        wrapped = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model()), config)
    for name, weight in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    wrapped.save_pretrained(folder, save_embedding_layers=False)
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
