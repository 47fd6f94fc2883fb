"""A run of an APScheduler, from its submission to its end, and what is told of it."""

import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from datetime import datetime
from typing import Any, Protocol

import msgspec
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MISSED

from taskscope.bridges._apscheduler_jobs import job_name
from taskscope.contracts import Told
from taskscope.events import Error, Fact, Status
from taskscope.failure import describe, reason_of
from taskscope.run import Run

_LATE = 600.0  # seconds


class Teller(Protocol):
    """Whom a run tells, and what it needs to know of its scheduler."""

    scheduler: str
    emit: Callable[[Told], None]

    def note_run(self, run: "Tracked") -> None:
        """A run waits, or has begun."""

    @property
    def prefix(self) -> str:
        """What its ids begin with, and no other scheduler object's."""

    @property
    def instance(self) -> str:
        """The process that executes the runs."""


class Tracked(msgspec.Struct, gc=False, eq=False):
    """A run, from its submission to its end. Who it is, is worked out with its first fact, on a thread of ours.

    The collector need not know of it (`gc=False`): nothing that it leads to leads back once the run has ended.
    """

    watch: Teller
    queue: str
    job: Any
    due_at: datetime
    number: int
    submitted: float
    started: float | None = None
    begun: float = 0.0
    told: bool = False
    """Has it been told what is true of it while it waits?"""
    ended: bool = False
    worker: str = ""
    known_as: str = ""

    @property
    def native(self) -> str:
        """The scheduler object, the job, the due time and a number: no other run has the same."""
        if not self.known_as:
            job_id = self.job.id if self.job.id.isprintable() else ascii(self.job.id)
            store = self.job._jobstore_alias
            self.known_as = (
                f"{self.watch.prefix}:{store}:{job_id[:200]}:{self.due_at.timestamp()}:{self.number}"
            )
        return self.known_as

    @property
    def due(self) -> float | None:
        """When it was due, in seconds since the epoch; None for a time before that."""
        due = self.due_at.timestamp()
        return due if due > 0 else None

    @property
    def anchor(self) -> float:
        """When it was due, or, of a run that is late, when it was submitted.

        Retention never takes away runs of the last hour, so a younger id can never be among those it took.
        """
        due = self.due_at.timestamp()
        return due if abs(self.submitted - due) < _LATE else self.submitted

    def begin(self, at: float) -> None:
        """It has started."""
        self.started = at
        if self.told:
            self.watch.note_run(self)

    def present(self) -> "Moment":
        """What is true of it while it has not ended."""
        if self.started is None:
            return Moment(self, "queued", self.submitted, None)
        return Moment(self, "started", self.started, self.started)

    def finish(self, duration: float, reason: str = "", error: Error | None = None) -> None:
        """It ran to its end; `reason` says why it failed."""
        if not self.ended:
            self.ended, started = True, self.started or 0.0
            status: Status = "failed" if reason else "success"
            self.watch.emit(Moment(self, status, started + duration, started, duration, reason, error))

    def believe(self, event: Any) -> None:
        """Only the event is known: it was left out, or the executor has ways of its own to call."""
        if event.code == EVENT_JOB_MISSED:
            self._end("skipped", "misfire")
        elif event.code == EVENT_JOB_ERROR:
            self._end("failed", reason_of(event.exception), describe(event.exception))
        else:
            self._end("success")

    def lose(self, error: BaseException, remote: bool) -> None:
        """It will not come to its end."""
        reason = reason_of(error)
        if reason == "cancelled" and self.started is None:
            self._end("skipped", reason)
            return
        if isinstance(error, BrokenExecutor) or (remote and self.started is not None):
            reason = "worker_lost"
        self._end("failed", reason, describe(error))

    def _end(self, status: Status, reason: str = "", error: Error | None = None) -> None:
        """An end of which only this moment is known."""
        self.ended = True
        self.watch.emit(Moment(self, status, time.time(), self.started, None, reason, error))

    def __call__(self) -> Run:
        """The run as `current_run` tells it."""
        return Run(*self.context())

    def tell(self, fact: Fact) -> None:
        """Pass on what the run itself says."""
        self.watch.emit(msgspec.structs.replace(fact, instance=self.watch.instance))

    def context(self) -> tuple[Any, ...]:
        """What a `Run` is made of."""
        return self.watch.scheduler, job_name(self.job), self.native, 0, self.due, self.anchor


class Moment(msgspec.Struct, gc=False, eq=False):
    """Something that happened to a run, which becomes a fact on a thread of ours."""

    run: Tracked
    status: Status
    at: float
    started: float | None
    duration: float | None = None
    reason: str = ""
    error: Error | None = None

    def __call__(self) -> Fact | None:
        """The fact; None where the run's end, which says all of it, has been told meanwhile."""
        run, status = self.run, self.status
        if run.ended and status in ("queued", "started"):
            return None
        watch = run.watch
        return Fact(
            scheduler=watch.scheduler,
            native=run.native,
            status=status,
            at=self.at,
            anchor=run.anchor,
            job=job_name(run.job),
            due=run.due,
            enqueued=run.submitted,
            started=self.started,
            duration=self.duration,
            reason=self.reason,
            queue=run.queue,
            worker=run.worker,
            instance=watch.instance,
            error=self.error,
        )


def skipped(run: Tracked, reason: str) -> Fact:
    """The fact of a run that was never submitted."""
    return Fact(
        scheduler=run.watch.scheduler,
        native=run.native,
        status="skipped",
        at=run.submitted,
        anchor=run.anchor,
        job=job_name(run.job),
        due=run.due,
        reason=reason,
        queue=run.queue,
        instance=run.watch.instance,
    )
