"""Vectors of texts are those of transformers' own hidden states."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, BloomConfig

from dialoop.engine.loaded import LoadedEncoder, LoadedModel, open_model, open_models
from dialoop.engine.local import LocalEngine
from dialoop.errors import ContextLengthError, ModelError, OverloadedError, RequestError, UnsupportedError
from dialoop.types import ChatRequest, Conversation, Embed, Embedded, Message, ModelRef, Sampling, fold
from tests.conformance.engine import asking
from tests.encoders import LONGEST, SIZE, make_encoder, pooling
from tests.tiny import CONTEXT, make_tiny_model, tiny_model

TEXTS = [
    "Where is my order?",
    "我想退货",
    "Hello",
    "I would like to return the shoes that I bought",
    "x",
    "请告诉我订单号，谢谢。",
]


async def embed(folder: Path, texts: Sequence[str | Sequence[int]], **asked: Any) -> Embedded:
    engine = LocalEngine(open_models([ModelRef("model", folder)]), step_tokens=asked.pop("step_tokens", 24))
    assert isinstance(engine, Embed)
    try:
        return await engine.embed("model", texts, **asked)
    finally:
        await engine.aclose()


@torch.no_grad()
def reference(folder: Path, texts: Sequence[str], mode: str = "mean") -> list[list[float]]:
    """Each text alone, by transformers' own tokenizer and model, to length 1."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    found = []
    for text in texts:
        hidden = model(torch.tensor([tokenizer(text, truncation=False)["input_ids"]])).last_hidden_state[0]
        vector = {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}[mode]
        found.append((vector / vector.norm()).tolist())
    return found


def assert_close(found: Embedded, wanted: list[list[float]]) -> None:
    torch.testing.assert_close(torch.tensor(found.vectors), torch.tensor(wanted), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("step_tokens", [24, 512])
@pytest.mark.parametrize("family", ["bert", "roberta"])
async def test_an_encoders_vectors_are_means_of_its_hidden_states(
    tmp_path: Path, family: str, step_tokens: int
) -> None:
    folder = make_encoder(tmp_path, family)
    found = await embed(folder, TEXTS, step_tokens=step_tokens)
    assert_close(found, reference(folder, TEXTS))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert found.prompt_tokens == sum(len(tokenizer(text)["input_ids"]) for text in TEXTS)
    assert all(math.hypot(*vector) == pytest.approx(1, abs=1e-5) for vector in found.vectors)


@pytest.mark.parametrize(
    ("said", "mode"), [("cls_token", "cls"), ("mean_tokens", "mean"), ("lasttoken", "last")]
)
async def test_the_pooling_is_that_of_the_models_own_files(tmp_path: Path, said: str, mode: str) -> None:
    folder = make_encoder(tmp_path, **{"1_Pooling/config.json": pooling(said)})
    assert_close(await embed(folder, TEXTS[:3]), reference(folder, TEXTS[:3], mode))


async def test_the_pooling_lies_where_the_stages_say(tmp_path: Path) -> None:
    stages = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "pool", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    folder = make_encoder(tmp_path, **{"modules.json": stages, "pool/config.json": {"pooling_mode": "cls"}})
    assert_close(await embed(folder, TEXTS[:2]), reference(folder, TEXTS[:2], "cls"))
    stages[2]["type"] = "sentence_transformers.models.Dense"
    with pytest.raises(ModelError, match="Dense"):
        await embed(make_encoder(tmp_path, **{"modules.json": stages}), TEXTS[:1])


@pytest.mark.parametrize("config", [pooling("max_tokens"), {"pooling_mode": "weightedmean"}])
async def test_a_pooling_that_is_not_known_is_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="pools by"):
        await embed(make_encoder(tmp_path, **{"1_Pooling/config.json": config}), TEXTS[:1])


@pytest.mark.parametrize("step_tokens", [5, 512])
@pytest.mark.parametrize("mode", ["mean", "last"])
async def test_a_decoders_vectors_are_those_of_its_hidden_states(
    tmp_path: Path, mode: str, step_tokens: int
) -> None:
    folder = make_tiny_model(tmp_path)
    (folder / "1_Pooling").mkdir()
    said = '{"pooling_mode": "lasttoken"}' if mode == "last" else '{"pooling_mode": "mean"}'
    (folder / "1_Pooling" / "config.json").write_text(said)
    found = await embed(folder, TEXTS, step_tokens=step_tokens)
    assert_close(found, reference(folder, TEXTS, mode))


async def test_a_decoder_that_is_read_sequence_by_sequence_embeds_too() -> None:
    config = BloomConfig(vocab_size=400, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3)
    config.max_position_embeddings = CONTEXT
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    loaded = replace(open_model(ModelRef("model", tiny_model())), model=model)
    engine = LocalEngine({"model": loaded})
    found = await engine.embed("model", [[5, 6, 7], [8]], normalize=False)
    await engine.aclose()
    with torch.no_grad():
        hidden = [model.transformer(torch.tensor([ids])).last_hidden_state[0] for ids in ([5, 6, 7], [8])]
    wanted = [each.mean(0) for each in hidden]
    assert_close(found, torch.stack(wanted).tolist())


async def test_token_ids_are_taken_as_they_are(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path)
    ids = AutoTokenizer.from_pretrained(folder)(TEXTS[0])["input_ids"]
    found = await embed(folder, [TEXTS[0], ids])
    assert found.vectors[0] == pytest.approx(found.vectors[1], abs=1e-5)


