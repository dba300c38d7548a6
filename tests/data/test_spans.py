"""Schemes of tags: IOB1, IOB2 and BIOES say the same spans, and a broken one is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.scheme import IOB1, IOB2, IOBES, Entities

from dialoop.data.spans import repaired, scheme_of, to_iob2
from dialoop.errors import DataError

Spans = list[tuple[int, str | None]]
SPANS = st.lists(st.tuples(st.integers(1, 3), st.sampled_from([None, "PER", "LOC"])), min_size=1, max_size=8)


def written(spans: Spans, scheme: str) -> list[str]:
    """Words outside (None) and spans of some words each, one after the other."""
    tags: list[str] = []
    for size, kind in spans:
        if kind is None:
            tags += ["O"] * size
            continue
        inside = [f"I-{kind}"] * size
        if scheme == "bioes":
            inside = [f"S-{kind}"] if size == 1 else [f"B-{kind}", *inside[2:], f"E-{kind}"]
        elif scheme == "iob2" or (tags and tags[-1][2:] == kind):
            inside[0] = f"B-{kind}"
        tags += inside
    return tags


def found(tags: list[str], scheme: type) -> list[tuple[int, int, str]]:
    return [(e.start, e.end, e.tag) for each in Entities([tags], scheme).entities for e in each]


@given(SPANS)
def test_every_scheme_becomes_the_same_iob2_and_seqeval_finds_the_same_spans(spans: Spans) -> None:
    wanted = tuple(written(spans, "iob2"))
    for name, scheme in (("iob1", IOB1), ("bioes", IOBES)):
        tags = written(spans, name)
        assert to_iob2(tags, name) == wanted  # type: ignore[arg-type]
        assert found(tags, scheme) == found(list(wanted), IOB2)
    assert to_iob2(wanted, "iob2") == wanted


@given(st.lists(st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]), max_size=8))
def test_a_models_tags_are_made_strict_and_strict_ones_are_left_alone(tags: list[str]) -> None:
    strict = repaired(tags)
    assert to_iob2(strict, "iob2") == strict
    assert repaired(strict) == strict
    assert [tag[2:] for tag in strict] == [tag[2:] for tag in tags]


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        (["I-PER", "I-PER", "O", "I-LOC"], "iob1"), (["I-PER", "B-PER"], "iob1"),
        (["B-PER", "I-PER", "O"], "iob2"), (["S-PER", "O"], "bioes"), (["B-PER", "E-PER"], "bioes"),
        (["NN", "VB"], "labels"), (["O", "O"], "iob2"),
    ],
)  # fmt: skip
def test_a_scheme_is_told_from_the_tags(tags: list[str], scheme: str) -> None:
    assert scheme_of([tags]) == scheme


@pytest.mark.parametrize(
    ("tags", "reason"),
    [(["O", "I-PER"], "word 2 goes on with a span that has not begun"), (["B-PER", "I-LOC"], "word 2"),
     (["B-PER", "x"], "expected O")],
)  # fmt: skip
def test_what_breaks_its_scheme_is_named(tags: list[str], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        to_iob2(tags, "iob2")


def test_letters_of_other_names_for_the_same_scheme_are_known() -> None:
    assert to_iob2(["B-PER", "I-PER", "L-PER", "U-LOC"], "bioes") == ("B-PER", "I-PER", "I-PER", "B-LOC")
