"""Stop strings in a stream."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dialoop.engine.stop import StopScanner


def first_stop(text: str, stops: list[str]) -> int | None:
    """Where the stop that is complete first begins, read letter by letter."""
    for end in range(1, len(text) + 1):
        begins = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if begins:
            return min(begins)
    return None


@settings(deadline=None)
@given(
    st.lists(st.text("ab\n好", max_size=4), max_size=12),
    st.lists(st.text("ab\n好", min_size=1, max_size=4), max_size=4),
)
def test_the_stream_equals_the_whole_cut_at_the_first_stop(chunks: list[str], stops: list[str]) -> None:
    scanner, shown, stopped = StopScanner(stops), "", False
    for chunk in chunks:
        piece, stopped = scanner.push(chunk)
        shown += piece
        if stopped:
            break
    shown += scanner.flush()
    cut = first_stop("".join(chunks), stops)
    assert stopped == (cut is not None)
    assert shown == "".join(chunks)[:cut]


def test_only_the_longest_end_that_may_become_a_stop_is_held_back() -> None:
    scanner = StopScanner(["\n\nUser:"])
    assert scanner.push("Hello\n") == ("Hello", False)
    assert scanner.push("there\n\nUse") == ("\nthere", False)
    assert scanner.push("ful") == ("\n\nUseful", False)


def test_a_stop_across_three_pieces_is_cut_whole() -> None:
    scanner = StopScanner(["<end>"])
    assert [scanner.push(piece) for piece in ("ok<", "en", "d>more")] == [
        ("ok", False),
        ("", False),
        ("", True),
    ]
    assert scanner.flush() == ""
