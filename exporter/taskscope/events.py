"""What can happen, as frozen structs: facts about runs, and readings of the present state.

Points in time are seconds since the epoch (UTC, float), durations are seconds. Nothing here does anything;
a bridge makes events, everything else reads them.
"""

from typing import Any, Literal, TypeAlias

import msgspec

Status = Literal["queued", "started", "success", "failed", "retried", "skipped", "unknown"]
TriggerState = Literal["WAITING", "EXECUTING", "PAUSED", "BLOCKED", "ERROR", "ACQUIRED", "COMPLETE"]

JobKey: TypeAlias = tuple[str, str]
"""(scheduler, job name): what a job is called everywhere inside taskscope."""


class Error(msgspec.Struct, frozen=True, kw_only=True):
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


class Fact(msgspec.Struct, frozen=True, kw_only=True, tag="fact", gc=False):
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
    duration: float | None = None
    """Measured by the worker's monotonic clock."""
    reason: str = ""
    queue: str = ""
    worker: str = ""
    instance: str = ""
    """The process that executes the run; its silence makes the run lost."""
    entity: str = ""
    trace_id: str = ""
    error: Error | None = None
    captured: Captured | None = None
    """Told with the status `started`: that much is known of a run that reports an exception, but not since when."""
    details: dict[str, Any] | None = None


class Trigger(msgspec.Struct, frozen=True, kw_only=True):
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


class Job(msgspec.Struct, frozen=True, kw_only=True):
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


class Jobs(msgspec.Struct, frozen=True, kw_only=True, tag="jobs"):
    """A reading: all jobs of a scheduler. A job that is missing from it has been removed."""

    scheduler: str
    at: float
    jobs: tuple[Job, ...]


class SchedulerState(msgspec.Struct, frozen=True, kw_only=True, tag="scheduler"):
    """A reading: is the scheduler there, and does it start jobs?"""

    scheduler: str
    system: str
    at: float
    up: bool
    running: bool
    summary: tuple[str, ...] = ()


class QueueState(msgspec.Struct, frozen=True, kw_only=True, tag="queue"):
    """A reading: what waits in a queue. None where the scheduler cannot say."""

    scheduler: str
    queue: str
    at: float
    ready: int | None = None
    in_flight: int | None = None
    scheduled: int | None = None
    oldest: float | None = None
    consumers: int | None = None


class WorkerState(msgspec.Struct, frozen=True, kw_only=True, tag="worker"):
    """A reading: a worker and what it does. None where the scheduler cannot say."""

    scheduler: str
    worker: str
    at: float
    up: bool = True
    active: int | None = None
    memory_bytes: int | None = None
    threads: int | None = None
    cpu_seconds: float | None = None


Reading: TypeAlias = Jobs | SchedulerState | QueueState | WorkerState
Event: TypeAlias = Fact | Reading
