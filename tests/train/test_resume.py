"""Runs that are killed or interrupted end where an undisturbed one does, bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dialoop.train.loop import read_journal
from tests.train.drill import UPDATES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("drill")


METHODS: dict[str, dict[str, Any]] = {
    "full": {"kind": "full"},
    "freeze": {"kind": "freeze", "layers": 1},
    "rslora": {"kind": "lora", "rank": 4, "rslora": True, "dropout": 0.1},
    "dora": {"kind": "lora", "rank": 4, "dora": True, "dropout": 0.1},
    "int8": {"kind": "lora", "rank": 4, "dropout": 0.1, "base_precision": "int8"},
    "ia3": {"kind": "ia3"},
    "houlsby": {"kind": "bottleneck", "size": 8, "placement": "houlsby", "dropout": 0.1},
    "pfeiffer": {"kind": "bottleneck", "size": 8},
    "parallel": {"kind": "bottleneck", "size": 8, "placement": "parallel"},
    "bitfit": {"kind": "bitfit"},
    "prompt": {"kind": "prompt", "tokens": 4},
    "prefix": {"kind": "prefix", "tokens": 4, "hidden": 16},
    "p-tuning-v2": {"kind": "p-tuning-v2", "tokens": 4, "base_precision": "nf4"},
}
CONTINUED: dict[str, dict[str, Any]] = {"continue": {"kind": "continue"}}


OBJECTIVES: dict[str, dict[str, Any]] = {
    "ipo": {"objective": {"kind": "dpo", "loss": "ipo"}, "method": {"kind": "full"}},
    "dpo of a prompt": {"objective": {"kind": "dpo"}, "method": {"kind": "prompt", "tokens": 4}},
    "orpo": {"objective": {"kind": "orpo"}},
    "simpo": {"objective": {"kind": "simpo"}},
    "dpo of an adapter": {"objective": {"kind": "dpo"}, "method": {"kind": "continue"}},
    "distill": {"objective": {"kind": "distill", "teacher": "teacher"}},
}


@pytest.fixture(scope="module")
def found(place: Path) -> dict[str, Any]:
    """Exit statuses and the sha256 of the final adapter of each run of the drill."""
    return drill(place)


def drill(*arguments: object) -> dict[str, Any]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.drill", *map(str, arguments)],
        env=environment, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_a_run_killed_at_any_update_resumes_to_the_same_adapter(found: dict[str, Any]) -> None:
    killed = {name: outcome for name, outcome in found.items() if name.startswith("killed after")}
    assert len(killed) == 3
    for name, outcome in killed.items():
        assert outcome == [-9, 0, found["undisturbed"][-1]], name


def test_a_run_killed_while_it_writes_a_checkpoint_resumes_to_the_same_adapter(found: dict[str, Any]) -> None:
    killed = {name: outcome for name, outcome in found.items() if name.startswith("killed at sync")}
    assert len(killed) == 2
    for name, outcome in killed.items():
        assert outcome == [-9, 0, found["undisturbed"][-1]], name


def test_ctrl_c_finishes_the_update_and_leaves_a_resumable_run(found: dict[str, Any]) -> None:
    assert found["interrupted"] == [0, 0, found["undisturbed"][-1]]
    assert found["told"] == {"step": 5, "interrupted": True, "wrote": False}


def test_a_second_ctrl_c_stops_at_once_and_the_run_is_still_resumable(found: dict[str, Any]) -> None:
    assert found["interrupted twice"] == [130, 0, found["undisturbed"][-1]]


def test_the_journal_of_a_resumed_run_holds_every_update_once(found: dict[str, Any], place: Path) -> None:
    names = [name for name, outcome in found.items() if name not in ("told", "undisturbed")]
    whole = read_journal(place / "whole" / "metrics.jsonl")
    assert [row["step"] for row in whole] == list(range(1, UPDATES + 1))
    for name in names:
        rows = read_journal(place / name / "metrics.jsonl")
        assert [(r["step"], r["loss"]) for r in rows] == [(r["step"], r["loss"]) for r in whole], name


def test_no_draft_and_no_more_than_two_checkpoints_are_left(found: dict[str, Any], place: Path) -> None:
    for name in found:
        folder = place / ("whole" if name == "undisturbed" else name) / "checkpoints"
        if folder.is_dir():
            assert [path.name for path in sorted(folder.iterdir())] == ["step-00000009", "step-00000012"], (
                name
            )


def test_every_method_killed_and_resumed_ends_where_an_undisturbed_run_does(tmp_path: Path) -> None:
    methods = METHODS | CONTINUED
    check(drill(tmp_path, json.dumps({name: {"method": method} for name, method in methods.items()})))


def test_every_objective_killed_and_resumed_ends_where_an_undisturbed_run_does(tmp_path: Path) -> None:
    check(drill(tmp_path, json.dumps(OBJECTIVES)))


def check(found: dict[str, Any]) -> None:
    assert found
    for name, (statuses, whole, killed) in found.items():
        assert statuses == [0, -9, 0], name
        assert whole == killed, name
    assert len({whole for _, whole, _ in found.values()}) == len(found)
