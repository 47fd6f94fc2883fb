"""Runs that were told to be queued, and not yet to have been taken: to hold beside what their queues hold."""

from collections import Counter
from typing import TypeAlias

from taskscope.events import Fact

RunKey: TypeAlias = tuple[str, str, int]
"""(scheduler, native id, attempt)"""

_KEPT = 3_600.0
"""Seconds after which one counts no more that was due: of some it is never told that they started."""
_MOST = 10_000


class Queued:
    """The latest of these runs. One that waits for very long is missing here, none is too many for that."""

    def __init__(self) -> None:
        self.schedulers: set[str] = set()
        """Those of which any such run was ever told."""
        self._runs: dict[RunKey, tuple[str, float]] = {}
        """Their queues, and until when they count."""

    def add(self, run: RunKey, fact: Fact) -> None:
        """It waits, as far as this fact knows."""
        if not fact.queue:
            return
        self.schedulers.add(fact.scheduler)
        self._runs[run] = fact.queue, max(fact.at, fact.due or 0.0) + _KEPT
        if len(self._runs) > _MOST:
            del self._runs[next(iter(self._runs))]

    def drop(self, run: RunKey) -> None:
        """It waits no more."""
        self._runs.pop(run, None)

    def leave(self, scheduler: str) -> None:
        """Nobody watches this scheduler any more."""
        self.schedulers.discard(scheduler)
        self._runs = {run: known for run, known in self._runs.items() if run[0] != scheduler}

    def expire(self, now: float) -> None:
        """Let go of those that count no more."""
        for run in [run for run, (_, until) in self._runs.items() if until < now]:
            del self._runs[run]

    def count(self) -> Counter[tuple[str, str]]:
        """How many wait, by scheduler and queue."""
        return Counter((run[0], queue) for run, (queue, _) in self._runs.items())
