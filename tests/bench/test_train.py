"""The training bench's own contestant trains on the rows that it is given."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import make_tiny_model

WORKER = Path(__file__).parents[2] / "bench" / "train_worker.py"


@pytest.mark.parametrize("method", ["lora", "full"])
def test_dialoops_worker_tells_speed_loss_and_memory_of_each_update(method: str, tmp_path: Path) -> None:
    rows = [{"input_ids": [3, 4, 5, 6, 7 + i], "completion_mask": [0, 0, 1, 1, 1]} for i in range(24)]
    (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    given = {
        "engine": "dialoop", "model": str(make_tiny_model(tmp_path / "model")), "method": method,
        "rows": str(tmp_path / "rows.json"), "length": 16, "batch_tokens": 64,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-P", str(WORKER), json.dumps(given)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["conversations"] == [8, 8]
    assert all(seconds > 0 for seconds in told["seconds"])
    assert len(told["losses"]) == 3
    assert told["losses"][-1] < told["losses"][0]
    assert told["peak"] > 0
