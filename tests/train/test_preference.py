"""Learning from pairs: losses are those of plain transformers, and what is preferred gets likelier."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from torch import Tensor
from torch.nn.functional import logsigmoid, sigmoid
from transformers import AutoModelForCausalLM

from dialoop.chat.render import render_prompt
from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.config import PreferenceObjective, TuneRecipe
from dialoop.errors import TrainError
from dialoop.models.load import load_model
from dialoop.models.method import method_of
from dialoop.models.packed import PackedBody
from dialoop.train.batch import halved
from dialoop.train.loop import read_journal
from dialoop.train.pairs import PairBatch, PairRows, fit_pairs, pack_pairs
from dialoop.train.preference import PreferenceLoss, referenced
from dialoop.train.tune import tune
from dialoop.types import Conversation, Message, ModelRef, Preference
from tests.tiny import make_tiny_model, tiny_model
from tests.train.drill import PREFERENCES, recipe
from tests.train.test_resume import METHODS

KINDS: dict[str, dict[str, Any]] = {
    "dpo": {"kind": "dpo", "beta": 0.3},
    "smoothed": {"kind": "dpo", "label_smoothing": 0.2},
    "ipo": {"kind": "dpo", "loss": "ipo", "beta": 0.5},
    "orpo": {"kind": "orpo", "weight": 0.5},
    "simpo": {"kind": "simpo", "beta": 2.5, "gamma": 0.8},
}


def rows(limit: int = 256) -> PairRows:
    return fit_pairs(PREFERENCES, ChatTokenizer.load(tiny_model()), max_length=limit)


def settings(kind: dict[str, Any]) -> PreferenceObjective:
    found = recipe(objective=kind).objective
    assert isinstance(found, PreferenceObjective)
    return found


def loaded(directory: Path) -> Any:
    return load_model(ModelRef("tiny", directory), dtype=torch.float32, device="cpu")


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model than the reference."""
    return make_tiny_model(tmp_path_factory.mktemp("policy"), seed=1)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> PairRows:
    """Held to the tiny model."""
    return referenced(PackedBody(loaded(tiny_model())), [rows()], tmp_path_factory.mktemp("r"), 200)[0]


def plain(directory: Path, pairs: PairRows, adapter: Path | None = None) -> tuple[Any, Tensor, Tensor]:
    """The model, (pairs, 2) log-probabilities of the answers by transformers and peft, and their tokens."""
    model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter)
    sums, counts = [], []
    for side in pairs.rendered:
        ids = torch.tensor([side.token_ids])
        logs = model(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None]).squeeze(1)
        learnt = torch.tensor(side.loss_mask[1:]) > 0
        sums.append(logs[learnt].sum())
        counts.append(int(learnt.sum()))
    return model, torch.stack(sums).view(-1, 2), torch.tensor(counts).view(-1, 2)


def wanted(kind: dict[str, Any], logs: Tensor, counts: Tensor, reference: Tensor) -> Tensor:
    """The papers' formulae, pair by pair and by their own letters."""
    losses = []
    for (w, v), (n, m), (rw, rv) in zip(logs, counts, reference, strict=True):
        if kind["kind"] == "orpo":
            p, q = (w / n).exp(), (v / m).exp()
            ratio = (p / (1 - p)) / (q / (1 - q))
            losses.append(-w / n - kind["weight"] * sigmoid(ratio.log()).log())
        elif kind["kind"] == "simpo":
            losses.append(-sigmoid(kind["beta"] * (w / n - v / m) - kind["gamma"]).log())
        elif kind.get("loss") == "ipo":
            losses.append(((w - rw) / n - (v - rv) / m - 1 / (2 * kind["beta"])) ** 2)
        else:
            h = kind.get("beta", 0.1) * ((w - rw) - (v - rv))
            e = kind.get("label_smoothing", 0.0)
            losses.append(-(1 - e) * logsigmoid(h) - e * logsigmoid(-h))
    return torch.stack(losses)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_losses_and_gradients_are_those_of_transformers_and_the_papers(
    kind: dict[str, Any], policy: Path, pairs: PairRows
) -> None:
    theirs, logs, counts = plain(policy, pairs)
    reference = plain(tiny_model(), pairs)[1].detach()
    expected = wanted(kind, logs, counts, reference).mean()
    mine = loaded(policy)
    objective = PreferenceLoss(mine, settings(kind))
    batch = pack_pairs(pairs.rows)
    found = objective(batch) / batch.worth
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for loss in (found, expected):
        loss.backward()
    for (name, a), b in zip(mine.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-4, rtol=1e-3, msg=name)


def test_the_reference_is_the_base_whatever_the_method_puts_before_it(tmp_path: Path) -> None:
    expected = plain(tiny_model(), rows())[1].detach()
    for name, method in METHODS.items():
        chosen = recipe(method={**method}).method
        if getattr(chosen, "base_precision", "loaded") != "loaded":
            continue
        ref = ModelRef("tiny", tiny_model())
        attached = method_of(chosen).attach(loaded(tiny_model()), ref, seed=0)
        found = referenced(PackedBody(attached.model), [rows()], tmp_path / name, 64)[0]
        given = torch.tensor([pair.reference for pair in found.rows])
        torch.testing.assert_close(given, expected, atol=2e-4, rtol=1e-5, msg=name)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_an_adapter_that_is_trained_on_is_its_own_reference(tmp_path: Path) -> None:
    run(tmp_path / "first", objective={"kind": "dpo"}, train__epochs=2.0)
    adapter = tmp_path / "first" / "artefact"
    ref = ModelRef("tiny", tiny_model(), adapter)
    chosen = recipe(objective={"kind": "dpo"}, method={"kind": "continue"})
    attached = method_of(chosen.method).attach(loaded(tiny_model()), ref, seed=0)
    found = referenced(PackedBody(attached.model), [rows()], tmp_path / "second", 64, opened=True)[0]
    expected = plain(tiny_model(), rows(), adapter)[1].detach()
    given = torch.tensor([pair.reference for pair in found.rows])
    torch.testing.assert_close(given, expected, atol=2e-4, rtol=1e-5)
    assert (expected - plain(tiny_model(), rows())[1].detach()).abs().max() > 0.01


