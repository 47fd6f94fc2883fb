"""Short pieces of work that other threads have done by the one thread that writes, and of whose end they hear."""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import msgspec

from taskscope.errors import NotOwner, Unavailable

T = TypeVar("T")

_AT_ONCE = 0.03  # seconds of work before events have their turn again


class Errand(msgspec.Struct, frozen=True):
    """One piece of work that waits for its turn."""

    work: Callable[[], Any]
    end: Future[Any]
    until: float
    """Nobody waits for it any longer then."""


class Errands:
    """Takes work from any thread and does it on one, in order. What cannot be done fails; nothing is forgotten."""

    def __init__(
        self, most: int = 100, patience: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """At most `most` pieces of work wait, each for at most `patience` seconds."""
        self._most, self._patience, self._clock = most, patience, clock
        self._waiting: deque[Errand] = deque()
        self._lock = threading.Lock()
        self._away = ""

    def do(self, work: Callable[[], T]) -> Future[T]:
        """Have `work` done soon, between two batches; once the future is done, what it committed is durable.

        Never blocks, never raises. The future fails with `Unavailable` where the store is away, too much waits or
        `work` had no turn in time, and with whatever `work` raises. While it waits it can be cancelled. The end of
        taskscope fails it, too. After `Unavailable` it may have been done all the same: work must bear repetition.
        """
        end: Future[T] = Future()
        with self._lock:
            why = self._away or (len(self._waiting) >= self._most and "too much waits to be written")
            if not why:
                self._waiting.append(Errand(work, end, self._clock() + self._patience))
        if why:
            end.set_exception(Unavailable(why))
        return end

    def step(self, now: float) -> bool:
        """Do what waits, for a moment; True when there is more. Raises `Unavailable` where the store is away."""
        until = self._clock() + _AT_ONCE
        while self._waiting and self._clock() < until:
            self._run(self._waiting.popleft())
        return len(self._waiting) > 0

    def suspend(self, why: Exception) -> None:
        """The store is away: fail what waits, and what comes until `resume`."""
        with self._lock:
            self._away = str(why)
            waiting, self._waiting = self._waiting, deque()
        for errand in waiting:
            _fail(errand, self._away)

    def resume(self) -> None:
        """The store is there."""
        self._away = ""

    def abandon(self) -> None:
        """In a forked child: what waits is the parent's, and a lock may be held by a thread that is not here."""
        self._waiting, self._lock = deque(), threading.Lock()
        self.suspend(NotOwner("this process was forked; only its parent writes the history"))

    def _run(self, errand: Errand) -> None:
        if self._clock() > errand.until:
            _fail(errand, f"the history had no time for it within {self._patience:g} s")
        elif errand.end.set_running_or_notify_cancel():
            try:
                done = errand.work()
            except Exception as error:  # isolation: what one asked for must not hurt the others
                errand.end.set_exception(error)
                if isinstance(error, Unavailable):
                    raise
            else:
                errand.end.set_result(done)


def _fail(errand: Errand, why: str) -> None:
    if errand.end.set_running_or_notify_cancel():
        errand.end.set_exception(Unavailable(why))
