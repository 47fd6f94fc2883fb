"""Who makes room when there is none: jobs that have series and are not alive."""

from collections.abc import Callable, Iterable

from taskscope.events import JobKey
from taskscope.live import Live


class Spare:
    """Asked for every update that finds no room, so it looks for such jobs only after some departed."""

    def __init__(self, having: Callable[[], Iterable[JobKey]]) -> None:
        """`having` says which jobs have what is to be given up."""
        self._having = having
        self._found: list[JobKey] = []
        self._departures = -1

    def look_again(self) -> None:
        """Others may have series now."""
        self._departures = -1

    def next(self, live: Live) -> JobKey | None:
        """A job that is not alive, those that left first; None when there is no more."""
        if self._departures != live.departures:
            self._departures = live.departures
            idle = [key for key in self._having() if not live.alive(key)]
            self._found = sorted(idle, key=live.jobs.__contains__, reverse=True)
        while self._found:
            key = self._found.pop()
            if not live.alive(key):
                return key
        return None
