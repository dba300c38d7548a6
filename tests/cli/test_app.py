"""The command line as a process: cheap to start, clear when wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "peft", "pydantic", "sqlalchemy", "polars", "sacrebleu", "asyncio")


def dialoop(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; sys.argv[0] = 'dialoop'; from dialoop.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, encoding="utf-8"
    )


def test_help_imports_nothing_that_computes() -> None:
    code = (
        "import sys; sys.argv = ['dialoop', '--help']\n"
        "from dialoop.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8")
    assert done.stderr.strip() == "[]"
    assert "quickstart" in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        *(
            "quickstart",
            "data check",
            "data clean",
            "data split",
            "pretrain",
            "tune",
            "explain",
            "search",
            "curve",
            "eval",
            "gate",
            "chat",
            "serve",
        ),
        *("models list", "models show", "models export", "models rm"),
    ],
)
def test_every_command_explains_itself(command: str) -> None:
    done = dialoop(*command.split(), "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_a_misspelt_recipe_names_the_nearest(tmp_path: Path) -> None:
    done = dialoop("--home", str(tmp_path), "tune", "quikstart")
    assert done.returncode == 2
    assert done.stderr.strip().endswith("did you mean 'quickstart'?")
    assert "Traceback" not in done.stderr


def test_a_misspelt_key_names_the_nearest_right_one(tmp_path: Path) -> None:
    done = dialoop("--home", str(tmp_path), "tune", "quickstart", "--set", "train.epoch=2")
    assert done.returncode == 2
    assert "unknown key 'train.epoch'; did you mean 'epochs'?" in done.stderr


def test_a_value_out_of_bounds_says_which_and_why(tmp_path: Path) -> None:
    done = dialoop("--home", str(tmp_path), "tune", "quickstart", "--set", "method.rank=0")
    assert done.returncode == 2
    assert "method.lora.rank = 0" in done.stderr


def test_the_version_is_printed() -> None:
    assert dialoop("--version").stdout.startswith("dialoop 0.")
