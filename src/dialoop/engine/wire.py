"""What passes between the front of an engine and its core, in one process or in two; needs no torch.

Frames are pickles: both ends are this version of dialoop, run by one user, over a socket without a name.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import socket
import struct
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, TypedDict

from dialoop.chat.render import Rendered
from dialoop.engine.reader import Wanted
from dialoop.errors import DialoopError
from dialoop.types import CallDelta, Delta, ModelRef, Precision, Sampling, Served, TokenLogprob, Usage

Event = object
"""A step's deltas of one request, what other work finds, or, an Exception, why it ended."""
Said = Sequence[tuple[int, Event]]
"""What one step has to say, by the number of the work."""
Deliver = Callable[[Said], None]
Ranked = tuple[int, float, int]
"""Token, log-probability, rank."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A name that is served.

    model: what work calls its weights.  folder: the base's directory.  size: of its vectors.  adapter: the
    key of its own, "" = none.  merged: an adapter is part of the weights' copy.  opened: by a soft prompt.
    """

    served: Served
    model: str
    folder: Path
    size: int
    adapter: str = ""
    merged: bool = False
    opened: bool = False


@dataclass(frozen=True, slots=True)
class Answering:
    """A chat request in token ids, to a model and the adapter of this key beside it, "" = none.

    prediction: tokens that the answer may go along.  priority: lower goes first.  shown: special tokens that
    the answer's text shows.  tells_end: as for `Row`. With max_tokens 0 the prompt alone is read.
    Its events are lists of deltas, and one `PromptRead` where the prompt's log-probabilities are asked for.
    """

    model: str
    prompt: tuple[int, ...]
    sampling: Sampling
    adapter: str = ""
    prediction: tuple[int, ...] = ()
    priority: int = 0
    shown: frozenset[int] = frozenset()
    tells_end: bool = False


@dataclass(frozen=True, slots=True)
class PromptRead:
    """Of each token of a prompt after the first: itself, then the best in its place."""

    places: Sequence[Sequence[Ranked]]


@dataclass(frozen=True, slots=True)
class Scoring:
    """Answers to one history; each row is the history with one of them. Its event: a `Scored` a row."""

    model: str
    rows: tuple[Rendered, ...]
    adapter: str = ""


@dataclass(frozen=True, slots=True)
class Embedding:
    """Texts as token ids. Its event: a vector a text."""

    model: str
    texts: Sequence[Sequence[int]]
    wanted: Wanted
    adapter: str = ""


@dataclass(frozen=True, slots=True)
class Classifying:
    """Texts as token ids, to a model with a head. Its event: the logits of each text."""

    model: str
    texts: Sequence[Sequence[int]]
    adapter: str = ""


@dataclass(frozen=True, slots=True)
class Tagging:
    """Sentences as token ids, to a model that tags words. places: of the tokens that carry the tags.

    Its event: of each sentence the numbers of its tags, and their probabilities.
    """

    model: str
    texts: Sequence[Sequence[int]]
    places: Sequence[Sequence[int]]
    adapter: str = ""


@dataclass(frozen=True, slots=True)
class Loading:
    """An adapter, to be known by a key that no other ever has, nor another version. Its event: `Shelved`."""

    model: str
    adapter: str
    folder: Path
    pinned: bool


@dataclass(frozen=True, slots=True)
class Unloading:
    """Forget an adapter once the work that came before is done with it. It has no events."""

    model: str
    adapter: str


@dataclass(frozen=True, slots=True)
class Looking:
    """How busy are the models? Answered at once, beside the steps. Its event: an `Occupancy` a model."""


Work = Answering | Scoring | Embedding | Classifying | Tagging | Loading | Unloading | Looking


@dataclass(frozen=True, slots=True)
class Shelved:
    """An adapter as it was when it was loaded.

    key: also the owner of its blocks of keys and values.  digest: of its files.  size: bytes in memory.
    pinned: never leaves it.
    """

    key: str
    folder: Path
    digest: str
    size: int
    pinned: bool


class Core(Protocol):
    """Does work and delivers its events from other threads. No call waits for a model."""

    def submit(self, number: int, work: Work) -> None:
        """Begin `work`; all that goes wrong with it is its last event."""
        ...

    def cancel(self, number: int) -> None:
        """Nobody waits for this work any more, whether or not it has ended: what it holds is free at once."""
        ...

    def close(self) -> None:
        """End; open work gets an error."""
        ...


class CoreOptions(TypedDict, total=False):
    """The options of `dialoop.engine.local.LocalCore`, which tells what they mean."""

    max_rows: int
    step_tokens: int
    cache_tokens: int | None
    adapter_memory: int
    speculate: bool
    compiled: bool


@dataclass(frozen=True, slots=True)
class Setup:
    """What a child process is to serve: the first frame that it gets. It answers with an `Opened` a ref.

    context, precision: as for `open_models`.  shelved: by their models' names, adapters that an earlier child
    loaded.
    """

    refs: tuple[ModelRef, ...]
    context: int | None
    precision: Precision | None
    options: CoreOptions
    shelved: tuple[tuple[str, Shelved], ...] = ()


def sealed(error: Exception) -> Exception:
    """`error` as it crosses to a process without torch: our own as they are, others as RuntimeError.

    The places in the code go along as a note.
    """
    if isinstance(error, DialoopError):
        return error
    plain = RuntimeError(str(error))
    plain.add_note(f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}")
    return plain


class Line:
    """Whole frames over a connected socket. Any thread may send; one receives."""

    _SIZE = struct.Struct("!Q")

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._reader = connection.makefile("rb")
        self._sending = Lock()

    def send(self, frame: Any) -> None:
        """One system call where the frame fits the socket's buffer. Raises OSError once the other is gone."""
        raw = _pickled(frame)
        with self._sending:
            self._socket.sendall(self._SIZE.pack(len(raw)) + raw)

    def receive(self) -> Any:
        """The next frame. Raises EOFError once the other end is gone."""
        try:
            (size,) = self._SIZE.unpack(self._reader.read(self._SIZE.size))
            raw = self._reader.read(size)
        except (OSError, ValueError, struct.error) as error:
            raise EOFError("the line has ended") from error
        if len(raw) < size:
            raise EOFError("the line ended within a frame")
        return pickle.loads(raw)

    def close(self) -> None:
        """Both ends see the end, those that wait in another thread too."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with self._sending:
            self._reader.close()
            self._socket.close()


def _by_fields(cls: type[Any]) -> Callable[[Any], tuple[Any, ...]]:
    values = attrgetter(*(field.name for field in fields(cls)))
    return lambda value: (cls, values(value))


class _Pickler(pickle.Pickler):
    """Frozen slotted dataclasses pickle five times slower by themselves: these come by the thousand."""

    dispatch_table = {cls: _by_fields(cls) for cls in (CallDelta, Delta, TokenLogprob, Usage)}  # noqa: RUF012


def _pickled(frame: Any) -> bytes:
    raw = io.BytesIO()
    _Pickler(raw, pickle.HIGHEST_PROTOCOL).dump(frame)
    return raw.getvalue()
