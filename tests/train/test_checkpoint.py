"""Checkpoints are whole or absent, and a damaged one is passed over aloud."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dialoop.errors import TrainError
from dialoop.train.checkpoint import Checkpoint, latest, save, sole_writer


def checkpoint(step: int) -> Checkpoint:
    tensors = {"master.w": torch.arange(6.0).view(2, 3) + step, "step.w": torch.tensor(float(step))}
    return Checkpoint(step, tensors, {"step": step, "best_loss": None, "tokens": 10 * step})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    saved = checkpoint(3)
    save(tmp_path, saved)
    found = latest(tmp_path)
    assert found is not None
    assert (found.step, found.values) == (3, saved.values)
    assert found.tensors.keys() == saved.tensors.keys()
    assert all(torch.equal(found.tensors[name], saved.tensors[name]) for name in saved.tensors)


def test_nothing_saved_is_nothing_found(tmp_path: Path) -> None:
    assert latest(tmp_path / "none") is None


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 5, 9):
        save(tmp_path, checkpoint(step))
    assert names(tmp_path) == ["step-00000005", "step-00000009"]


def test_the_same_update_can_be_saved_again(tmp_path: Path) -> None:
    for _ in range(2):
        save(tmp_path, checkpoint(4))
    assert names(tmp_path) == ["step-00000004"]


def test_a_draft_that_a_crash_left_behind_is_not_read_and_goes(tmp_path: Path) -> None:
    save(tmp_path, checkpoint(1))
    shutil.copytree(tmp_path / "step-00000001", tmp_path / ".draft-1")
    assert latest(tmp_path).step == 1  # type: ignore[union-attr]
    save(tmp_path, checkpoint(2))
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    file=st.sampled_from(["state.safetensors", "state.json", "manifest.json"]),
    damage=st.sampled_from(["cut", "flipped", "emptied", "removed", "other"]),
    share=st.floats(0, 0.999),
)
def test_a_damaged_newest_is_passed_over_with_a_log_line(
    file: str, damage: str, share: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2):
        save(tmp_path, checkpoint(step))
    spoil(tmp_path / "step-00000002" / file, damage, share)
    caplog.clear()
    found = latest(tmp_path)
    if file == "manifest.json" and damage == "flipped":
        assert found is not None  # a changed blank in the manifest harms nothing
        assert found.values["step"] in (1, 2)
        return
    assert found is not None
    assert found.values["step"] == 1
    assert "step-00000002 cannot be used" in caplog.text


def spoil(path: Path, damage: str, share: float) -> None:
    held = path.read_bytes()
    place = int(share * len(held))
    match damage:
        case "cut":
            path.write_bytes(held[:place])
        case "flipped":
            path.write_bytes(held[:place] + bytes([held[place] ^ 1]) + held[place + 1 :])
        case "emptied":
            path.write_bytes(b"")
        case "other":
            path.write_text(json.dumps({"step": 2, "files": [1]}))
        case _:
            path.unlink()


def test_all_damaged_means_a_new_start_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (1, 2):
        (save(tmp_path, checkpoint(step)) / "manifest.json").write_text("{}")
    with caplog.at_level(logging.WARNING):
        assert latest(tmp_path) is None
    assert "starts anew" in caplog.text


def test_damaged_ones_of_a_later_update_do_not_crowd_out_a_new_one(tmp_path: Path) -> None:
    for step in (7, 8):
        (save(tmp_path, checkpoint(step)) / "state.json").write_text("{}")
    save(tmp_path, checkpoint(3))
    assert names(tmp_path) == ["step-00000003"]
    assert latest(tmp_path).step == 3  # type: ignore[union-attr]


def test_a_directory_has_one_writer_at_a_time(tmp_path: Path) -> None:
    with sole_writer(tmp_path), pytest.raises(TrainError, match="another process"), sole_writer(tmp_path):
        pass
    with sole_writer(tmp_path):
        pass
