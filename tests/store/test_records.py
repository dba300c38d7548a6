"""Runs, reports and ids."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialoop.errors import StoreError
from dialoop.store.identity import new_id, now_micros, uuid7
from dialoop.store.registry import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "home") as opened:
        yield opened


def test_a_run_keeps_its_recipe_inputs_and_metrics(store: Store) -> None:
    started = store.runs.start("tune", {"name": "商店"}, {"data": "ab12"})
    ended = store.runs.finish(started.id, "completed", {"bleu": 21.5})
    assert store.runs.list() == (ended,)
    assert (ended.recipe, ended.inputs, ended.metrics) == ({"name": "商店"}, {"data": "ab12"}, {"bleu": 21.5})
    assert (started.status, started.finished, ended.status) == ("running", None, "completed")
    assert ended.finished is not None
    assert started.started <= ended.finished <= now_micros()


def test_a_run_ends_once(store: Store) -> None:
    run = store.runs.start("tune", {}, {})
    store.runs.finish(run.id, "failed", {})
    with pytest.raises(StoreError, match="status failed, expected running"):
        store.runs.finish(run.id, "completed", {})


def test_an_unknown_run_or_status_is_refused(store: Store) -> None:
    run = store.runs.start("tune", {}, {})
    with pytest.raises(StoreError, match="no run 'run-1'"):
        store.runs.finish("run-1", "completed", {})
    with pytest.raises(StoreError, match="completed, failed, cancelled"):
        store.runs.finish(run.id, "running", {})


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, Path("x")])
def test_what_is_not_json_is_refused_before_anything_is_written(store: Store, value: object) -> None:
    with pytest.raises(StoreError, match=r"recipe.*JSON"):
        store.runs.start("tune", {"a": value}, {})
    assert store.runs.list() == ()


def test_runs_are_listed_newest_first(store: Store) -> None:
    ids = [store.runs.start("tune", {}, {}).id for _ in range(5)]
    assert [run.id for run in store.runs.list()] == ids[::-1]


def test_a_report_below_the_home_moves_with_it(store: Store, tmp_path: Path) -> None:
    run = store.runs.start("tune", {}, {})
    store.reports.add(
        "tune", "退货", {"verdict": "better"}, path=store.home / "reports" / "r.html", run_id=run.id
    )
    store.reports.add("tune", "elsewhere", {}, path=tmp_path / "r.html")
    store.close()
    (tmp_path / "home").rename(tmp_path / "moved")
    with Store.open(tmp_path / "moved") as moved:
        elsewhere, report = moved.reports.list()
    assert report.path == tmp_path / "moved" / "reports" / "r.html"
    assert elsewhere.path == tmp_path / "r.html"
    assert (report.title, report.summary, report.run_id) == ("退货", {"verdict": "better"}, run.id)


def test_a_report_of_an_unknown_run_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="no run 'run-1'"):
        store.reports.add("tune", "t", {}, run_id="run-1")


@given(st.integers(0, 2**48 * 1_000_000 - 1))
def test_a_uuid7_holds_its_milliseconds_version_and_variant(nanos: int) -> None:
    made = uuid7(nanos)
    assert (made.int >> 80, made.version, made.variant) == (nanos // 1_000_000, 7, uuid.RFC_4122)


def test_ids_of_one_millisecond_keep_its_order() -> None:
    made = [uuid7(10**18 + step * 1000).hex for step in range(1000)]
    assert made == sorted(set(made))


def test_ids_have_their_prefix_and_do_not_repeat() -> None:
    ids = {new_id("run") for _ in range(10_000)}
    assert len(ids) == 10_000
    assert all(name.startswith("run-") and len(name) == 36 for name in ids)
