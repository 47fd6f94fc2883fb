"""What can happen, as frozen structs: facts about runs, readings of the present state, and signs of life.

Points in time are seconds since the epoch (UTC, float), durations are seconds. Nothing here does anything;
a bridge makes events, everything else reads them. As JSON they are what `POST /api/ingest/events` takes
(docs/ingest.md): fields are only ever added, with a default.
"""

from typing import Annotated, Any, Literal, TypeAlias

import msgspec

Status = Literal["queued", "started", "success", "failed", "retried", "skipped", "unknown"]
TriggerState = Literal["WAITING", "EXECUTING", "PAUSED", "BLOCKED", "ERROR", "ACQUIRED", "COMPLETE"]

DropReason = Literal["overflow", "bad", "refused", "expired", "member", "unsaved"]
"""Why an event is counted nowhere else."""

JobKey: TypeAlias = tuple[str, str]
"""(scheduler, job name): what a job is called everywhere inside taskscope."""


class _Written(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What may be read from JSON: a field that is not known is an error, not a detail."""


class _Versioned(_Written, frozen=True, kw_only=True):
    """An event."""

    version: Literal[1] = 1
    """Of the format; another one where what a field means has changed."""


class Error(_Written, frozen=True, kw_only=True):
    """What a run failed with."""

    kind: str
    """Class with its module, without `builtins.`: `ValueError`, `requests.exceptions.HTTPError`."""
    message: str = ""
    stack: str = ""
    """The traceback as text, with its chain of causes; innermost frame last."""
    data: dict[str, str] = {}
    """The exception's own attributes, by repr."""
    version: str = ""
    """Release of the program that failed; empty: that of the setting `version`."""


class Captured(msgspec.Struct, frozen=True, kw_only=True):
    """An exception that a run reports, and does not fail of."""

    key: str
    """Different for any two of a run, and the same whenever the same one is told again."""
    at: float
    error: Error
    instance: str = ""
    """The process that reported it; empty: the fact's."""


class Fact(_Versioned, frozen=True, kw_only=True, tag="fact", gc=False):
    """One thing that became true of a run. Facts may come twice, late or in any order."""

    scheduler: str
    native: str
    """The run's id in the words of its scheduler: equal in all facts of a run, different for any two runs."""
    status: Status
    at: float
    """When it became true."""
    attempt: int = 0
    anchor: float | None = None
    """A point in time that all facts of the run agree on; None where the scheduler has none."""
    job: str = ""
    """The job's name; empty where this fact does not know it."""
    due: float | None = None
    enqueued: float | None = None
    started: float | None = None
    """0 where only that it has begun is known: the run tells something of itself."""
    duration: float | None = None
    """Measured by the worker's monotonic clock."""
    reason: str = ""
    queue: str = ""
    worker: str = ""
    instance: str = ""
    """The process that executes the run; its silence makes the run lost."""
    entity: str = ""
    """What it is about: a shop, a tenant."""
    key: str = ""
    """What its users call it: the number of an order, the name of a file. Of two the greater stays."""
    result: str = ""
    """What came of it, in a few words. Of two the greater stays."""
    trace_id: str = ""
    error: Error | None = None
    captured: Captured | None = None
    """Told with the status `started`: that much is known of a run that reports an exception, but not since when."""
    details: dict[str, Any] | None = None


class Trigger(_Written, frozen=True, kw_only=True):
    """What makes a job due."""

    key: str
    state: TriggerState
    schedule: str = ""
    """In the scheduler's own words: `cron[minute='*/5']`."""
    description: str = ""
    timezone: str = ""
    priority: int | None = None
    start: float | None = None
    end: float | None = None
    next_run: float | None = None
    previous_run: float | None = None
    may_fire_again: bool | None = None
    misfire_policy: str = ""
    data: dict[str, Any] = {}


class Job(_Written, frozen=True, kw_only=True):
    """A job as its scheduler defines it now."""

    name: str
    key: str
    """The scheduler's own id, unique within it."""
    function: str = ""
    description: str = ""
    queue: str = ""
    paused: bool = False
    next_run: float | None = None
    previous_run: float | None = None
    interval: float | None = None
    """Seconds between its next two due times."""
    overlap: bool | None = None
    """May it run while it still runs?"""
    durable: bool | None = None
    properties: dict[str, Any] = {}
    data: dict[str, Any] = {}
    triggers: tuple[Trigger, ...] = ()


class Jobs(_Versioned, frozen=True, kw_only=True, tag="jobs"):
    """A reading: all jobs of a scheduler. A job that is missing from it has been removed."""

    scheduler: str
    at: float
    jobs: tuple[Job, ...]
    complete: bool = True
    """False where the scheduler defines some jobs only: the missing ones may be those that programs start."""


class Defined(_Versioned, frozen=True, kw_only=True, tag="defined"):
    """A reading: one job as it is defined now; it says nothing of the others.

    Where it says no `next_run`, schedules are cron expressions, and what they promise next is found by them.
    """

    scheduler: str
    at: float
    job: Job


class Removed(_Versioned, frozen=True, kw_only=True, tag="removed"):
    """A job is no more: its promises end, and an hour later so does what is shown of it. Its runs stay."""

    scheduler: str
    at: float
    job: str
    """Its name."""


class SchedulerState(_Versioned, frozen=True, kw_only=True, tag="scheduler"):
    """A reading: is the scheduler there, and does it start jobs?"""

    scheduler: str
    system: str
    at: float
    up: bool
    running: bool
    summary: tuple[str, ...] = ()
    unseen: int | None = None
    """Runs that it counted, since it is watched, and of which nothing else could be seen."""
    labels: dict[str, str] = {}
    """What it belongs to: environment, project."""


class QueueState(_Versioned, frozen=True, kw_only=True, tag="queue"):
    """A reading: what waits in a queue. None where the scheduler cannot say."""

    scheduler: str
    queue: str
    at: float
    ready: int | None = None
    in_flight: int | None = None
    scheduled: int | None = None
    oldest: float | None = None
    """When the oldest of those that are ready was enqueued."""
    deferred: int | None = None
    """Messages that wait for others to be done."""
    failed: int | None = None
    """Messages that are kept because they failed."""
    consumers: int | None = None


class WorkerState(_Versioned, frozen=True, kw_only=True, tag="worker"):
    """A reading: a worker and what it does. None where the scheduler cannot say."""

    scheduler: str
    worker: str
    at: float
    up: bool = True
    active: int | None = None
    slots: int | None = None
    """Runs that it can execute at once."""
    reserved: int | None = None
    """Runs that it has taken and not started."""
    memory_bytes: int | None = None
    threads: int | None = None
    cpu_seconds: float | None = None


class Departure(msgspec.Struct, frozen=True, kw_only=True, tag="departure"):
    """A scheduler is watched no more: what was read of it no longer holds. No bridge says this."""

    scheduler: str
    at: float


class Heartbeat(_Versioned, frozen=True, kw_only=True, tag="heartbeat"):
    """A process that executes runs lives. Of one that was heard and falls silent, the runs in progress are lost."""

    instance: str
    """As its facts name it: `host:pid:uuid`."""
    at: float
    dropped: dict[DropReason, Annotated[int, msgspec.Meta(ge=0, le=10**9)]] = {}
    """Events that it had to drop since the last sign of life that was taken, by reason.

    Told again with the same `at` they count once.
    """


Reading: TypeAlias = Jobs | Defined | SchedulerState | QueueState | WorkerState
Sendable: TypeAlias = Fact | Reading | Removed | Heartbeat
"""What other processes may send."""
Event: TypeAlias = Sendable | Departure
