"""The bench of drafts forces its answers: with drafts and without, the same ones."""

from __future__ import annotations

from typing import Any

import pytest


def test_it_compares_the_same_answers(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from bench import speculate

    given = ["speculate.py", "--rounds", "1", "--sequences", "2", "--answers", "2"]
    monkeypatch.setattr("sys.argv", given)
    speculate.main()
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.count("|") > 5][2:]
    assert [row[1].strip() for row in rows] == list(speculate.KINDS)
    quoted = rows[0]
    assert float(quoted[6]) < 1, "drafts save steps where an answer quotes its prompt"
    assert quoted[7].strip() == "0 of 2"
