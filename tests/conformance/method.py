"""What every tuning method does. Subclass MethodConformance and give it the two fixtures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from dialoop.config import AddingMethod, MethodSettings
from dialoop.errors import ModelError
from dialoop.models.export import export_merged
from dialoop.models.load import add_adapter, load_model
from dialoop.models.method import Attached, method_of
from dialoop.models.packed import PackedBody
from dialoop.models.quantised import quantise_frozen
from dialoop.types import ModelRef

DOCUMENTS = (7, 4, 5)
IDS = torch.tensor([5, 9, 300, 17, 44, 21, 8, 2, 77, 130, 4, 399, 61, 12, 250, 33])
BEGINS_ELSEWHERE = {"prompt", "prefix", "p-tuning-v2"}
NOT_MERGED = {"bottleneck", *BEGINS_ELSEWHERE}


def loaded(ref: ModelRef, *, merge: bool = False) -> nn.Module:
    return load_model(ref, dtype=torch.float32, device="cpu", merge=merge)


def hidden(model: nn.Module) -> Tensor:
    """(T, D), of three packed documents."""
    body = PackedBody(model)
    try:
        return body.hidden(IDS, DOCUMENTS)
    finally:
        body.release()


def logits(model: nn.Module) -> Tensor:
    body = PackedBody(model)
    return body.logits(hidden(model))


class MethodConformance:
    """Fixtures to give: `settings`, of one method, and `base`, a decoder's directory."""

    @pytest.fixture
    def attached(self, settings: MethodSettings, base: Path) -> Attached:
        return self.attach(settings, base)

    def attach(self, settings: MethodSettings, base: Path, seed: int = 0) -> Attached:
        ref = ModelRef("tiny", base)
        return method_of(settings).attach(loaded(ref), ref, seed=seed)

    def taught(self, settings: MethodSettings, base: Path, seed: int = 0) -> Attached:
        """Every trained weight moved a little from where it begins."""
        attached = self.attach(settings, base, seed)
        torch.manual_seed(9)
        with torch.no_grad():
            for weight in attached.weights.values():
                weight += 0.05 * torch.randn_like(weight)
        attached.model.eval()
        return attached

    def test_it_trains_what_it_names_and_nothing_else(self, attached: Attached) -> None:
        logits(attached.model).square().sum().backward()
        moved = {id(p) for p in attached.model.parameters() if p.grad is not None}
        assert moved == {id(p) for p in attached.weights.values()}

    def test_it_trains_some_weights_and_few_unless_they_are_the_models_own(
        self, attached: Attached, settings: MethodSettings
    ) -> None:
        trained = sum(weight.numel() for weight in attached.weights.values())
        share = trained / sum(weight.numel() for weight in attached.model.parameters())
        assert 0 < share < (0.8 if isinstance(settings, get_args(AddingMethod)) else 1.01)

    def test_it_begins_at_the_base_where_it_can(
        self, attached: Attached, settings: MethodSettings, base: Path
    ) -> None:
        attached.model.eval()
        with torch.no_grad():
            same = torch.allclose(logits(attached.model), logits(loaded(ModelRef("tiny", base))), atol=1e-4)
        assert same == (settings.kind not in BEGINS_ELSEWHERE)

    def test_the_base_keeps_its_weights(self, settings: MethodSettings, base: Path) -> None:
        before = dict(loaded(ModelRef("tiny", base)).named_parameters())
        attached = self.taught(settings, base)
        trained = {id(weight) for weight in attached.weights.values()}
        held = {
            name.replace(".base_layer", "").replace(".words.", "."): weight
            for name, weight in attached.model.named_parameters()
            if id(weight) not in trained
        }
        kept = held.keys() & before.keys()
        assert kept or settings.kind == "full"
        assert all(torch.equal(held[name], before[name]) for name in kept)

    def test_the_seed_decides_where_it_begins(self, settings: MethodSettings, base: Path) -> None:
        first, again, other = (self.attach(settings, base, seed).weights for seed in (0, 0, 1))
        assert first.keys() == again.keys()
        assert all(torch.equal(first[name], again[name]) for name in first)
        drawn = settings.kind not in ("full", "freeze", "bitfit", "ia3")
        assert drawn == any(not torch.equal(first[name], other[name]) for name in first)

    def test_the_reference_that_saving_returns_loads_the_tuned_model(
        self, settings: MethodSettings, base: Path, tmp_path: Path
    ) -> None:
        attached = self.taught(settings, base)
        with torch.no_grad():
            wanted, untuned = logits(attached.model), logits(loaded(ModelRef("tiny", base)))
            ref = attached.save(tmp_path / "saved")
            tuned = loaded(ref)
            got = logits(tuned.get_base_model() if hasattr(tuned, "get_base_model") else tuned)  # type: ignore[operator]
        torch.testing.assert_close(got, wanted, atol=1e-3, rtol=1e-3)
        assert (wanted - untuned).abs().max() > 0.01

    def test_an_adapter_is_two_files(self, settings: MethodSettings, base: Path, tmp_path: Path) -> None:
        ref = self.attach(settings, base).save(tmp_path / "saved")
        if ref.adapter is not None:
            files = sorted(path.name for path in ref.adapter.iterdir())
            assert files == ["adapter_config.json", "adapter_model.safetensors"]

    def test_what_can_be_merged_gives_the_same_logits_as_a_plain_directory(
        self, settings: MethodSettings, base: Path, tmp_path: Path
    ) -> None:
        attached = self.taught(settings, base)
        with torch.no_grad():
            wanted = logits(attached.model)
        ref = attached.save(tmp_path / "saved")
        if settings.kind in NOT_MERGED:
            with pytest.raises(ModelError, match="what no weight can hold: export it with --as adapter"):
                export_merged(ref, tmp_path / "merged")
            return
        merged = loaded(ModelRef("merged", export_merged(ref, tmp_path / "merged", dtype=torch.float32)))
        with torch.no_grad():
            torch.testing.assert_close(logits(merged), wanted, atol=2e-3, rtol=2e-3)

    def test_another_base_is_refused(
        self, settings: MethodSettings, base: Path, other_base: Path, tmp_path: Path
    ) -> None:
        ref = self.attach(settings, base).save(tmp_path / "saved")
        if ref.adapter is not None:
            with pytest.raises(ModelError, match="use the base that it was trained on"):
                add_adapter(loaded(ModelRef("other", other_base)), ref.adapter, merge=False)

    @pytest.mark.parametrize("precision", ["int8", "nf4"])
    def test_a_base_in_few_bits_trains_the_same_weights(
        self, settings: MethodSettings, base: Path, precision: Any
    ) -> None:
        if not isinstance(settings, get_args(AddingMethod)):
            return
        attached = self.attach(settings, base)
        quantise_frozen(attached.model, precision, attached.weights.values())
        logits(attached.model).square().sum().backward()
        moved = {id(p) for p in attached.model.parameters() if p.grad is not None}
        assert moved == {id(p) for p in attached.weights.values()}
