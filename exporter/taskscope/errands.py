"""Short pieces of work that other threads have done by the one thread that writes, and of whose end they hear."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from taskscope.asked import Ask, Asked
from taskscope.errors import Unavailable

T = TypeVar("T")

_AT_ONCE = 0.03  # seconds of work before events have their turn again


class Errands(Asked[Callable[[], Any]]):
    """Pieces of work, done in order between two batches."""

    def __init__(
        self, most: int = 100, patience: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """At most `most` pieces of work wait, each for at most `patience` seconds."""
        super().__init__(most, patience, clock)

    def do(self, work: Callable[[], T]) -> Future[T]:
        """Have `work` done soon, between two batches; once the future is done, what it committed is durable.

        Fails as `Asked` says, and with whatever `work` raises. After `Unavailable` it may have been done all the same:
        work must bear repetition.
        """
        return self.ask(work)

    def step(self, now: float) -> bool:
        """Do what waits, for a moment; True when there is more. Raises `Unavailable` where the store is away."""
        until = self._clock() + _AT_ONCE
        while self._clock() < until and (errand := self.next()) is not None:
            _run(errand)
        return len(self) > 0


def _run(errand: Ask[Callable[[], Any]]) -> None:
    try:
        done = errand.what()
    except Exception as error:  # isolation: what one asked for must not hurt the others
        errand.end.set_exception(error)
        if isinstance(error, Unavailable):
            raise
    else:
        errand.end.set_result(done)
