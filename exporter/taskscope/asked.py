"""What other threads ask of the one thread that writes, in order, and of whose end they hear."""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

import msgspec

from taskscope.errors import NotOwner, Overloaded, Unavailable

W = TypeVar("W")


class Ask(msgspec.Struct, Generic[W], frozen=True):
    """One thing that waits for its turn."""

    what: W
    size: int
    end: Future[Any]
    until: float
    """Nobody waits for it any longer then."""


class Asked(Generic[W]):
    """Takes from any thread what one thread does. What cannot be done fails; nothing is forgotten.

    A future fails with `Unavailable` where the store is away or there was no turn in time, with `Overloaded` where too
    much waits. While it waits it can be cancelled. The end of taskscope fails it, too.
    """

    def __init__(
        self,
        most: int,
        patience: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        on_ask: Callable[[], None] = lambda: None,
    ) -> None:
        """What waits has at most the size `most`, and each at most `patience` seconds; `on_ask`: something waits."""
        self._most, self._patience, self._clock, self._on_ask = most, patience, clock, on_ask
        self._waiting: deque[Ask[W]] = deque()
        self._size = 0
        self._lock = threading.Lock()
        self._away = ""
        self._ended = False

    def __len__(self) -> int:
        """The size of all that waits."""
        return self._size

    def ask(self, what: W, size: int = 1) -> Future[Any]:
        """Have it done soon. Never blocks, never raises; a single thing is never too large."""
        end: Future[Any] = Future()
        with self._lock:
            refusal = self._refusal(size)
            if refusal is None:
                self._waiting.append(Ask(what, size, end, self._clock() + self._patience))
                self._size += size
        if refusal is not None:
            end.set_exception(refusal)
        else:
            self._on_ask()
        return end

    def next(self) -> Ask[W] | None:
        """What is to be done now, under way from here on; None when nothing waits."""
        while self._waiting:
            ask = self._pop()
            if self._clock() > ask.until:
                _fail(ask, f"the history had no time for it within {self._patience:g} s")
            elif ask.end.set_running_or_notify_cancel():
                return ask
        return None

    def suspend(self, why: Exception) -> None:
        """The store is away: fail what waits, and what comes until `resume`."""
        with self._lock:
            self._away = str(why)
            waiting, self._waiting, self._size = self._waiting, deque(), 0
        for ask in waiting:
            _fail(ask, self._away)

    def resume(self) -> None:
        """The store is there."""
        if not self._ended:
            self._away = ""

    def finish(self) -> None:
        """Fail what waits, and what comes from now on."""
        self._ended = True
        self.suspend(Unavailable("taskscope is ending"))

    def abandon(self) -> None:
        """In a forked child: what waits is the parent's, and a lock may be held by a thread that is not here."""
        self._waiting, self._size, self._lock = deque(), 0, threading.Lock()
        self.suspend(NotOwner("this process was forked; only its parent writes the history"))

    def _refusal(self, size: int) -> Unavailable | None:
        if self._away:
            return Unavailable(self._away)
        if self._waiting and self._size + size > self._most:
            return Overloaded("too much waits to be written")
        return None

    def _pop(self) -> Ask[W]:
        with self._lock:
            ask = self._waiting.popleft()
            self._size -= ask.size
        return ask


def _fail(ask: Ask[Any], why: str) -> None:
    if ask.end.set_running_or_notify_cancel():
        ask.end.set_exception(Unavailable(why))
