"""Keeps the history within its bounds: retention in short steps between batches, and what it did made visible."""

import logging
import math
import time
from collections.abc import Sequence

from taskscope.contracts import Sink
from taskscope.facts import Change
from taskscope.sinks.history.retention import Retention
from taskscope.sinks.history.sql import SqlStore
from taskscope.sinks.metrics import Metrics

logger = logging.getLogger("taskscope")

_AT_ONCE = 0.03  # seconds of work before events have their turn again


class Upkeep(Sink):
    """Retention at start and every `retention.interval` seconds. Lives on the pipeline's thread, as the store does."""

    def __init__(self, store: SqlStore, metrics: Metrics) -> None:
        self._store, self._metrics = store, metrics
        self._retention = Retention(store)
        self._done_at, self._removed = -math.inf, 0
        self._rows: int | None = None

    def step(self, now: float) -> bool:
        """Work for a moment when it is time; True when there is more to do."""
        if self._rows is None:
            self._count()
        if now < self._done_at + self._store.settings.retention.interval:
            return False
        until = time.monotonic() + _AT_ONCE
        while time.monotonic() < until:
            removed = self._retention.step(now)
            if removed is None:
                self._finish(now)
                return False
            self._note(removed)
        return True

    def committed(self, changes: Sequence[Change]) -> None:
        """Count the runs that are new."""
        self._grow(sum(change.added == change.row.facts for change in changes))

    def _note(self, removed: int) -> None:
        if removed:
            self._removed += removed
            self._metrics.add("retention_deleted_total", removed)
            self._grow(-removed)

    def _finish(self, now: float) -> None:
        if self._removed:
            logger.info("taskscope: retention removed %d runs from the history", self._removed)
        self._done_at, self._removed = now, 0
        self._count()

    def _count(self) -> None:
        self._rows = self._store.rows()
        self._metrics.set("store_rows", self._rows)

    def _grow(self, by: int) -> None:
        if self._rows is not None:
            self._rows += by
            self._metrics.set("store_rows", self._rows)
