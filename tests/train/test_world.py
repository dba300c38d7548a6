"""Two processes train as one does: the same losses, one journal, one artefact."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from dialoop.train.loop import read_journal
from tests.tiny import tiny_model
from tests.train.together import CASES, HEADS

ROOT = Path(__file__).parents[2]
WAYS = ("replicate", "shard")
PLAIN = ("sft", "dpo", "distill")


def run(
    folder: Path, processes: int, *cases: str, parallel: str = "replicate", strike: int = 0, restarts: int = 0
) -> int:
    """The exit code."""
    script = ["-m", "tests.train.together", str(tiny_model()), str(folder), parallel, str(strike), *cases]
    launcher = [
        "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "--max-restarts",
        str(restarts),
    ]  # fmt: skip
    command = [sys.executable, *(launcher if processes > 1 else []), *script]
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 or strike, done.stderr
    return done.returncode


def cases_of(way: str) -> list[str]:
    if way == "shard":
        return [case for case in CASES if case != "prefix"]
    return [*PLAIN, *HEADS]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    place = tmp_path_factory.mktemp("together")
    run(place / "one", 1, *CASES, *HEADS)
    for way in WAYS:
        run(place / way, 2, *cases_of(way), parallel=way)
    return {name: place / name for name in ("one", *WAYS)}


RUNS = [(way, case) for way in WAYS for case in cases_of(way)]


def alike(one: list[Any], two: list[Any]) -> None:
    """Two journals tell of the same updates."""
    assert len(one) > 6
    for key in ("loss", "valid_loss", "grad_norm"):
        wanted = [row[key] for row in one]
        assert [row[key] for row in two] == [
            value if value is None else pytest.approx(value, abs=1e-5) for value in wanted
        ]
    assert [row["tokens"] for row in two] == [row["tokens"] for row in one]


@pytest.mark.parametrize(("way", "case"), RUNS)
def test_two_processes_have_the_losses_of_one(way: str, case: str, folders: Mapping[str, Path]) -> None:
    alike(*(read_journal(folders[name] / case / "metrics.jsonl") for name in ("one", way)))


@pytest.mark.parametrize(("way", "case"), RUNS)
def test_what_is_measured_beside_the_loss_is_of_the_rows_of_both(
    way: str, case: str, folders: Mapping[str, Path]
) -> None:
    one, two = (read_journal(folders[name] / case / "metrics.jsonl") for name in ("one", way))
    # Sequences of tags are measured in validation only.
    assert all(row["measures"] for row in one if case != "tag" or row["valid_loss"] is not None)
    assert any("valid_" in name for row in one for name in row["measures"])
    # Before its first update a model is its own reference: preferences are ties, which rounding tells apart.
    ties = int((way, case) == ("shard", "dpo"))
    assert [row["measures"] for row in two[ties:]] == [
        pytest.approx(row["measures"], abs=1e-5) for row in one[ties:]
    ]


def written(folder: Path) -> Path:
    found = [each for each in (folder / "artefact").glob("*.safetensors") if each.name != "crf.safetensors"]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(("way", "case"), RUNS)
def test_one_process_writes_what_both_have_learnt(way: str, case: str, folders: Mapping[str, Path]) -> None:
    one, two = (load_file(written(folders[name] / case)) for name in ("one", way))
    assert one.keys() == two.keys()
    for name, weight in one.items():
        assert two[name].shape == weight.shape
        assert (two[name] - weight).abs().max() < 1e-3
    rows = read_journal(folders[way] / case / "metrics.jsonl")
    assert rows[-1]["loss"] < rows[0]["loss"]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_torchrun_starts_fallen_processes_again_and_nothing_is_lost(
    way: str, folders: Mapping[str, Path], tmp_path: Path
) -> None:
    assert run(tmp_path, 2, "sft", parallel=way, strike=6, restarts=1) == 0
    sums = [
        hashlib.sha256(written(folder / "sft").read_bytes()).hexdigest()
        for folder in (tmp_path, folders[way])
    ]
    assert sums[0] == sums[1]
    steps = [row["step"] for row in read_journal(tmp_path / "sft" / "metrics.jsonl")]
    assert steps == list(range(1, len(steps) + 1))


@pytest.mark.slow
def test_what_two_processes_left_is_gone_on_with_by_one(folders: Mapping[str, Path], tmp_path: Path) -> None:
    assert run(tmp_path, 2, "full", parallel="shard", strike=6) != 0
    assert not (tmp_path / "full" / "artefact").exists()
    run(tmp_path, 1, "full", parallel="shard")
    alike(*(read_journal(folder / "full" / "metrics.jsonl") for folder in (folders["one"], tmp_path)))
