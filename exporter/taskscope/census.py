"""Counts error groups, between batches, whenever some have changed."""

import itertools

from taskscope.contracts import Sink
from taskscope.sinks.history.error_records import STATES
from taskscope.sinks.history.sql import SqlStore
from taskscope.sinks.metrics import Metrics

_SOON, _LATEST = 1.0, 30.0  # seconds after a change of ours, and of other replicas on the same database


class Census(Sink):
    """Exports how many error groups are in which state. Lives on the pipeline's thread, as the store does."""

    def __init__(self, store: SqlStore, metrics: Metrics) -> None:
        self._store, self._metrics = store, metrics
        self._changes, self._at = -1, 0.0
        self._schedulers: set[str] = set()

    def step(self, now: float) -> bool:
        """Count when it is time; there is never more to do at once."""
        changes = self._store.errors.changes
        if abs(now - self._at) < (_LATEST if changes == self._changes else _SOON):
            return False
        groups = self._store.error_groups()
        self._changes, self._at = changes, now
        self._schedulers |= {scheduler for scheduler, _ in groups}
        for scheduler, state in itertools.product(self._schedulers, STATES):
            self._metrics.set("error_groups", groups.get((scheduler, state), 0), scheduler, state)
        return False
