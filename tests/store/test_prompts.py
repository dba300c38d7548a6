"""Prompt templates in the store: versions, promotion, and the shipped ones beside them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dialoop.errors import ConfigError, StoreError
from dialoop.store.registry import Store

TEXT = 'name = "desk"\n[wording.en]\nsystem = "{}"\n'


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path) as store:
        yield store


def test_versions_count_up_and_a_file_that_says_the_same_is_no_new_one(store: Store) -> None:
    first = store.prompts.add(TEXT.format("Hello"))
    again = store.prompts.add("# a comment\n" + TEXT.format("Hello"))
    second = store.prompts.add(TEXT.format("Hi"), parent=first.ref, evidence={"gain": 1.5})
    assert (first.ref, again, second.ref) == ("desk@1", first, "desk@2")
    assert store.prompts.get("desk@2") == second == store.prompts.get(second.id)
    assert (second.parent, second.evidence, second.settings.wording["en"].system) == (
        "desk@1",
        {"gain": 1.5},
        "Hi",
    )


def test_a_name_means_its_newest_until_one_is_promoted(store: Store) -> None:
    store.prompts.add(TEXT.format("one"))
    store.prompts.add(TEXT.format("two"))
    assert store.prompts.get("desk").ref == "desk@2"
    store.prompts.promote("desk@1")
    store.prompts.add(TEXT.format("three"))
    assert store.prompts.get("desk").ref == "desk@1"
    store.prompts.promote("desk@3")
    assert store.prompts.get("desk").ref == "desk@3"
    store.prompts.promote("desk@1")
    assert store.prompts.get("desk").ref == "desk@1"


def test_what_a_search_has_found_waits_until_it_is_promoted(store: Store) -> None:
    store.prompts.add(TEXT.format("one"))
    found = store.prompts.add(TEXT.format("two"), parent="desk@1", evidence={"better": True})
    assert store.prompts.get("desk").ref == "desk@1"
    store.prompts.promote(found.ref)
    assert store.prompts.get("desk").ref == "desk@2"


def test_a_shipped_prompt_is_version_0_and_may_be_gone_back_to(store: Store) -> None:
    shipped = store.prompts.get("classify")
    assert shipped.ref == "classify@0"
    mine = store.prompts.add(shipped.source.replace("one class and nothing", "one class, nothing"))
    assert (mine.ref, store.prompts.get("classify").ref) == ("classify@1", "classify@1")
    back = store.prompts.promote("classify@0")
    assert (back.ref, back.parent, back.hash) == ("classify@2", "classify@0", shipped.hash)
    assert store.prompts.get("classify").hash == shipped.hash
    assert {"classify@0", "classify@1", "classify@2", "dialogue@0"} <= {e.ref for e in store.prompts.list()}


def test_projects_do_not_see_each_others_prompts(store: Store) -> None:
    other = store.of(store.projects.ensure("other"))
    mine = store.prompts.add(TEXT.format("secret"))
    for ref in ("desk", "desk@1", mine.id):
        with pytest.raises(StoreError, match="no prompt"):
            other.prompts.get(ref)
    assert other.prompts.add(TEXT.format("theirs")).ref == "desk@1"


def test_what_is_not_there_or_is_no_template_is_told(store: Store) -> None:
    with pytest.raises(StoreError, match="did you mean 'classify'"):
        store.prompts.get("clasify")
    with pytest.raises(StoreError, match="write name@3"):
        store.prompts.get("classify@new")
    with pytest.raises(ConfigError, match="wording"):
        store.prompts.add('name = "x"')