async def test_special_tokens_that_a_text_spells_are_plain_text(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path)
    spelt, meant = [await embed(folder, [text]) for text in ("a [SEP] b", "a \u200b b")]
    assert spelt.prompt_tokens > meant.prompt_tokens + 1


async def test_vectors_keep_their_length_where_it_is_asked_for(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path)
    raw, unit = [await embed(folder, TEXTS[:1], normalize=normalize) for normalize in (False, True)]
    norm = math.hypot(*raw.vectors[0])
    assert norm != pytest.approx(1, abs=1e-2)
    assert [value / norm for value in raw.vectors[0]] == pytest.approx(unit.vectors[0], abs=1e-5)


@pytest.mark.parametrize(
    ("config", "cut"), [({"is_matryoshka": True}, 7), ({"matryoshka_dimensions": [8, 16]}, 8)]
)
async def test_a_model_that_was_trained_for_it_gives_shorter_vectors(
    tmp_path: Path, config: dict[str, Any], cut: int
) -> None:
    folder = make_encoder(tmp_path, **{"config.json": config})
    whole, short = [await embed(folder, TEXTS[:1], dimensions=size) for size in (None, cut)]
    norm = math.hypot(*whole.vectors[0][:cut])
    assert [value / norm for value in whole.vectors[0][:cut]] == pytest.approx(short.vectors[0], abs=1e-5)
    with pytest.raises(RequestError, match=f"{SIZE}"):
        await embed(folder, TEXTS[:1], dimensions=SIZE + 1)


async def test_a_model_that_was_not_gives_whole_vectors_only(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path)
    assert len((await embed(folder, TEXTS[:1], dimensions=SIZE)).vectors[0]) == SIZE
    with pytest.raises(RequestError) as caught:
        await embed(folder, TEXTS[:1], dimensions=8)
    assert caught.value.param == "dimensions"


@pytest.mark.parametrize("family", ["bert", "roberta"])
async def test_a_text_that_fills_the_context_is_read_and_a_longer_one_refused(
    tmp_path: Path, family: str
) -> None:
    folder = make_encoder(tmp_path, family)
    found = await embed(folder, [[5] * LONGEST, "Hello"])
    assert_close(Embedded(found.vectors[1:], 0), reference(folder, ["Hello"]))
    with pytest.raises(ContextLengthError) as caught:
        await embed(folder, ["Hello", "Hello " * 30 * LONGEST])
    assert (caught.value.limit, caught.value.param) == (LONGEST, "input")
    assert "input[1]" in str(caught.value)


async def test_a_model_that_was_trained_on_shorter_texts_says_so(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path, **{"sentence_bert_config.json": {"max_seq_length": 12}})
    with pytest.raises(ContextLengthError) as caught:
        await embed(folder, [[5] * 13])
    assert caught.value.limit == 12


@pytest.mark.parametrize("text", ["", [], [5, 99_999], [-1]])
async def test_a_text_that_cannot_be_read_is_named(tmp_path: Path, text: Any) -> None:
    with pytest.raises(RequestError) as caught:
        await embed(make_encoder(tmp_path), ["Hello", text])
    assert caught.value.param == "input"
    assert "input[1]" in str(caught.value)


async def test_an_encoder_does_not_chat_and_score_and_says_so(tmp_path: Path) -> None:
    engine = LocalEngine(open_models([ModelRef("bert", make_encoder(tmp_path))]))
    assert [(each.kind, each.context) for each in engine.models()] == [("encoder", LONGEST)]
    with pytest.raises(UnsupportedError, match="encoder"):
        await anext(engine.chat(asking(engine)))
    with pytest.raises(UnsupportedError, match="encoder"):
        await engine.score("bert", Conversation((Message("user", "Hi"),)), ["Hi"])
    await engine.aclose()


async def test_an_encoder_and_a_decoder_work_side_by_side(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path)
    models = open_models([ModelRef("bert", folder), ModelRef("tiny", tiny_model())])
    assert (type(models["bert"]), type(models["tiny"])) == (LoadedEncoder, LoadedModel)
    engine = LocalEngine(models, step_tokens=16)
    chat = ChatRequest("tiny", Conversation((Message("user", "Hi"),)), Sampling(temperature=0, max_tokens=12))
    (alone,) = await fold(engine.chat(chat))
    (among,), *found = await asyncio.gather(
        fold(engine.chat(chat)),
        *(engine.embed("bert", TEXTS) for _ in range(3)),
        engine.embed("tiny", TEXTS),
    )
    assert among.text == alone.text
    for each in found[:3]:
        assert_close(each, reference(folder, TEXTS))
    assert_close(found[3], reference(tiny_model(), TEXTS))
    await engine.aclose()


async def test_a_cancelled_request_leaves_the_engine_as_it_was(tmp_path: Path) -> None:
    engine = LocalEngine(open_models([ModelRef("bert", make_encoder(tmp_path))]), max_open=1)
    for _ in range(5):
        task = asyncio.create_task(engine.embed("bert", TEXTS * 20))
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError):
            await engine.embed("bert", TEXTS)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert len((await engine.embed("bert", TEXTS)).vectors) == len(TEXTS)
    assert (await engine.embed("bert", [])).vectors == ()
    await engine.aclose()
