"""Fine-tuning end to end on the tiny model: what is learnt, what is written, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from dialoop.chat.render import render, render_prompt
from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.engine.generate import generate
from dialoop.errors import ModelError, TrainError
from dialoop.models.load import load_model
from dialoop.train.loop import Progress, read_journal
from dialoop.train.tune import Tuned, tune
from dialoop.types import Conversation, Message, ModelRef, Sampling
from tests.tiny import tiny_model
from tests.train.drill import ANSWERS, DIALOGUES, recipe

IDS = torch.tensor([[5, 9, 300, 17, 44, 21]])
QUICK = {"optim__learning_rate": 1e-2, "train__patience": 0}


def base() -> ModelRef:
    return ModelRef("tiny", tiny_model())


def logits(ref: ModelRef, *, merge: bool = False) -> torch.Tensor:
    with torch.no_grad():
        return load_model(ref, dtype=torch.float32, device="cpu", merge=merge)(IDS).logits  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """LoRA until the few dialogues are known by heart."""
    chosen = recipe(
        **QUICK,
        train__epochs=40.0,
        train__batch_tokens=512,
        method__rank=8,
        method__alpha=16.0,
        method__dropout=0.0,
    )
    return tune(chosen, base(), DIALOGUES, (), tmp_path_factory.mktemp("taught"))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    chosen = recipe(method={"kind": "full"}, train__epochs=1.0)
    return tune(chosen, base(), DIALOGUES, DIALOGUES[:2], tmp_path_factory.mktemp("full"))


def artefact(tuned: Tuned) -> ModelRef:
    assert tuned.artefact is not None
    return tuned.artefact


def test_a_tuned_model_gives_the_memorised_answers_and_ends_them(taught: Tuned) -> None:
    tokenizer = ChatTokenizer.load(tiny_model())
    prompts = [render_prompt(dialogue.history, tokenizer) for dialogue in DIALOGUES]
    model = load_model(artefact(taught), merge=True)
    greedy = Sampling(temperature=0.0)
    answers = generate(model, tokenizer, prompts, greedy, batch_size=6, max_tokens=48)
    assert [answer.text for answer in answers] == list(ANSWERS.values())
    assert {answer.finish_reason for answer in answers} == {"stop"}


def test_the_end_of_turn_carries_loss() -> None:
    tokenizer = ChatTokenizer.load(tiny_model())
    row = render(DIALOGUES[0], tokenizer)
    learnt = [i for i, weight in zip(row.token_ids, row.loss_mask, strict=True) if weight]
    assert tokenizer.eos_id in learnt


def test_the_loss_falls_and_only_the_adapter_is_counted_as_trained(taught: Tuned) -> None:
    rows = read_journal(artefact(taught).adapter.parent / "metrics.jsonl")  # type: ignore[union-attr]
    assert rows[-1]["loss"] < 0.1 < rows[0]["loss"]
    assert 0 < taught.trained < taught.weights


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_peft_loads_the_adapter_and_merging_gives_the_same_logits(taught: Tuned) -> None:
    ref = artefact(taught)
    assert ref.adapter is not None
    files = sorted(path.name for path in ref.adapter.iterdir())
    assert files == ["adapter_config.json", "adapter_model.safetensors"]
    plain: Any = AutoModelForCausalLM.from_pretrained(tiny_model(), dtype=torch.float32)
    attached = PeftModel.from_pretrained(plain, ref.adapter).eval()
    with torch.no_grad():
        wanted = attached(IDS).logits
    torch.testing.assert_close(logits(ref, merge=True), wanted, atol=2e-4, rtol=2e-4)
    assert (wanted - logits(base())).abs().max() > 0.1


def test_the_base_is_left_as_it_was(taught: Tuned) -> None:
    assert artefact(taught).base == tiny_model()
    weights = load_file(tiny_model() / "model.safetensors")
    loaded = load_model(artefact(taught), dtype=torch.float32, device="cpu").state_dict()
    for name, weight in weights.items():
        held = next(v for k, v in loaded.items() if k.replace(".base_layer", "").endswith(name))
        assert torch.equal(held, weight), name


def test_full_tuning_writes_a_directory_that_transformers_loads(full: Tuned) -> None:
    ref = artefact(full)
    assert ref.adapter is None
    assert full.trained == full.weights
    loaded: Any = AutoModelForCausalLM.from_pretrained(ref.base, dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(loaded(IDS).logits, logits(ref))
    assert (logits(ref) - logits(base())).abs().max() > 0.01
    assert ChatTokenizer.load(ref.base).fingerprint() == ChatTokenizer.load(tiny_model()).fingerprint()


def test_the_best_validation_is_told(full: Tuned) -> None:
    judged = [row for row in read_journal(artefact(full).base.parent / "metrics.jsonl") if row["valid_loss"]]
    assert full.result.best_loss == min(row["valid_loss"] for row in judged)


def test_every_weight_moves_in_full_tuning(full: Tuned) -> None:
    before = load_model(base()).state_dict()
    after = load_model(artefact(full)).state_dict()
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert not {name for name in still if before[name].ndim == 2}


def twice(tmp_path: Path, first: dict[str, Any], then: dict[str, Any]) -> Tuned:
    """Two calls on one directory."""
    given: dict[str, Any] = {"recipe": recipe(train__epochs=1.0), "base": base(), "folder": tmp_path}
    given |= {"items": DIALOGUES, "valid": ()}
    tune(**(given | first))
    return tune(**(given | then))


def test_a_finished_run_is_taken_up_again_without_training(tmp_path: Path) -> None:
    seen: list[Progress] = []
    tuned = twice(tmp_path, {}, {"on_progress": seen.append})
    assert seen == []
    assert artefact(tuned).adapter == tmp_path / "artefact"


@pytest.mark.parametrize(
    "other",
    [
        {"recipe": recipe(train__epochs=2.0)},
        {"items": (*DIALOGUES[:-1], replace(DIALOGUES[-1], messages=DIALOGUES[0].messages))},
        {"valid": DIALOGUES[:1]},
        {"base": ModelRef("tiny@2", tiny_model())},
    ],
    ids=["recipe", "as many other rows", "validation", "base"],
)
def test_a_directory_of_another_run_is_refused(other: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(
        TrainError, match="holds a run of another recipe, base or other data: choose another --run"
    ):
        twice(tmp_path, {}, other)


def test_how_a_run_is_judged_may_change(tmp_path: Path) -> None:
    changed = recipe(train__epochs=1.0, eval__max_cases=3)
    assert twice(tmp_path, {}, {"recipe": changed}).artefact is not None


def test_what_does_not_fit_is_counted(tmp_path: Path) -> None:
    long = Conversation((Message("user", "Where is it? " * 60), Message("assistant", "Here.")))
    chosen = recipe(train__epochs=1.0, train__max_length=64)
    tuned = tune(chosen, base(), (*DIALOGUES, long), (), tmp_path)
    assert (tuned.rows.dropped, len(tuned.rows.rows)) == ((len(DIALOGUES),), len(DIALOGUES))


def test_a_base_that_is_an_adapter_is_not_lost_but_refused(taught: Tuned, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"write it as a whole model first .*dialoop models export"):
        tune(recipe(), artefact(taught), DIALOGUES, (), tmp_path)


def test_targets_that_the_model_lacks_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"method.targets .*c_attn.* does not fit tiny"):
        tune(recipe(method__targets=["c_attn"]), base(), DIALOGUES, (), tmp_path)


def test_a_learning_rate_that_breaks_the_model_stops_with_the_updates_number(tmp_path: Path) -> None:
    broken = recipe(optim__learning_rate=1e30, optim__warmup=0.0, train__epochs=9.0)
    with pytest.raises(TrainError, match=r"update \d+: the gradient was not finite 6 times in a row"):
        tune(broken, base(), DIALOGUES, (), tmp_path)
