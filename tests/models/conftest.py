"""A tuned model, for the tests that load and export one."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from dialoop.models.load import load_model
from dialoop.types import ModelRef
from tests.tiny import tiny_model


@pytest.fixture
def tuned(tmp_path: Path) -> ModelRef:
    """An adapter with random weights on the tiny model, as peft itself writes it."""
    model = load_model(ModelRef("tiny", tiny_model()), dtype=torch.float32, device="cpu")
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore", FutureWarning)
        torch.manual_seed(1)
        config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False)
        get_peft_model(model, config).save_pretrained(tmp_path / "adapter")  # type: ignore[arg-type]
    return ModelRef("tuned", tiny_model(), tmp_path / "adapter")
