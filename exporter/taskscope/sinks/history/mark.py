"""Beside a history file stands what it has counted: a file that was put back is noticed, and is not counted on.

Prometheus takes a counter that fell for one that began again at 0, and would add the whole restored count once more.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from taskscope.counts import Counts


class Mark:
    """The file `<history>.counted`: who counted, and how much. It is never ahead of what is committed."""

    def __init__(self, file: Path) -> None:
        self._path = file.with_name(file.name + ".counted")
        self._replica, self._counted = "", 0

    def agrees(self, replica: str, counted: int) -> bool:
        """Was it this replica that counted last, and no more than this?"""
        try:
            who, _, much = self._path.read_text(errors="replace").strip().partition(" ")
        except OSError:
            return False
        return who == replica and much.isdecimal() and int(much) <= counted

    def begin(self, replica: str, counted: int) -> None:
        """Go on from there."""
        self._replica, self._counted = replica, counted
        self._write()

    def add(self, counts: Iterable[Counts]) -> None:
        """Note what was committed."""
        if more := size(counts):
            self._counted += more
            self._write()

    def _write(self) -> None:
        with suppress(OSError):  # then the next start counts from 0, which does no harm
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.write(
                    file, f"{self._replica} {self._counted:020}\n".encode()
                )  # as long as ever: never half new
            finally:
                os.close(file)


def size(counts: Iterable[Counts]) -> int:
    """How much that is: a number that falls when any of the counters does."""
    return sum(
        sum(part.values())
        for each in counts
        for part in (each.statuses, each.reasons, each.exceptions, each.triggers, each.errors)
    )
