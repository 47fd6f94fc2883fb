"""What waits to be sent, as bytes: in order, bounded, and kept until somebody has taken it."""

import threading
from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple


class Line(NamedTuple):
    """One event as JSON."""

    body: bytes
    key: str = ""
    """Of the lines with one key only the latest is worth sending (a reading, a sign of life); empty: all are."""


class Batch(NamedTuple):
    """Lines that are sent together."""

    lines: list[bytes]
    latest: dict[str, bytes]
    upto: int
    """The number of the first line after them."""

    @property
    def body(self) -> bytes:
        """The lines as NDJSON."""
        return b"\n".join([*self.lines, *self.latest.values()])


class Outbox:
    """Lines in order, and the latest line of each key. Any thread may use it; nobody waits for anything but memory."""

    def __init__(self, lines: int, size: int) -> None:
        """At most so many lines wait, of at most `size` bytes together, and the latest of as many keys."""
        self._most, self._most_bytes = lines, size
        self._lines: deque[bytes] = deque()
        self._latest: dict[str, bytes] = {}
        self._bytes = self._first = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many lines wait, without those that a newer one will replace."""
        return len(self._lines)

    @property
    def last(self) -> int:
        """The number of the line that was put in last."""
        return self._first + len(self._lines)

    def put(self, line: Line) -> bool:
        """Take in a line; False where there is no room for it."""
        with self._lock:
            if line.key:
                room = line.key in self._latest or len(self._latest) < self._most
                if room:
                    self._latest[line.key] = line.body
                return room
            if len(self._lines) >= self._most or self._bytes + len(line.body) > self._most_bytes:
                return False
            self._lines.append(line.body)
            self._bytes += len(line.body)
            return True

    def batch(self, size: int, lines: int, latest: bool = True) -> Batch | None:
        """The first lines, and the first that a newer one will replace unless `latest` is False; None for nothing.

        Of both at most so many, of at most `size` bytes each. A line that is larger goes alone: whoever refuses it
        refuses nothing else. They stay until they are `done`.
        """
        with self._lock:
            few = list(islice(self._latest.items(), lines)) if latest else []
            readings = dict(few[: _fitting((body for _, body in few), size)])
            large = sum(map(len, readings.values())) > size
            first = [] if large else list(islice(self._lines, _fitting(islice(self._lines, lines), size)))
            if len(first) == 1 and len(first[0]) > size:
                readings = {}
            return Batch(first, readings, self._first + len(first)) if first or readings else None

    def done(self, batch: Batch) -> None:
        """Forget what was taken; what came in its place meanwhile stays."""
        with self._lock:
            while self._lines and self._first < batch.upto:
                self._bytes -= len(self._lines.popleft())
                self._first += 1
            for key, body in batch.latest.items():
                if self._latest.get(key) is body:
                    del self._latest[key]

    def withdraw(self) -> list[bytes]:
        """Everything that waits; it waits no longer."""
        with self._lock:
            lines = [*self._lines, *self._latest.values()]
            self._first += len(self._lines)
            self._lines.clear()
            self._latest.clear()
            self._bytes = 0
            return lines


def _fitting(bodies: Iterable[bytes], size: int) -> int:
    """How many of the first are of at most `size` bytes together, or are a single larger one."""
    count = 0
    for body in bodies:
        size -= len(body)
        if count and size < 0:
            break
        count += 1
    return count
