"""What crosses between processes arrives as it was."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from dialoop.engine.reader import Wanted
from dialoop.engine.wire import (
    Answering,
    Embedding,
    Line,
    Loading,
    PromptRead,
    Shelved,
    Unloading,
    sealed,
)
from dialoop.errors import (
    ContextLengthError,
    EngineDownError,
    ModelError,
    OverloadedError,
    RequestError,
    UnknownModelError,
)
from dialoop.types import Delta, Grammar, Sampling, TokenLogprob, Usage

SECRET = "what a user wrote"
ERRORS = [
    ModelError("/x: no such directory"),
    RequestError("the regex cannot be followed", param="response_format"),
    UnknownModelError("x", ["a", "b"]),
    ContextLengthError(300, 256, what="input[1]", param="input"),
    OverloadedError("busy", retry_after=3),
    EngineDownError("down", retry_after=4),
]


@pytest.fixture
def lines() -> Iterator[tuple[Line, Line]]:
    here, there = map(Line, socket.socketpair())
    yield here, there
    here.close()
    there.close()


def test_works_and_steps_arrive_as_they_were(lines: tuple[Line, Line]) -> None:
    here, there = lines
    best = TokenLogprob(
        7, b"\xe4\xbd", -0.25, (TokenLogprob(7, b"\xe4\xbd", -0.25), TokenLogprob(8, b"", -2.0))
    )
    frames = [
        (3, Answering("tiny", (1, 2), Sampling(seed=2**63 - 1, grammar=Grammar("regex", "您好|[a-z]")))),
        (4, Embedding("tiny", [[1, 2], [3]], Wanted("mean", dimensions=8), "shop/1")),
        (5, Loading("tiny", "shop/2", Path("/shop"), pinned=True)),
        (6, Unloading("tiny", "shop/1")),
        [(5, Shelved("shop/2", Path("/shop"), "beef", 10, pinned=True)), (3, PromptRead([[(2, -0.5, 1)]]))],
        [(3, [Delta(0, "您好😀", logprobs=(best,)), Delta(1, "", "stop", Usage(2, 3, 1))])],
        None,
    ]
    for frame in frames:
        here.send(frame)
    assert [there.receive() for _ in frames] == frames


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_our_errors_keep_their_type_message_and_fields(lines: tuple[Line, Line], error: Exception) -> None:
    lines[0].send(sealed(error))
    arrived = lines[1].receive()
    assert (type(arrived), str(arrived), vars(arrived)) == (type(error), str(error), vars(error))


def test_other_errors_arrive_as_plain_ones_that_tell_their_place(lines: tuple[Line, Line]) -> None:
    class StrangeError(ValueError):
        """Of a class that the other process does not have."""

    try:
        raise StrangeError(SECRET)
    except StrangeError as error:
        lines[0].send(sealed(error))
    arrived = lines[1].receive()
    assert (type(arrived), str(arrived)) == (RuntimeError, SECRET)
    (note,) = arrived.__notes__
    assert "StrangeError" in note
    assert "test_other_errors" in note
    assert SECRET not in note


def test_the_end_of_one_is_seen_by_the_other(lines: tuple[Line, Line]) -> None:
    lines[0].close()
    with pytest.raises(EOFError):
        lines[1].receive()
    with pytest.raises(OSError, match="pipe"):
        lines[1].send("anybody there?")


def test_a_frame_that_was_cut_is_an_end() -> None:
    raw, theirs = socket.socketpair()
    line = Line(theirs)
    raw.sendall(b"\0" * 7 + b"\x09" + b"four")
    raw.close()
    with pytest.raises(EOFError, match="within a frame"):
        line.receive()
    line.close()
