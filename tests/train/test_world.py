"""Two processes train as one does: the same losses, one journal, one artefact."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dialoop.train.loop import read_journal
from tests.tiny import tiny_model

ROOT = Path(__file__).parents[2]


def run(folder: Path, processes: int) -> None:
    script = ["-m", "tests.train.together", str(tiny_model()), str(folder)]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), *script]
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    place = tmp_path_factory.mktemp("together")
    run(place / "one", 1)
    run(place / "two", 2)
    return place / "one", place / "two"


def test_two_processes_have_the_losses_of_one(folders: tuple[Path, Path]) -> None:
    one, two = (read_journal(folder / "metrics.jsonl") for folder in folders)
    assert len(one) > 6
    for key in ("loss", "valid_loss", "grad_norm"):
        wanted = [row[key] for row in one]
        assert [row[key] for row in two] == [
            value if value is None else pytest.approx(value, abs=1e-5) for value in wanted
        ]
    assert [row["tokens"] for row in two] == [row["tokens"] for row in one]


def test_one_process_writes_what_both_have_learnt(folders: tuple[Path, Path]) -> None:
    _, two = folders
    assert sorted(path.name for path in (two / "artefact").iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors"
    ]  # fmt: skip
    assert read_journal(two / "metrics.jsonl")[-1]["loss"] < read_journal(two / "metrics.jsonl")[0]["loss"]
