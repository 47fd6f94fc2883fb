"""Inspects on time, one inspection after the other, on a thread of its own; never holds up a write."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from taskscope.errors import TaskscopeError
from taskscope.inspection import looks
from taskscope.inspection.ledger import settled, subject_of
from taskscope.inspection.scene import HOUR, Scene
from taskscope.inspection.timetable import latest_due, next_due
from taskscope.live import Live
from taskscope.settings import Inspection, Settings
from taskscope.sinks.history.finding_records import Finding, Inspected
from taskscope.sinks.history.queries import Queries

logger = logging.getLogger("taskscope")

_LONGEST = 24  # windows that one inspection looks at, after a long absence
_WEEK = 7 * 24 * HOUR
_OFTEN = 5.0  # seconds between two looks at the clock
_PATIENCE = 30.0  # seconds for what was found to be durable


class Keep(Protocol):
    """Has findings, and how an inspection went, written: durable once the future is done."""

    def __call__(self, findings: Sequence[Finding], inspected: Inspected | None, /) -> Future[None]:
        """Begin to."""


class Inspector:
    """All inspections that the settings name."""

    def __init__(
        self,
        settings: Settings,
        queries: Queries,
        live: Live,
        keep: Keep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._queries, self._live = settings, queries, live
        self._keep, self._clock = keep, clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="taskscope-inspect", daemon=True)
        self.failures: dict[str, str] = {}
        """Why the latest inspection of a name gave up."""

    def start(self) -> None:
        """Begin to inspect, if there is anything to."""
        if any(rules.enabled for rules in self._settings.inspections.values()):
            self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Begin no more inspections."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def next_due(self, name: str) -> float:
        """When the inspection is due next, in seconds since the epoch."""
        return next_due(self._settings.inspections[name], self._clock())

    def look(self, name: str, end: int, begin: int | None = None) -> list[Finding]:
        """What an inspection of the window that ends at `end` (ms) finds, or finds no more. Writes nothing."""
        rules = self._settings.inspections[name]
        end = end // HOUR * HOUR
        window = round(rules.window * 1000) // HOUR * HOUR
        begin = min(end - window, end if begin is None else begin // HOUR * HOUR)
        known = self._queries.current_findings(begin - _WEEK, name)
        scene = self._scene(rules, known, begin, end)
        return [
            finding
            for look in rules.looks
            for finding in settled(name, look, known, self._in_time(look, scene, rules), begin, end)
        ]

    def _scene(self, rules: Inspection, known: Sequence[Finding], begin: int, end: int) -> Scene:
        back = self._settings.retention.errors if rules.look_back is None else rules.look_back
        with self._live.lock:
            jobs = dict(self._live.jobs)
        return Scene(
            rules=rules,
            queries=self._queries,
            jobs=jobs,
            begin=begin,
            end=end,
            past=max(0, begin - round(back * 1000) // HOUR * HOUR),
            open=frozenset(subject_of(one) for one in known if not one.recovered),
        )

    def _in_time(self, look: str, scene: Scene, rules: Inspection) -> Iterator[Any]:
        deadline = time.monotonic() + rules.timeout
        for found in looks()[look](scene):
            yield found
            if time.monotonic() > deadline:
                raise TimeoutError(f"{look} took longer than {rules.timeout:g} s")

    def _run(self) -> None:
        while not self._stop.wait(_OFTEN):
            try:
                self.catch_up()
            except TaskscopeError as error:  # the history is away: later
                logger.debug("taskscope cannot inspect: %s", error)
            except Exception:  # isolation: a fault of ours must not end the inspections
                logger.exception("taskscope: an inspection failed in an unexpected way; it is tried again")

    def catch_up(self) -> None:
        """Do the inspections that are due; of those that were missed one for all."""
        for name, rules in self._settings.inspections.items():
            if rules.enabled and self._due(name) > self._through(name) and not self._stop.is_set():
                with self._queries.alone("inspect") as mine:
                    if mine and self._due(name) > (through := self._through(name)):  # nobody else has done it
                        self._inspect(name, self._due(name), through)

    def _due(self, name: str) -> int:
        """Up to when it should have looked by now."""
        return round(latest_due(self._settings.inspections[name], self._clock()) * 1000) // HOUR * HOUR

    def _through(self, name: str) -> int:
        """Up to when it has looked."""
        done = self._queries.inspections().get(name)
        return done.through if done else 0

    def _inspect(self, name: str, due: int, through: int) -> None:
        begun, at = time.monotonic(), round(self._clock() * 1000)
        window = round(self._settings.inspections[name].window * 1000)
        found, failure = [], ""
        try:
            found = self.look(name, due, max(through, due - _LONGEST * window) if through else None)
        except (TaskscopeError, TimeoutError) as error:
            failure = str(error)
            logger.warning("taskscope: inspection %s gave up: %s", name, error)
        took = round((time.monotonic() - begun) * 1000)
        inspected = Inspected(
            name=name,
            through=due,
            at=at,
            took=took,
            found=sum(not one.recovered for one in found),
            failure=failure,
        )
        self._keep(found, inspected).result(_PATIENCE)
        self.failures = {**self.failures, name: failure} if failure else _without(self.failures, name)


def _without(failures: dict[str, str], name: str) -> dict[str, str]:
    return {other: why for other, why in failures.items() if other != name}
