"""What the tests of inspections have happen, hour by hour, and how they inspect it."""

from concurrent.futures import Future
from threading import Lock
from typing import Any

from taskscope.bridges.fake import Clock
from taskscope.counts import JobState
from taskscope.events import Error, Fact
from taskscope.facts import Row, row_of
from taskscope.identity import run_id
from taskscope.inspection.inspector import Inspector
from taskscope.live import Live
from taskscope.settings import Inspection, Notify, Settings
from taskscope.sinks.history.finding_records import Finding, Inspected
from taskscope.sinks.history.queries import Queries
from taskscope.sinks.history.sql import SqlStore

HOUR = 3_600.0
T0 = 1_763_748_000.0
"""A full hour, in seconds."""
HOURLY = Inspection(timezone="UTC", notify=Notify(levels=("critical", "warning", "info")))


def stack(place: str) -> str:
    return f'Traceback (most recent call last):\n  File "/app/jobs.py", line 3, in {place}\nE: x\n'


class Past:
    """A history in which runs happen, and inspections of it, by a clock that goes only when told to."""

    def __init__(self, url: str, **rules: Inspection) -> None:
        self.url, self.clock, self._number = url, Clock(T0), 0
        self._lock = Lock()
        self.settings = Settings(history=url, inspections=rules or {"hourly": HOURLY})
        self.store = SqlStore(url, self.settings, clock=self.clock)
        self.store.open()
        self.queries = Queries(url, self.settings)
        self.live = Live()
        self.inspector = self.another(live=self.live)

    def another(self, **more: Any) -> Inspector:
        """Another inspector of the same history, as another replica has one."""
        return Inspector(self.settings, self.queries, self.keep, self.clock, **more)

    def keep(self, found: Any, inspected: Inspected | None) -> Future[None]:
        done: Future[None] = Future()
        with self._lock:  # a store belongs to one thread
            self.store.record_findings(found, inspected)
        done.set_result(None)
        return done

    def tell(self, ids: Any, at: int) -> Future[None]:
        done: Future[None] = Future()
        self.store.tell_findings(ids, at)
        done.set_result(None)
        return done

    def fact(self, status: str, *, job: str = "job", scheduler: str = "s", **known: Any) -> Row:
        """A run that is told of now."""
        self._number += 1
        at = known.setdefault("at", self.clock())
        known.setdefault("anchor", at)
        fact = Fact(scheduler=scheduler, native=str(self._number), status=status, job=job, **known)  # type: ignore[arg-type]
        return row_of(fact, run_id(scheduler, str(self._number), 0, int(known["anchor"] * 1000)))

    def fails(self, place: str = "f", times: int = 1, **known: Any) -> None:
        """It fails now, so often, at a place of its code."""
        for _ in range(times):
            error = Error(
                kind="ValueError", message="no", stack=stack(place), version=known.get("version", "1")
            )
            more = {name: value for name, value in known.items() if name != "version"}
            self.store.apply([self.fact("failed", error=error, **more)])

    def runs(self, times: int = 1, duration: float = 0.1, **known: Any) -> None:
        """It succeeds now, so often."""
        now = self.clock()
        self.store.apply(
            sorted(
                (
                    self.fact("success", started=now - duration, duration=duration, **known)
                    for _ in range(times)
                ),
                key=lambda row: row.id,
            )
        )

    def remember(self, job: str = "job", scheduler: str = "s", **state: Any) -> None:
        """What is remembered of a job, which has run now."""
        state.setdefault("last_run", self.clock())
        state.setdefault("first_seen", T0)
        self.store.apply([], states={(scheduler, job): JobState(**state)})

    def wait(self, hours: float = 1.0) -> None:
        self.clock.now += hours * HOUR

    def restart(self, hours: float) -> None:
        """Taskscope is away for so long, and comes back."""
        self.store.close()
        self.wait(hours)
        self.store.open()
        self.inspector = self.another(live=Live())

    def inspect(self) -> list[Inspected]:
        self.store.beat(["host:1:uuid"], self.clock())
        return self.inspector.catch_up()

    def findings(self, *, job: str | None = None) -> list[Finding]:
        """All of them, the oldest first."""
        found = self.queries.current_findings(0)
        return [one for one in found if job in (None, one.job)]

    def states(self, **which: Any) -> list[tuple[str, str]]:
        """What was found, and whether it goes on; the oldest first."""
        return [(one.kind, one.state) for one in self.findings(**which)]

    def close(self) -> None:
        self.queries.close()
        self.store.close()
