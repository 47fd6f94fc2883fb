"""Follows every run of an APScheduler, from its submission to its end."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import suppress
from contextvars import Token
from datetime import datetime
from functools import partial
from itertools import count
from os import getpid
from threading import RLock
from typing import Any, Protocol
from uuid import uuid4
from weakref import WeakValueDictionary

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MISSED
from apscheduler.util import iscoroutinefunction_partial

from taskscope.bridges._apscheduler_child import Report, RunTimes, StandIn, in_child
from taskscope.bridges._apscheduler_jobs import Gap, job_name
from taskscope.bridges._apscheduler_starts import Starts
from taskscope.bridges._quiet import quiet
from taskscope.contracts import Emit
from taskscope.events import Error, Fact, Status
from taskscope.failure import describe, reason_of
from taskscope.instance import instance
from taskscope.run import Making, Run, enter, leave

_LATE = 600.0  # seconds
_MERGED, _COALESCED = (
    1_000,
    1_000,
)  # submissions that others were merged into; merged runs of one that are told


class Tapped(Protocol):
    """What a submission needs to know of the executor it is given to."""

    alias: str
    awaits: bool
    """May it await coroutines?"""
    watch: "Watch"
    open: "set[Submission]"
    """Submissions that the executor has not reported back."""


class Watch:
    """What the hooks on one scheduler share."""

    def __init__(self, scheduler: str, emit: Emit, instance: str, changed: Callable[[], None]) -> None:
        self.scheduler, self.emit, self._given, self._changed = scheduler, quiet(emit), instance, changed
        self.active = True
        self.submitted = 0
        self.previous: dict[tuple[str, str], datetime] = {}
        """When each job (job store, id) was last due."""
        self.refused: dict[tuple[str, str], datetime] = {}
        """When a due job was last left out because it still ran."""
        self._merged: deque[tuple[Any, Gap, float]] = deque(maxlen=_MERGED)
        self.catch_up = quiet(self._catch_up)
        self.lock = RLock()
        """Held while a run in a process pool changes: two threads of ours hear of it."""
        self.starts = Starts(quiet(self._heard))
        self.instance = self._prefix = ""
        self._pid, self._numbers = 0, count()
        self._away: WeakValueDictionary[int, Submission] = WeakValueDictionary()

    def known(self, job: Any, due: datetime, now: float) -> "Tracked":
        """A run of this job, under an id that no other run has."""
        if self._pid != getpid():  # after a fork two processes may submit the same due times
            self._pid, self._prefix, self.instance = getpid(), uuid4().hex, self._given or instance()
        return Tracked(self._prefix, job, next(self._numbers), due, now)

    def skip(self, job: Any, times: Iterable[datetime], reason: str, at: float | None = None) -> None:
        """Tell runs that will not be, by default as of now."""
        now, name = at or time.time(), job_name(job)
        for due in times:
            if not self.active:
                return
            self.emit(partial(self._skipped, self.known(job, due, now), name, job.executor, reason))

    def merge(self, job: Any, gap: Gap) -> None:
        """Take note that these runs will not be; `catch_up` tells them, soon and on a thread of ours."""
        self._merged.append((job, gap, time.time()))
        self._changed()

    def _catch_up(self) -> None:
        """Tell the runs that were left out in favour of later ones, the first 1,000 of each time."""
        with suppress(IndexError):  # all are told, perhaps by another thread
            while True:
                job, gap, at = self._merged.popleft()
                self.skip(job, gap.times(_COALESCED), "coalesced", at)

    def _skipped(self, run: "Tracked", name: str, queue: str, reason: str) -> Fact:
        return Fact(
            scheduler=self.scheduler,
            native=run.native,
            status="skipped",
            at=run.submitted,
            anchor=run.anchor,
            job=name,
            due=run.due,
            reason=reason,
            queue=queue,
            instance=self.instance,
        )

    def send_away(self, submission: "Submission") -> int:
        """A number by which a process-pool child can speak of this submission."""
        number = next(self._numbers)
        self._away[number] = submission
        return number

    def forget(self, job_store: str | None, job_id: str | None = None) -> None:
        """Remember nothing of this job, of all jobs of the store, or of all jobs."""
        for memory in (self.previous, self.refused):
            if job_store is not None and job_id is not None:
                memory.pop((job_store, job_id), None)
            else:
                for key in [key for key in list(memory) if job_store in (None, key[0])]:
                    memory.pop(key, None)

    def abandon(self) -> None:
        """In a forked child: tell nothing more, and wait for nobody."""
        self.active, self.lock = False, RLock()
        self.starts.abandon()

    def _heard(self, number: int, place: int, started: float, duration: float, pid: int) -> None:
        if submission := self._away.get(number):
            submission.hear(place, started, duration, pid)


class Tracked:
    """A run, from its submission to its end. Who it is, is worked out with its first fact, on a thread of ours."""

    __slots__ = (
        "_due",
        "_job",
        "_native",
        "_number",
        "_prefix",
        "begun",
        "ended",
        "started",
        "submitted",
        "worker",
    )

    def __init__(self, prefix: str, job: Any, number: int, due: datetime, now: float) -> None:
        self._prefix, self._job, self._number, self._due, self.submitted = prefix, job, number, due, now
        self._native = ""
        self.started: float | None = None
        self.begun = 0.0
        self.ended = False
        self.worker = ""

    @property
    def native(self) -> str:
        """The scheduler object, the job, the due time and a number: no other run has the same."""
        if not self._native:
            job_id = self._job.id if self._job.id.isprintable() else ascii(self._job.id)
            store = self._job._jobstore_alias
            self._native = f"{self._prefix}:{store}:{job_id[:200]}:{self._due.timestamp()}:{self._number}"
        return self._native

    @property
    def due(self) -> float | None:
        """When it was due, in seconds since the epoch; None for a time before that."""
        due = self._due.timestamp()
        return due if due > 0 else None

    @property
    def anchor(self) -> float:
        """When it was due, or, of a run that is late, when it was submitted.

        Retention never takes away runs of the last hour, so a younger id can never be among those it took.
        """
        due = self._due.timestamp()
        return due if abs(self.submitted - due) < _LATE else self.submitted


class Given(StandIn):
    """A job as it is given to an executor."""

    __slots__ = ("_submission",)

    def __init__(self, submission: "Submission", times: Sequence[datetime]) -> None:
        super().__init__(submission.job, RunTimes(times) if len(times) > 1 else times, submission, submission)
        self._submission = submission

    @property
    def id(self) -> str:
        """The job's id, which leads back to the submission."""
        return self._id if self._submission.tap.watch.active else self.job.id

    @property
    def func(self) -> Callable[..., Any]:
        """The job's function, followed; a coroutine function where the executor asks for one."""
        if self._submission.tap.awaits and iscoroutinefunction_partial(self.job.func):
            return self._call_coroutine
        return self._call

    def __reduce__(self) -> tuple[Any, ...]:
        return in_child, (self.job, self.times, *self._submission.send_away())

    async def _call_coroutine(self, *args: Any, **kwargs: Any) -> Any:
        place = self.times.current if self.many else 0
        token = self._follower.begin(place)
        try:
            result = await self.job.func(*args, **kwargs)
        except BaseException as error:
            self._follower.end(place, error)
            raise
        else:
            self._follower.end(place, None)
            return result
        finally:
            leave(token)


