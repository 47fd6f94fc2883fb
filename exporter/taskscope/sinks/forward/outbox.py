"""What waits to be sent, as bytes: in order, bounded, and kept until somebody has taken it."""

import threading
from collections import deque
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
        """At most so many lines wait, of at most `size` bytes together."""
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
                self._latest[line.key] = line.body
                return True
            if len(self._lines) >= self._most or self._bytes + len(line.body) > self._most_bytes:
                return False
            self._lines.append(line.body)
            self._bytes += len(line.body)
            return True

    def batch(self, size: int, lines: int, latest: bool = True) -> Batch | None:
        """The first lines, of at most `size` bytes if there are several; None where nothing waits.

        They stay until they are `done`. Without `latest` those are left out that a newer one will replace.
        """
        with self._lock:
            first: list[bytes] = []
            for line in islice(self._lines, lines):
                size -= len(line)
                if first and size < 0:
                    break
                first.append(line)
            readings = dict(self._latest) if latest else {}
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
