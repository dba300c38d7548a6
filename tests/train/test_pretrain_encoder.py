"""An encoder from nothing: what is hidden, what is learnt, and a directory that transformers loads."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoTokenizer

from dialoop.config import PretrainRecipe
from dialoop.errors import TrainError
from dialoop.models.encoder import is_encoder
from dialoop.train.batch import Batch
from dialoop.train.head_answers import Answering
from dialoop.train.heads import teach
from dialoop.train.loop import read_journal
from dialoop.train.masking import Specials, masked
from dialoop.train.pretrain import prepare
from dialoop.types import ModelRef
from tests.train.drill import striking
from tests.train.head_drill import LABELLED, head_recipe
from tests.train.test_pretrain import write_sources

SHAPE = {"family": "modernbert", "hidden": 64, "layers": 2, "heads": 2, "mlp": 64, "context": 64}


def recipe(folder: Path, **changes: Any) -> PretrainRecipe:
    stage = {
        "name": "text",
        "sources": ["text", "talk"],
        "tokens": 256 * 40,
        "length": 32,
        "batch_tokens": 256,
    }
    table: dict[str, Any] = {
        "name": "mini",
        "sources": {
            "text": {"path": str(folder / "text.jsonl"), "licences": ["MIT"]},
            "talk": {"path": str(folder / "talk.jsonl"), "as": "chat"},
        },
        "tokenizer": {"vocab_size": 380, "sample_bytes": 4000},
        "architecture": SHAPE,
        "stages": [{**stage, "learning_rate": 1e-2}],
        "micro_batch": 128,
        "held_out": 0.1,
    }
    return PretrainRecipe.model_validate(table | changes)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    write_sources(folder)
    prepare(recipe(folder), folder / "run").run(lambda progress: None)
    return folder / "run"


def test_masked_tokens_become_likelier(made: Path) -> None:
    losses = [row["loss"] for row in read_journal(made / "metrics.jsonl")]
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:3])


def test_an_interrupted_run_resumes_to_the_same_encoder(made: Path) -> None:
    folder = made.parent / "interrupted"
    first = prepare(recipe(made.parent), folder).run(striking(6, signal.SIGINT))
    assert (first.step, first.interrupted) == (6, True)
    prepare(recipe(made.parent), folder).run(lambda progress: None)
    got, wanted = (load_file(run / "model" / "model.safetensors") for run in (folder, made))
    assert got.keys() == wanted.keys()
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)


def test_transformers_loads_the_encoder_and_its_tokenizer_frames_texts(made: Path) -> None:
    model = AutoModelForMaskedLM.from_pretrained(made / "model")
    tokenizer = AutoTokenizer.from_pretrained(made / "model")
    ids = tokenizer("Where is it?", return_tensors="pt")
    assert model(**ids).logits.shape[-1] == len(tokenizer)
    assert tokenizer.convert_ids_to_tokens(ids["input_ids"][0])[:: len(ids["input_ids"][0]) - 1] == [
        "[CLS]",
        "[SEP]",
    ]
    assert tokenizer.mask_token == "[MASK]"
    assert is_encoder(made / "model")


def test_a_head_can_be_taught_on_it(made: Path, tmp_path: Path) -> None:
    trained = teach(
        head_recipe("classify", train__epochs=25.0), ModelRef("mini", made / "model"), LABELLED, (), tmp_path
    )
    assert trained.artefact is not None
    found = Answering.load(trained.artefact.base, 40).labels_for([row.text for row in LABELLED])
    assert found == [row.label for row in LABELLED]


def test_the_shares_of_what_is_hidden_are_devlins() -> None:
    rows, length = 400, 50
    ids = np.full(rows * length, 7, np.int64)
    batch = Batch(ids, ids, np.ones(rows * length, np.float32), (length,) * rows)
    specials = Specials(first=101, last=102, mask=103)
    found = masked(batch, specials, 0.3, 100, np.random.default_rng(0))
    table, chosen = found.token_ids.reshape(rows, length), found.weights.reshape(rows, length) > 0
    assert (table[:, 0] == 101).all()
    assert (table[:, -1] == 102).all()
    assert not chosen[:, [0, -1]].any()
    inside = chosen[:, 1:-1]
    assert (inside.sum(1) == round(0.3 * (length - 2))).all()
    now = table[:, 1:-1]
    assert (now[inside] == 103).mean() == pytest.approx(0.8, abs=0.02)
    assert (now[inside] == 7).mean() == pytest.approx(0.1 + 0.1 / 100, abs=0.02)
    assert (now[~inside] == 7).all()
    assert (found.targets.reshape(rows, length)[chosen] == 7).all()


def test_masks_are_a_pure_function_of_the_step(made: Path) -> None:
    folder = made.parent
    first, again = (prepare(recipe(folder), made).plan for _ in range(2))
    assert all(
        (a.token_ids == b.token_ids).all() for a, b in zip(first.batches(3), again.batches(3), strict=True)
    )
    assert (first.batches(3)[0].token_ids != first.batches(4)[0].token_ids).any()


def test_the_loss_is_that_of_transformers_on_the_same_labels(made: Path) -> None:
    work: Any = prepare(recipe(made.parent), made)
    encoder = work.encoder.float().eval()
    batch = work.plan.batches(0)[0]
    labels = torch.from_numpy(np.where(batch.weights > 0, batch.targets, -100)).view(len(batch.lengths), -1)
    with torch.no_grad():
        wanted = encoder(input_ids=torch.from_numpy(batch.token_ids).view_as(labels), labels=labels).loss
        mine = work.loss(batch) / float(batch.weights.sum())
    torch.testing.assert_close(mine, wanted, atol=1e-4, rtol=1e-4)


def test_a_window_longer_than_the_context_is_refused(made: Path, tmp_path: Path) -> None:
    changed = recipe(made.parent, architecture={**SHAPE, "context": 32})
    stages = [{**changed.stages[0].model_dump(), "length": 64}]
    with pytest.raises(TrainError, match="at most 32 tokens"):
        prepare(recipe(made.parent, architecture={**SHAPE, "context": 32}, stages=stages), tmp_path / "run")
