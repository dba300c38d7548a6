"""`dialoop keys`, at the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dialoop.cli.app import app
from dialoop.errors import ConfigError, StoreError


def run(home: Path, *words: str) -> tuple[str, str]:
    done = CliRunner().invoke(app, ["--home", str(home), "keys", *words])
    if done.exception is not None:
        raise done.exception
    return done.stdout, done.stderr


def test_a_key_is_printed_once_listed_without_its_text_and_revoked(tmp_path: Path) -> None:
    out, told = run(tmp_path, "create", "desk", "--project", "shop", "--rpm", "60", "--budget", "5000/day")
    secret = out.strip()
    assert out.startswith("sk-")
    assert len(out.split()) == 1
    assert "not shown again" in told
    listed, _ = run(tmp_path, "list")
    assert secret not in listed
    for word in ("desk", secret[:11], "shop", "live", "60 rpm, 5000/day", "0 this day"):
        assert word in listed
    assert run(tmp_path, "revoke", "desk", "--project", "shop")[0] == "desk: revoked\n"
    (row,) = json.loads(run(tmp_path, "list", "--project", "shop", "--json")[0])
    assert (row["state"], row["scopes"]) == ("revoked", ["inference", "data", "jobs"])
    assert (row["rpm"], row["tpm"], row["budget"], row["period"], row["used"]) == (60, None, 5000, "day", 0)
    assert json.loads(run(tmp_path, "list", "--project", "default", "--json")[0]) == []


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("create", "x", "--scopes", "admn"), "did you mean 'admin'"),
        (("create", "x", "--budget", "5/week"), "100000/day"),
        (("create", "x", "--budget", "0/day"), "100000/day"),
        (("create", "x", "--expires", "soon"), "90d"),
        (("create", "x", "--expires", "2020-01-01"), "is past"),
        (("create", "x" * 65), "1 to 64"),
        (("revoke", "x"), "no key 'x'"),
        (("revoke", "x", "--project", "shop"), "no project 'shop'"),
    ],
)
def test_what_is_wrong_is_said_with_its_mend(tmp_path: Path, words: tuple[str, ...], match: str) -> None:
    with pytest.raises((ConfigError, StoreError), match=match):
        run(tmp_path, *words)


@pytest.mark.parametrize("expires", ["12h", "90d", "8w", "2999-01-31"])
def test_a_key_may_end_by_itself(tmp_path: Path, expires: str) -> None:
    run(tmp_path, "create", "desk", "--expires", expires)
    (row,) = json.loads(run(tmp_path, "list", "--json")[0])
    assert row["state"] == "live"
    assert row["expires"] > 1.7e15
