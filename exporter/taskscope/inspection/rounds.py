"""The thread that inspects on time and tells of what is found; it never holds up a write."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Protocol

from taskscope.errors import TaskscopeError
from taskscope.inspection.inspector import Inspector
from taskscope.inspection.teller import Teller
from taskscope.inspection.timetable import next_due
from taskscope.live import Live
from taskscope.settings import Settings
from taskscope.sinks.history.finding_records import Inspected
from taskscope.sinks.history.queries import Queries
from taskscope.sinks.history.sql import SqlStore

logger = logging.getLogger("taskscope")

_OFTEN = 5.0  # seconds between two looks at the clock
_PATIENCE = 10.0  # seconds for labels to be durable
_EVERY = 60.0  # seconds after which it is told again, and the numbers are read again


class Numbers(Protocol):
    """Where metrics go: `Metrics`."""

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge."""

    def add(self, name: str, by: float, *labels: str) -> None:
        """Add to a counter."""


class Rounds:
    """Inspections, findings told, and both as numbers. It owns `queries`.

    `ready` says whether the history is ours to write; `keep_labels` has written what schedulers belong to.
    """

    def __init__(
        self,
        settings: Settings,
        queries: Queries,
        inspector: Inspector,
        teller: Teller,
        metrics: Numbers,
        ready: Callable[[], bool],
        stopping: threading.Event,
        keep_labels: Callable[[], None],
    ) -> None:
        self._settings, self._queries, self._metrics, self._ready = settings, queries, metrics, ready
        self._inspector, self._teller = inspector, teller
        self._stopping, self._keep_labels = stopping, keep_labels
        self._thread = threading.Thread(target=self._run, name="taskscope-inspect", daemon=True)
        self._at = -_EVERY
        self._seen: set[tuple[str, str]] = set()
        self.adopt = teller.adopt
        self.failures: dict[str, str] = {}
        """What does not work (inspection, alertmanager), each with a sentence."""

    def start(self) -> None:
        """Begin."""
        for name in self._settings.inspections:
            self._metrics.add("inspection_failures_total", 0, name)
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Begin nothing more, and let go of the history."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        self._queries.close()

    def step(self, now: float) -> None:
        """Do what is to be done now, in seconds of a steady clock."""
        made = self._inspector.catch_up()
        for one in made:
            self._metrics.add("inspection_failures_total", bool(one.failure), one.name)
        if made or now - self._at >= _EVERY:
            self._at = now
            self._keep_labels()
            self._tell()
            self._show()

    def _run(self) -> None:
        while not self._stopping.wait(_OFTEN):
            if not self._ready():
                continue
            try:
                self.step(time.monotonic())
            except (TaskscopeError, TimeoutError) as error:  # the history is away: later
                logger.debug("taskscope cannot inspect: %s", error)
            except Exception:  # isolation: a fault of ours must not end the inspections
                logger.exception("taskscope: an inspection failed in an unexpected way; it is tried again")

    def _tell(self) -> None:
        """Tell Alertmanager; a failure is logged once, and its end."""
        if not self._settings.alertmanager:
            return
        before, failure = self.failures.get("alertmanager", ""), ""
        try:
            self._teller.tell()
        except TaskscopeError as error:
            failure = str(error)
        if failure and not before:
            logger.warning("taskscope cannot tell of findings: %s; it is tried again", failure)
        elif before and not failure:
            logger.info("taskscope tells Alertmanager of findings again")
        self._note("alertmanager", failure)

    def _show(self) -> None:
        """Bring the metrics up to what the history says: any replica may have inspected."""
        done = self._queries.inspections()
        last = [done[name] for name in self._settings.inspections if name in done]
        for one in last:
            for metric, value in self._numbers(one):
                self._metrics.set(metric, value, one.name)
        self._note("inspection", "; ".join(f"{one.name}: {one.failure}" for one in last if one.failure))
        counts = self._queries.open_findings()
        self._seen |= counts.keys()
        for scheduler, kind in self._seen:
            self._metrics.set("findings", counts.get((scheduler, kind), 0), scheduler, kind)

    def _numbers(self, one: Inspected) -> Iterator[tuple[str, float]]:
        rules = self._settings.inspections[one.name]
        yield "inspection_last_timestamp_seconds", one.at / 1000
        yield "inspection_duration_seconds", one.took / 1000
        yield "inspection_failed", bool(one.failure)
        if rules.enabled:
            yield "inspection_next_timestamp_seconds", next_due(rules, one.at / 1000)

    def _note(self, reason: str, failure: str) -> None:
        others = {other: why for other, why in self.failures.items() if other != reason}
        self.failures = others | ({reason: failure} if failure else {})


def rounds(
    settings: Settings,
    queries: Queries,
    store: SqlStore,
    do: Callable[[Callable[[], None]], Future[None]],
    metrics: Numbers,
    ready: Callable[[], bool],
    live: Live,
    clock: Callable[[], float] = time.time,
) -> Rounds:
    """What is done about inspections, wired; `do` has something written, as `Pipeline.do` does."""
    stopping = threading.Event()
    inspector = Inspector(
        settings,
        queries,
        lambda found, inspected: do(partial(store.record_findings, found, inspected)),
        clock,
        stopped=stopping.is_set,
        live=live,
    )
    teller = Teller(settings, queries, lambda ids, at: do(partial(store.tell_findings, ids, at)), live, clock)

    def keep_labels() -> None:
        kept = queries.labels()
        if news := {name: labels for name, labels in live.labels().items() if labels != kept.get(name)}:
            do(partial(store.keep_labels, news)).result(_PATIENCE)

    return Rounds(settings, queries, inspector, teller, metrics, ready, stopping, keep_labels)
