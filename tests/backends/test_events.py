"""Server-sent events from bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialoop.backends.events import MAX_EVENT, EventReader

LINES = st.text(st.characters(exclude_characters="\r\n", exclude_categories=("Cs",)), max_size=20)


@given(
    st.lists(st.lists(LINES, min_size=1, max_size=3), max_size=5),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
    st.data(),
)
def test_however_the_bytes_are_cut_the_events_are_the_same(
    events: list[list[str]], end: str, space: bool, data: st.DataObject
) -> None:
    colon = "data: " if space else "data:"
    text = "".join(
        f": a comment{end}event: x{end}" + "".join(f"{colon}{line}{end}" for line in lines) + end
        for lines in events
    )
    raw, reader = (text + "x").encode(), EventReader()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    found = [event for piece in pieces for event in reader.feed(piece)]
    wanted = ["\n".join(line if space else line.removeprefix(" ") for line in lines) for lines in events]
    assert [event.decode() for event in found] == wanted


@pytest.mark.parametrize("piece", [b"data: " + b"x" * 1000, b"data: " + b"x" * 1000 + b"\n"])
def test_an_event_without_end_is_refused(piece: bytes) -> None:
    reader = EventReader()
    for _ in range(MAX_EVENT // len(piece) - 8):
        assert reader.feed(piece) == []
    with pytest.raises(ValueError, match="bytes"):
        reader.feed(piece * 100)


def test_a_line_end_that_ends_a_piece_counts_once_the_next_one_begins() -> None:
    reader = EventReader()
    assert reader.feed(b"data: a\r\r") == []
    assert reader.feed(b"d") == [b"a"]
