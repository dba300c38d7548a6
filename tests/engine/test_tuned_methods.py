"""Models tuned by each method, answered by the engine as by the model that was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dialoop.chat.render import render_prompt
from dialoop.config import (
    BitFitMethod,
    BottleneckMethod,
    IA3Method,
    LoraMethod,
    MethodSettings,
    PrefixMethod,
    PromptMethod,
    PTuningV2Method,
)
from dialoop.engine.generate import context_of, generate
from dialoop.engine.loaded import open_model, open_models
from dialoop.engine.local import LocalEngine
from dialoop.engine.score import log_likelihoods
from dialoop.errors import UnsupportedError
from dialoop.models.opening import opening_ids
from dialoop.models.packed import PackedBody
from dialoop.types import Conversation, Message, ModelRef, Precision, Sampling, fold
from tests.conformance.engine import QUESTION, asking
from tests.conformance.method import MethodConformance
from tests.decoders import decoder

METHODS: dict[str, MethodSettings] = {
    "dora": LoraMethod(rank=4, dora=True),
    "ia3": IA3Method(),
    "bitfit": BitFitMethod(),
    "houlsby": BottleneckMethod(size=8, placement="houlsby"),
    "parallel": BottleneckMethod(size=8, placement="parallel"),
    "prompt": PromptMethod(tokens=4),
    "prefix": PrefixMethod(tokens=4, hidden=16),
    "p-tuning-v2": PTuningV2Method(tokens=4),
}
SOFT = ("prompt", "prefix", "p-tuning-v2")


def greedy(model: nn.Module, prompt: tuple[int, ...], count: int) -> list[int]:
    """By packed forwards of the whole text, as in training."""
    body, ids = PackedBody(model), list(prompt)
    with torch.no_grad():
        for _ in range(count):
            hidden = body.hidden(torch.tensor(ids), (len(ids),))
            ids.append(int(body.logits(hidden[-1:])[0].argmax()))
    body.release()
    return ids[len(prompt) :]


def tuned(name: str, family: str, folder: Path) -> tuple[ModelRef, nn.Module]:
    attached = MethodConformance().taught(METHODS[name], decoder(family))
    return attached.save(folder / "saved"), attached.model


@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
@pytest.mark.parametrize("name", METHODS)
async def test_the_engine_answers_as_the_model_that_was_trained(
    name: str, family: str, tmp_path: Path
) -> None:
    ref, model = tuned(name, family, tmp_path)
    opened: Any = open_models([ref])[ref.name]
    prompt = render_prompt(dialogue(), opened.tokenizer)
    wanted = greedy(model, prompt, 8)
    engine = LocalEngine({ref.name: opened}, step_tokens=16)
    request = asking(engine, max_tokens=8, ignore_eos=True, logprobs=0, prompt_logprobs=0)
    (answer,) = await fold(engine.chat(request))
    assert [token.token_id for token in answer.logprobs] == wanted
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(prompt)
    assert len(answer.prompt_logprobs) == len(prompt)
    await engine.aclose()


def dialogue() -> Conversation:
    return Conversation((Message("user", QUESTION),))


@pytest.mark.parametrize("name", SOFT)
async def test_a_soft_prompt_takes_places_of_the_context_and_is_scored_through(
    name: str, tmp_path: Path
) -> None:
    ref, model = tuned(name, "qwen3", tmp_path)
    opened = open_model(ref)
    assert opened.served.context == 256 - 4
    assert context_of(opened.model) == 256 - 4
    history, answer = dialogue(), "It ships today."
    whole = Conversation((*history.messages, Message("assistant", answer)))
    ((wanted, count),) = log_likelihoods(model, opened.tokenizer, [whole])
    engine = LocalEngine({ref.name: opened})
    (scored,) = await engine.score(ref.name, history, [answer])
    assert sum(scored.logprobs) == pytest.approx(wanted, abs=1e-2)
    assert len(scored.logprobs) == count
    with pytest.raises(UnsupportedError, match="opened by a soft prompt"):
        await engine.embed(ref.name, ["text"])
    await engine.aclose()


@pytest.mark.parametrize("name", [*SOFT, "parallel"])
def test_answers_side_by_side_are_those_of_each_alone(name: str, tmp_path: Path) -> None:
    ref, model = tuned(name, "qwen3", tmp_path)
    opened = open_model(ref)
    texts = (QUESTION, "Hello", "谢谢。")
    prompts = [render_prompt(Conversation((Message("user", text),)), opened.tokenizer) for text in texts]
    found = generate(
        opened.model, opened.tokenizer, prompts, Sampling(temperature=0, ignore_eos=True),
        batch_size=3, max_tokens=6,
    )  # fmt: skip
    assert [list(each.token_ids) for each in found] == [greedy(model, prompt, 6) for prompt in prompts]
    assert bool(opening_ids(opened.model)) == (name in SOFT)


@pytest.mark.parametrize("precision", ["float32", "half", "int8"])
@pytest.mark.parametrize("name", ["houlsby", "prompt", "prefix"])
async def test_packed_weights_keep_what_was_added(name: str, precision: Precision, tmp_path: Path) -> None:
    ref, _ = tuned(name, "qwen3", tmp_path)
    base = ModelRef("base", decoder("qwen3"))
    said = []
    for each in (ref, base):
        engine = LocalEngine({each.name: open_model(each, precision=precision)})
        (answer,) = await fold(engine.chat(asking(engine, max_tokens=8, ignore_eos=True)))
        said.append(answer.text)
        await engine.aclose()
    assert said[0] != said[1]
