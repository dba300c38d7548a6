"""What every computing process does first."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import torch
import dialoop.models.load
torch.set_num_threads(2)
angles = torch.rand(64, 64, generator=torch.Generator().manual_seed(1)) * 6
print(max(float((f(angles).double() - f(angles.double())).abs().max()) for f in (torch.cos, torch.sin)))
"""


@pytest.mark.slow
def test_the_first_cosine_of_a_process_is_as_exact_as_the_others() -> None:
    """Without the calls before it about one in ten is wrong by 1e-4 in one thread's share."""
    command = [sys.executable, "-c", PROGRAM]
    for _ in range(10):
        pair = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        for process in pair:
            told, _ = process.communicate(timeout=60)
            assert float(told) < 1e-6
