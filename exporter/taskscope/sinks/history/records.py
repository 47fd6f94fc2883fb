"""What the history is asked, what it answers, and what it is told of alerts.

Times are ms since the epoch, durations µs; None = unknown.
"""

from typing import Literal

import msgspec

from taskscope.events import JobKey, Status
from taskscope.identity import run_id

SortColumn = Literal["started_at", "ended_at", "duration", "task", "status"]
AlertStatus = Literal["active", "recovered"]


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs; an empty field does not filter. Fields are joined by AND, the values of one field by OR."""

    status: tuple[Status, ...] = ()
    job: tuple[str, ...] = ()
    scheduler: tuple[str, ...] = ()
    queue: tuple[str, ...] = ()
    worker: tuple[str, ...] = ()
    entity: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    reason: tuple[str, ...] = ()
    exception: tuple[str, ...] = ()
    """Exception classes."""
    error: tuple[bytes, ...] = ()
    """Fingerprints of error groups, of which the runs have an occurrence."""
    trace_id: str = ""
    q: str = ""
    """Text anywhere in job name, exception, message (case-insensitive)."""
    slow: float | None = None
    """Runs that took longer than this, in seconds."""
    slow_by_job: dict[JobKey, float] | None = None
    """The same with a limit of its own for each job; jobs without one are left out."""
    since: int | None = None
    """Anchor at or after, ms."""
    until: int | None = None
    """Anchor before, ms."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run as the history knows it."""

    id: bytes
    scheduler: str
    job: str
    status: Status
    reason: str
    attempt: int
    due: int | None
    enqueued: int | None
    started: int | None
    ended: int | None
    duration: int | None
    queue: str
    worker: str
    instance: str
    entity: str
    key: str
    result: str
    trace_id: str
    exception: str
    message: str = ""
    stack: str = ""
    data: str = ""
    """JSON; only of one run and in exports."""
    details: str = ""
    """JSON; only of one run and in exports."""


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Some runs of many."""

    runs: list[Run]
    total: int
    exact: bool
    """False where `total` is an estimate: it is exact up to 10 000."""
    after: bytes | None
    """The last id of this page, from which the next one goes on (in the order of ids); None at the end."""


class JobStats(msgspec.Struct, frozen=True, kw_only=True):
    """Statistics of a job's runs, or of all jobs together (scheduler and job empty). Seconds."""

    scheduler: str
    job: str
    runs: int
    statuses: dict[str, int]
    rate: float
    """Runs that ended, a second."""
    failure_rate: float
    """failed / (success + failed), 0 where there is neither."""
    mean: float | None
    max: float | None
    percentiles: dict[str, float]
    """`p95` to seconds, within 5 % of the exact value."""
    slow: int
    """Runs slower than the limit that was asked for."""


class Bucket(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a trend."""

    at: int
    """Its begin, ms."""
    statuses: dict[str, int]
    mean: float | None
    max: float | None
    percentiles: dict[str, float]


AGAIN = 60_000
"""ms. An alert that is told to fire so long after it was told to be resolved fires again; before, it is old news."""


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """What was told of one alert, from its start on; 0 = never."""

    fingerprint: str
    started: int
    ended: int = 0
    """As it was told with `resolved`."""
    fired: int = 0
    """When it was last told to fire, by our clock."""
    resolved: int = 0
    """When it was last told to be resolved, by our clock."""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    generator: str = ""

    @property
    def id(self) -> bytes:
        """Orders by the start, as a run's does; the same whenever the same alert is told of again."""
        return run_id("", self.fingerprint, 0, self.started)

    @property
    def fires(self) -> bool:
        """Is that the last that was told?"""
        return self.fired > self.resolved + AGAIN

    def merge(self, other: "Alert") -> "Alert":
        """What both tell; texts are of the later one."""
        return msgspec.structs.replace(
            max(self, other, key=_told),
            ended=max(self.ended, other.ended),
            fired=max(self.fired, other.fired),
            resolved=max(self.resolved, other.resolved),
        )


class AlertFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which alerts; as `Filter`."""

    now: int
    """ms; decides, with `silence`, which are active."""
    silence: int
    """An alert that was not told to fire for so many ms is past."""
    status: tuple[AlertStatus, ...] = ()
    severity: tuple[str, ...] = ()
    name: tuple[str, ...] = ()
    scheduler: tuple[str, ...] = ()
    job: tuple[str, ...] = ()
    since: int | None = None
    """Active at or after, ms."""
    until: int | None = None
    """Started before, ms."""


class AlertPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some alerts of many, newest first."""

    alerts: list[tuple[Alert, bool]]
    """Each, and whether it is active: it was last told to fire, and that was neither long ago nor before the same
    alert started anew."""
    total: int
    after: bytes | None
    """The last id of this page, from which the next one goes on; None at the end."""


def _told(alert: Alert) -> tuple[object, ...]:
    """A total order, so that it does not matter which of two was told first."""
    texts = (sorted(alert.annotations.items()), sorted(alert.labels.items()), alert.generator)
    return (max(alert.fired, alert.resolved), *texts)