class Submission:
    """A job handed to an executor, for one run or several: follows each of them and tells what becomes of it."""

    __slots__ = ("__weakref__", "enqueued", "job", "remote", "runs", "tap")

    def __init__(self, tap: Tapped, job: Any, times: Sequence[datetime]) -> None:
        self.tap, self.job, self.enqueued = tap, job, time.time()
        self.remote = False
        """Has it been sent to another process?"""
        self.runs = [tap.watch.known(job, due, self.enqueued) for due in times]

    @property
    def name(self) -> str:
        """What the job is called."""
        return job_name(self.job)

    @property
    def key(self) -> tuple[str, str]:
        """Job store and id of the job."""
        return (self.job._jobstore_alias, self.job.id)

    def open(self) -> None:
        """Tell that its runs wait."""
        for run in self.runs:
            self._tell(run, "queued", self.enqueued)

    def begin(self, place: int) -> Token[Making | None]:
        """A run begins, in this process."""
        run = self.runs[place]
        if not run.ended:
            run.started = time.time()
            self._tell(run, "started", run.started)
        token = enter(partial(self._run, run))
        run.begun = time.perf_counter()
        return token

    def end(self, place: int, error: BaseException | None) -> None:
        """A run has ended, in this process."""
        run = self.runs[place]
        duration = time.perf_counter() - run.begun
        if run.ended:
            return
        if error is None:
            self._finish(run, duration, None, "")
        else:
            self._finish(run, duration, describe(error, skip=1), reason_of(error))

    def send_away(self) -> tuple[Any, ...]:
        """What a process-pool child needs to follow its runs; from now on they are remote."""
        self.remote = True
        watch = self.tap.watch
        return [self._context(run) for run in self.runs], watch.send_away(self), watch.starts.address()

    def settle(self, events: Sequence[Any]) -> None:
        """The executor is done with it: tell what is not told yet, give the events their plain id back."""
        reports = getattr(events[0].job_id, "carries", ()) if self.remote and events else ()
        for event in events:
            event.job_id = self.job.id
        if reports:
            self._take(reports)
        for run, event in zip(self.runs, events, strict=False):
            if not run.ended:
                self._believe(run, event)
        self.tap.open.discard(self)

    def abandon(self, error: BaseException) -> None:
        """The executor lost it, or never took it: its runs end without having come to their end."""
        if self.remote:
            self.tap.watch.starts.drain()
        with self.tap.watch.lock:
            for run in self.runs:
                # a function that runs on in a thread, though nobody waits for it any more, tells its own end
                if not run.ended and (run.started is None or self.remote):
                    self._lose(run, error)
        self.tap.open.discard(self)

    def hear(self, place: int, started: float, duration: float, pid: int) -> None:
        """A process-pool child says that a run has begun, or that it succeeded."""
        with self.tap.watch.lock:
            run = self.runs[place]
            if run.ended:
                return
            if run.started is None:
                run.started, run.worker = started, f"{instance().split(':')[0]}:{pid}"
                self._tell(run, "started", started)
            if duration >= 0:
                self._finish(run, duration, None, "")

    def _take(self, reports: Iterable[Report]) -> None:
        with self.tap.watch.lock:
            for report in reports:
                self.hear(report.place, report.started, -1.0, report.pid)
                run = self.runs[report.place]
                if not run.ended:
                    self._finish(run, report.duration, report.error, report.reason)

    def _believe(self, run: Tracked, event: Any) -> None:
        """Only the event is known: the run was left out, or the executor has ways of its own to call."""
        run.ended, now = True, time.time()
        if event.code == EVENT_JOB_MISSED:
            self._tell(run, "skipped", now, reason="misfire")
        elif event.code == EVENT_JOB_ERROR:
            self._tell(run, "failed", now, reason=reason_of(event.exception), error=describe(event.exception))
        else:
            self._tell(run, "success", now)

    def _lose(self, run: Tracked, error: BaseException) -> None:
        run.ended, reason = True, reason_of(error)
        if reason == "cancelled" and run.started is None:
            self._tell(run, "skipped", time.time(), reason=reason)
            return
        if isinstance(error, BrokenExecutor) or (self.remote and run.started is not None):
            reason = "worker_lost"
        self._tell(run, "failed", time.time(), reason=reason, error=describe(error))

    def _finish(self, run: Tracked, duration: float, error: Error | None, reason: str) -> None:
        run.ended, at = True, (run.started or 0.0) + duration
        if reason:
            self._tell(run, "failed", at, reason, error, duration)
        else:
            self._tell(run, "success", at, "", None, duration)

    def _run(self, run: Tracked) -> Run:
        return Run(*self._context(run))

    def _context(self, run: Tracked) -> tuple[Any, ...]:
        return self.tap.watch.scheduler, self.name, run.native, 0, run.due, run.anchor

    def _tell(
        self,
        run: Tracked,
        status: Status,
        at: float,
        reason: str = "",
        error: Error | None = None,
        duration: float | None = None,
    ) -> None:
        watch = self.tap.watch
        if watch.active:
            watch.emit(partial(self._fact, run, status, at, run.started, reason, error, duration))

    def _fact(
        self,
        run: Tracked,
        status: Status,
        at: float,
        started: float | None,
        reason: str,
        error: Error | None,
        duration: float | None,
    ) -> Fact | None:
        """The fact; None where the run's end, which says all of it, has been told meanwhile."""
        if run.ended and status in ("queued", "started"):
            return None
        watch = self.tap.watch
        return Fact(
            scheduler=watch.scheduler,
            native=run.native,
            status=status,
            at=at,
            anchor=run.anchor,
            job=self.name,
            due=run.due,
            enqueued=self.enqueued,
            started=started,
            duration=duration,
            reason=reason,
            queue=self.tap.alias,
            worker=run.worker,
            instance=watch.instance,
            error=error,
        )