def test_the_reference_is_computed_once_and_kept(tmp_path: Path, policy: Path) -> None:
    first = referenced(PackedBody(loaded(tiny_model())), [rows(), rows()], tmp_path, 100)
    again = referenced(PackedBody(loaded(policy)), [rows(), rows()], tmp_path, 100)
    assert first == again
    assert all(pair.reference is not None for pair in first[0].rows)


def test_a_pair_is_never_torn_where_batches_are_halved(policy: Path, pairs: PairRows) -> None:
    objective = PreferenceLoss(loaded(policy), settings(KINDS["dpo"]))
    batch = pack_pairs(pairs.rows)
    with torch.no_grad():
        whole = float(objective(batch))
        for times in (1, 2, 5):
            parts = halved(batch, times)
            assert len(parts) == min(2**times, len(pairs.rows))
            assert all(isinstance(part, PairBatch) and len(part.lengths) % 2 == 0 for part in parts)
            assert sum(part.worth for part in parts) == batch.worth == len(pairs.rows)
            assert sum(float(objective(part)) for part in parts) == pytest.approx(whole, rel=1e-5)
            ids = np.concatenate([part.token_ids for part in parts])
            assert ids.tolist() == batch.token_ids.tolist()


def test_both_sides_lose_the_same_oldest_turns_until_both_fit() -> None:
    tokenizer = ChatTokenizer.load(tiny_model())
    turns = (
        Message("user", "Hi? " * 9),
        Message("assistant", "Good day."),
        Message("user", "Where is it?"),
    )
    long = Preference(Conversation(turns), Message("assistant", "Here."), Message("assistant", "There. " * 7))
    endless = replace(long, rejected=Message("assistant", "No. " * 90))
    found = fit_pairs([long, endless], tokenizer, max_length=96)
    assert (found.shortened, found.dropped) == (1, (1,))
    prompt = render_prompt(Conversation(turns[2:]), tokenizer)
    (pair,) = found.rows
    assert all(side.token_ids[: len(prompt)] == prompt for side in pair.sides)
    assert all(not any(side.loss_mask[: len(prompt)]) for side in pair.sides)
    answers = [tokenizer.decode(side.token_ids[len(prompt) :]).strip() for side in pair.sides]
    assert answers == ["Here.", ("There. " * 7).strip()]


def test_a_row_that_does_not_fit_is_an_error_where_it_is_the_only_one() -> None:
    with pytest.raises(TrainError, match=r"fits 16 tokens: raise train\.max_length"):
        fit_pairs(PREFERENCES[:1], ChatTokenizer.load(tiny_model()), max_length=16)


def run(folder: Path, **changes: Any) -> list[Any]:
    """The journal of a run on the pairs, validated on two of them."""
    made: TuneRecipe = recipe(**changes)
    tuned = tune(made, ModelRef("tiny", tiny_model()), PREFERENCES, PREFERENCES[:2], folder)
    assert tuned.artefact is not None
    return list(read_journal(folder / "metrics.jsonl"))


def test_dpo_begins_at_its_reference_and_learns_what_is_preferred(tmp_path: Path) -> None:
    journal = run(
        tmp_path, objective={"kind": "dpo"}, train__epochs=12.0, train__batch_tokens=1024,
        method={"kind": "lora", "rank": 4},
    )  # fmt: skip
    first, last = journal[0], journal[-1]
    assert first["loss"] == pytest.approx(float(np.log(2)), abs=1e-3)
    assert first["measures"]["reward_margin"] == pytest.approx(0, abs=1e-3)
    assert last["loss"] < 0.3
    assert last["measures"]["preference_accuracy"] == last["measures"]["valid_preference_accuracy"] == 1.0
    assert last["measures"]["reward_margin"] > 1.0
    assert last["valid_loss"] < 0.4


@pytest.mark.parametrize("kind", ["smoothed", "ipo", "orpo", "simpo"])
def test_every_kind_widens_the_margin(kind: str, tmp_path: Path) -> None:
    journal = run(tmp_path, objective=KINDS[kind], train__epochs=6.0, train__batch_tokens=1024)
    assert journal[-1]["measures"]["reward_margin"] > journal[0]["measures"]["reward_margin"]
    assert journal[-1]["loss"] < journal[0]["loss"]


def test_every_method_learns_from_pairs(tmp_path: Path) -> None:
    for name, method in METHODS.items():
        journal = run(
            tmp_path / name, objective={"kind": "dpo"}, method={**method}, train__epochs=1.0,
            train__batch_tokens=512, train__eval_every=0,
        )  # fmt: skip
        assert np.isfinite(journal[-1]["loss"]), name
        assert journal[-1]["grad_norm"] > 0, name


def test_what_only_imitation_can_be_held_back_by_is_refused() -> None:
    for held in ({"label_smoothing": 0.1}, {"r_drop": 1.0}):
        with pytest.raises(ValueError, match="go with the objective sft, not with dpo"):
            recipe(objective={"kind": "dpo"}, regularisation=held)
    with pytest.raises(ValueError, match='label_smoothing is of loss = "sigmoid"'):
        recipe(objective={"kind": "dpo", "loss": "ipo", "label_smoothing": 0.1})
