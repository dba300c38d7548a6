"""Server-sent events, read from bytes however they are cut (WHATWG HTML, section 9.2)."""

from __future__ import annotations

MAX_EVENT = 8 * 2**20


class EventReader:
    """Gives the data of each event once it is whole. Raises ValueError for one beyond MAX_EVENT bytes."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that `chunk` completes; comments and other fields are passed over."""
        held = self._rest.endswith(b"\r")
        self._rest += chunk
        if len(self._rest) + self._size > MAX_EVENT:
            raise ValueError(f"an event of more than {MAX_EVENT} bytes")
        if not held and b"\n" not in chunk and b"\r" not in chunk:
            return []
        # A carriage return at the end may be the first half of a line's end.
        whole = self._rest[:-1] if self._rest.endswith(b"\r") else self._rest
        lines = bytes(whole).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest = bytearray(lines.pop() + (b"\r" if whole is not self._rest else b""))
        return [event for line in lines if (event := self._line(line)) is not None]

    def _line(self, line: bytes) -> bytes | None:
        if not line:
            event = b"\n".join(self._data) if self._data else None
            self._data, self._size = [], 0
            return event
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._size += len(value)
        return None
