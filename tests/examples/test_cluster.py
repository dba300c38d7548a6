"""Ray Data and Ray Train on a local cluster of two nodes, by the script in examples/cluster.

DIALOOP_ENVIRONMENTS: where Ray's environment lies; `make environments` makes it.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from dialoop.models.load import load_model
from dialoop.train.loop import read_journal
from dialoop.types import ModelRef
from tests.examples.test_ecosystem import ENVIRONMENTS, ROOT
from tests.tiny import tiny_model
from tests.train.drill import ANSWERS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
PYTHON = ENVIRONMENTS / "ray" / "bin" / "python"


def rows(path: Path) -> Path:
    """Each dialogue in several wordings, and one twice."""
    turns = [
        [{"role": "user", "content": f"{asked} {i}"}, {"role": "assistant", "content": answer}]
        for asked, answer in ANSWERS.items() for i in range(4)
    ]  # fmt: skip
    lines = [json.dumps({"messages": each}, ensure_ascii=False) for each in [*turns, turns[0]]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("way", ["replicate", "shard"])
def test_a_process_on_each_of_two_nodes_trains_one_model(way: str, tmp_path: Path) -> None:
    if not PYTHON.exists():
        pytest.skip(f"{PYTHON} is not there: `make environments` makes it (docs/ecosystem.md)")
    arguments = [
        str(rows(tmp_path / "rows.jsonl")), "--run", str(tmp_path / "run"), "--base", str(tiny_model()),
        "--epochs", "2", *(["--shard"] if way == "shard" else []),
    ]  # fmt: skip
    done = subprocess.run(
        [PYTHON, ROOT / "tests/examples/two_nodes.py", ROOT / "examples/cluster/on_ray.py", *arguments],
        cwd=tmp_path, capture_output=True, text=True, timeout=1500,
        env={
            **os.environ, "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-5000:]
    told: list[Any] = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    first, second = told[:2]
    assert first["node"] != second["node"]
    assert {first["rank"], second["rank"]} == {0, 1}
    assert [each["rows"] for each in (first, second)] == [24, 24]
    journal = read_journal(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in journal] == list(range(1, first["step"] + 1))
    assert journal[-1]["loss"] < journal[0]["loss"]
    model = load_model(ModelRef("tiny", tiny_model(), Path(told[-1]["artefact"])))
    assert torch.isfinite(model(torch.tensor([[5, 9, 17]])).logits).all()
