"""A BERT published elsewhere, laid out as bert-base-cased is, goes by its path in a shipped recipe."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForTokenClassification, BertConfig, BertForPreTraining
from typer.testing import CliRunner

from dialoop.cli.app import app
from dialoop.models.head_config import labels_of
from dialoop.store.registry import Store
from tests.train.head_drill import TAGGED

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Names of Google's first release (gamma, beta), a pooler, heads of pre-training, cased pieces."""
    from tokenizers import BertWordPieceTokenizer

    folder = tmp_path_factory.mktemp("bert-base-cased")
    pieces = BertWordPieceTokenizer(lowercase=False, strip_accents=False)
    texts = [" ".join(row.tokens) for row in TAGGED]
    pieces.train_from_iterator(texts, vocab_size=200, special_tokens=SPECIALS, show_progress=False)
    pieces = BertWordPieceTokenizer(vocab=pieces.get_vocab(), lowercase=False, strip_accents=False)
    pieces.save(str(folder / "tokenizer.json"))
    pieces.save_model(str(folder))
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false, "model_max_length": 512}')
    torch.manual_seed(3)
    shape = BertConfig(
        vocab_size=pieces.get_vocab_size(), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=64,
    )  # fmt: skip
    BertForPreTraining(shape).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["BertForMaskedLM"]}))
    weights = load_file(folder / "model.safetensors")
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    for new, name in old.items():
        weights = {key.replace(new, name): value + key.endswith(new) for key, value in weights.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_the_shipped_recipe_takes_it_by_its_path(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIALOOP_DATA", str(tmp_path))
    rows = "".join(
        json.dumps({"doc": i, "tokens": row.tokens, "tags": row.tags}) + "\n"
        for i, row in enumerate([*TAGGED] * 4)
    )
    (tmp_path / "conll2003").mkdir()
    for name in ("train", "valid"):
        (tmp_path / "conll2003" / f"{name}.jsonl.gz").write_bytes(gzip.compress(rows.encode()))
    changes = [f"base={bert}", "optim.learning_rate=5e-3", "train.epochs=12", "regularisation.dropout=0.1",
               "data.clean.steps=[]"]  # fmt: skip
    words = ["--home", str(tmp_path / "home"), "tune", "conll2003"]
    done = CliRunner().invoke(app, words + [word for each in changes for word in ("--set", each)])
    assert done.exit_code == 0, done.output
    assert "Registered: conll2003@1" in done.output
    with Store.open(tmp_path / "home") as store:
        made = store.models.resolve("conll2003").base
    model = AutoModelForTokenClassification.from_pretrained(made)
    assert tuple(model.config.id2label.values()) == labels_of(made)
    for name, weight in model.named_parameters():
        if name.endswith("LayerNorm.weight"):  # begins at 1 where the old name is not known
            assert weight.mean() > 1.5, name
