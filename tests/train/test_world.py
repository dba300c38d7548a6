"""Two processes train as one does: the same losses, one journal, one artefact."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dialoop.train.loop import read_journal
from tests.tiny import tiny_model
from tests.train.together import ROWS

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


@pytest.mark.parametrize("kind", ROWS)
def test_two_processes_have_the_losses_of_one(kind: str, folders: tuple[Path, Path]) -> None:
    one, two = (read_journal(folder / kind / "metrics.jsonl") for folder in folders)
    assert len(one) > 6
    for key in ("loss", "valid_loss", "grad_norm"):
        wanted = [row[key] for row in one]
        assert [row[key] for row in two] == [
            value if value is None else pytest.approx(value, abs=1e-5) for value in wanted
        ]
    assert [row["tokens"] for row in two] == [row["tokens"] for row in one]


@pytest.mark.parametrize("kind", ROWS)
def test_what_is_measured_beside_the_loss_is_of_the_rows_of_both(
    kind: str, folders: tuple[Path, Path]
) -> None:
    one, two = (read_journal(folder / kind / "metrics.jsonl") for folder in folders)
    assert all(row["measures"] for row in one)
    assert any("valid_" in name for row in one for name in row["measures"])
    assert [row["measures"] for row in two] == [pytest.approx(row["measures"], abs=1e-5) for row in one]


@pytest.mark.parametrize("kind", ROWS)
def test_one_process_writes_what_both_have_learnt(kind: str, folders: tuple[Path, Path]) -> None:
    two = folders[1] / kind
    assert sorted(path.name for path in (two / "artefact").iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors"
    ]  # fmt: skip
    assert read_journal(two / "metrics.jsonl")[-1]["loss"] < read_journal(two / "metrics.jsonl")[0]["loss"]
