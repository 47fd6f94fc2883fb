"""What the history is asked, and what it answers. Times are ms since the epoch, durations µs; None = unknown."""

from typing import Literal

import msgspec

from taskscope.events import JobKey, Status

SortColumn = Literal["started_at", "ended_at", "duration", "task", "status"]


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs; an empty field does not filter. Fields are joined by AND, the values of one field by OR."""

    status: tuple[Status, ...] = ()
    job: tuple[str, ...] = ()
    scheduler: tuple[str, ...] = ()
    queue: tuple[str, ...] = ()
    worker: tuple[str, ...] = ()
    entity: tuple[str, ...] = ()
    reason: tuple[str, ...] = ()
    error: tuple[str, ...] = ()
    """Exception classes."""
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
