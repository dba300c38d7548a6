"""The speed bench measures what it says, and tells of what it could not measure."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Any:
    return part("tables", monkeypatch)


def part(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A file of the bench, imported as the script imports it."""
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module(f"serve_{name}")


def test_prompts_have_exactly_the_tokens_asked_for_and_are_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = part("models", monkeypatch)
    assert models.write_tokenizer(tmp_path, 3_072) == 3_071
    prompts = models.Prompts(tmp_path)
    found = [*prompts.fresh(3, 128), *prompts.fresh(2, 128, system=prompts.text(50))]
    assert [len(prompt.ids) for prompt in found] == [128] * 5
    assert len({prompt.ids for prompt in found}) == 5


def test_every_token_below_the_vocabularys_size_shows_in_a_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = part("models", monkeypatch)
    models.write_tokenizer(tmp_path, 3_072)
    tokenizer = models.ChatTokenizer.load(tmp_path)
    assert tokenizer.vocab_size == 3_072
    assert all(tokenizer.token_bytes(i) for i in range(3_072 - len(models.SPECIALS)))


def test_a_peer_without_an_environment_says_which_variable_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peers = part("peers", monkeypatch)
    monkeypatch.delenv("BENCH_PYTHON_VLLM", raising=False)
    with pytest.raises(peers.PeerError, match="set BENCH_PYTHON_VLLM"):
        peers.Live("vllm-bf16", peers.CONTESTANTS["vllm-bf16"], peers.Setting(tmp_path, 1, 1, 64))


def test_a_ratio_is_the_median_of_rounds_with_its_ends(tables: Any) -> None:
    assert tables.ratio([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == (2.0, 1.0, 3.0)


def test_a_bar_is_judged_against_the_best_of_those_measured_and_names_the_absent(tables: Any) -> None:
    runs = {"ours": {"speed": [3.0]}, "slow": {"speed": [1.0]}, "fast": {"speed": [2.0]}}
    bar = tables.Bar("ours", "speed", 1.5, ("slow", "fast", "absent"))
    text = tables.bars([bar], runs)
    assert "1.50 (1.50-1.50) against fast; not measured: absent | yes" in text
    assert "not measured | **no**" in tables.bars([bar], {"ours": {"speed": [3.0]}})


def test_losses_and_strangers_show_in_the_table_of_ratios(tables: Any) -> None:
    runs = {"ours": {"speed": [1.0]}, "fast": {"speed": [2.0]}, "other": {"weight": [2.0]}}
    rows = tables.ratios(runs, "ours", ["speed"]).splitlines()
    assert rows[2:] == ["| fast | **0.50 (0.50-0.50)** |", "| other | - |"]


@pytest.mark.slow
def test_a_run_over_http_measures_both_clients_and_tells_of_the_missing_server(tmp_path: Path) -> None:
    options = ["--model", "tiny", "--threads", "1", "--rounds", "1", "--tokens", "4", "--seconds", "0"]
    command = [sys.executable, str(BENCH / "serve.py"), "http", *options, "--folder", str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if name != "BENCH_LLAMA_SERVER"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "| llama-server | **not measured**: missing: set BENCH_LLAMA_SERVER" in done.stdout
    head = "| dialoop serve / contestant | tokens/s, openai | tokens/s, raw |"
    assert f"{head}\n| --- | --- | --- |\n| dialoop |" in done.stdout
