"""Pre-training in miniature: from text files to a directory that transformers loads."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from dialoop.config import PretrainRecipe
from dialoop.errors import TrainError
from dialoop.train.loop import Progress, read_journal
from dialoop.train.pretrain import prepare
from tests.tiny import CORPUS
from tests.train.drill import ANSWERS, striking


def write_sources(folder: Path) -> None:
    texts = [{"text": f"{text} ({i})", "licence": "MIT"} for i, text in enumerate(CORPUS * 6)]
    texts += [{"text": "unwanted ψ", "licence": "CC-BY-NC"}]
    talks = [
        {"messages": [{"role": "user", "content": f"{q} {i}"}, {"role": "assistant", "content": a}]}
        for i in range(9)
        for q, a in ANSWERS.items()
    ]
    for name, rows in (("text", texts), ("talk", talks)):
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")


def recipe(folder: Path, **changes: Any) -> PretrainRecipe:
    stage = {"length": 32, "batch_tokens": 256, "learning_rate": 5e-2}
    table: dict[str, Any] = {
        "name": "mini",
        "sources": {
            "text": {"path": str(folder / "text.jsonl"), "licences": ["MIT"]},
            "talk": {"path": str(folder / "talk.jsonl"), "as": "chat"},
        },
        "tokenizer": {"vocab_size": 380, "sample_bytes": 4000},
        "architecture": {"hidden": 64, "layers": 1, "heads": 1, "kv_heads": 1, "mlp": 64, "context": 128},
        "stages": [
            {"name": "text", "sources": ["text", "talk"], "tokens": 256 * 8, **stage},
            {"name": "talk", "sources": ["talk"], "tokens": 256 * 6, "mask": "assistant", **stage},
        ],
        "micro_batch": 128,
        "checkpoint_every": 4,
        "held_out": 0.1,
    }
    return PretrainRecipe.model_validate(table | changes)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sources, and a finished run in `run`."""
    folder = tmp_path_factory.mktemp("pretrain")
    write_sources(folder)
    result = prepare(recipe(folder), folder / "run").run(lambda progress: None)
    assert (result.step, result.interrupted) == (14, False)
    return folder


def test_transformers_loads_the_model_and_its_tokenizer(place: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(place / "run" / "model")
    tokenizer = AutoTokenizer.from_pretrained(place / "run" / "model")
    turns = [{"role": "user", "content": "我想退货。"}]
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt")["input_ids"]
    out = model.generate(ids, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert out.shape[1] == ids.shape[1] + 3
    assert type(model).__name__ == "Qwen3ForCausalLM"
    assert model.config.vocab_size == len(tokenizer) == 380


def test_the_loss_falls(place: Path) -> None:
    losses = [row["loss"] for row in read_journal(place / "run" / "metrics.jsonl")]
    assert losses[7] < losses[0] - 0.3


def test_an_interrupted_run_resumes_to_the_same_model(place: Path) -> None:
    folder = place / "interrupted"
    first = prepare(recipe(place), folder).run(striking(6, signal.SIGINT))
    assert (first.step, first.interrupted) == (6, True)
    seen: list[Progress] = []
    notes: list[str] = []
    prepare(recipe(place), folder, notes.append).run(seen.append)
    assert [progress.step for progress in seen] == [*range(7, 15)]
    assert not any("learning" in note for note in notes)
    got, wanted = (load_file(run / "model" / "model.safetensors") for run in (folder, place / "run"))
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)


def test_rows_of_other_licences_and_held_out_rows_are_not_in_the_tokens(place: Path) -> None:
    ready = prepare(recipe(place), place / "run")
    trained = ready.tokenizer.decode(ready.sources["text"].tokens.tolist(), skip_special=False)
    held = [
        json.loads(line)["text"]
        for line in (place / "run" / "tokens" / "text.held_out.jsonl")
        .read_text(encoding="utf-8")
        .splitlines()
    ]
    assert held
    assert "ψ" not in trained
    assert not any(text in trained.split("<|endoftext|>") for text in held)


def test_a_directory_of_another_recipe_is_refused_but_stages_may_change(place: Path) -> None:
    with pytest.raises(TrainError, match="holds a run of another recipe"):
        prepare(recipe(place, seed=1), place / "run")
    longer = recipe(place).model_dump(by_alias=True)["stages"]
    assert prepare(recipe(place, stages=longer[:1]), place / "run").plan.steps == 8
