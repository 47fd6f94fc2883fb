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

import msgspec
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MISSED

from taskscope.bridges._apscheduler_child import Likeness, Report, RunTimes, carrying, in_child
from taskscope.bridges._apscheduler_jobs import Gap, job_name
from taskscope.bridges._apscheduler_starts import Starts
from taskscope.bridges._quiet import quiet
from taskscope.contracts import Emit, Told
from taskscope.events import Error, Fact, Status
from taskscope.failure import describe, reason_of
from taskscope.instance import instance as this_instance
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
        self.scheduler, self._instance, self._changed = scheduler, instance, changed
        self.emit, self.active = quiet(emit), True
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
        self.numbers = count()
        """Tells apart what the same job submits for the same due time."""
        self._pid, self._prefix = getpid(), uuid4().hex
        self._away: WeakValueDictionary[int, Submission] = WeakValueDictionary()

    @property
    def prefix(self) -> str:
        """What no other scheduler object's ids begin with: after a fork two may submit the same due times."""
        if self._pid != getpid():
            self._pid, self._prefix = getpid(), uuid4().hex
        return self._prefix

    @property
    def instance(self) -> str:
        """The process that executes the runs."""
        return self._instance or this_instance()

    def skip(self, job: Any, times: Iterable[datetime], reason: str, at: float | None = None) -> None:
        """Tell runs that will not be, by default as of now."""
        now = at or time.time()
        for due in times:
            run = Tracked(self, job.executor, job, due, next(self.numbers), now)
            self.emit(partial(_skipped, run, reason))

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

    def send_away(self, submission: "Submission") -> int:
        """A number by which a process-pool child can speak of this submission."""
        number = next(self.numbers)
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

    def stop(self) -> None:
        """Tell nothing more."""
        self.emit, self.active = _ignore, False

    def abandon(self) -> None:
        """In a forked child: tell nothing more, and wait for nobody."""
        self.stop()
        self.lock = RLock()
        self.starts.abandon()

    def _heard(self, number: int, place: int, started: float, duration: float, pid: int) -> None:
        if submission := self._away.get(number):
            submission.hear(place, started, duration, pid)


class Tracked(msgspec.Struct, gc=False, eq=False):
    """A run, from its submission to its end. Who it is, is worked out with its first fact, on a thread of ours.

    The collector need not know of it (`gc=False`): nothing that it leads to leads back once the run has ended.
    """

    watch: "Watch"
    queue: str
    job: Any
    due_at: datetime
    number: int
    submitted: float
    started: float | None = None
    begun: float = 0.0
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

    def __call__(self) -> Run:
        """The run as `current_run` tells it."""
        return Run(*self.context())

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


def _ignore(told: Told) -> None:
    """Nobody wants to know any more."""


def _skipped(run: Tracked, reason: str) -> Fact:
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


class Submission(Likeness):
    """A job handed to an executor, for one run or several.

    It stands in for the job there, follows each of the runs and tells what becomes of it.
    """

    __slots__ = ("__weakref__", "enqueued", "id", "remote", "runs", "tap", "times")

    def __init__(self, tap: Tapped, job: Any, times: Sequence[datetime]) -> None:
        self.tap, self.job = tap, job
        self.times = times if len(times) == 1 else RunTimes(times)
        self.id: str = carrying(job.id, self)
        """The job's id, which leads back to the submission until the executor has reported it back."""
        self.remote = False
        """Has it been sent to another process?"""
        watch, queue, self.enqueued = tap.watch, tap.alias, time.time()
        self.runs: list[Tracked] = []
        for due in times:  # a comprehension would be one more call
            self.runs.append(Tracked(watch, queue, job, due, next(watch.numbers), self.enqueued))

    def func(self, *args: Any, **kwargs: Any) -> Any:
        """The job's function, followed."""
        run, token = self._begin()
        try:
            result = self.job.func(*args, **kwargs)
        except BaseException as error:
            self._end(run, error)
            raise
        else:
            self._end(run, None)
            return result
        finally:
            leave(token)

    def __reduce__(self) -> tuple[Any, ...]:
        """What a process-pool child needs to follow its runs; from now on they are remote."""
        self.remote = True
        watch = self.tap.watch
        runs = [run.context() for run in self.runs]
        return in_child, (self.job, self.times, runs, watch.send_away(self), watch.starts.address())

    @property
    def key(self) -> tuple[str, str]:
        """Job store and id of the job."""
        return (self.job._jobstore_alias, self.job.id)

    def open(self) -> None:
        """Tell that its runs wait."""
        for run in self.runs:
            self.tap.watch.emit(Moment(run, "queued", self.enqueued, None))

    def close(self) -> None:
        """The executor has reported it back, or nobody wants to know any more."""
        self.id = self.job.id
        self.tap.open.discard(self)

    def _begin(self) -> tuple[Tracked, Token[Making | None]]:
        """A run begins, in this process."""
        run = self.runs[self.times.current if type(self.times) is RunTimes else 0]
        if not run.ended:
            run.started = now = time.time()
            run.watch.emit(Moment(run, "started", now, now))
        token = enter(run)
        run.begun = time.perf_counter()
        return run, token

    def _end(self, run: Tracked, error: BaseException | None) -> None:
        """A run has ended, in this process."""
        duration = time.perf_counter() - run.begun
        if run.ended:
            return
        if error is None:
            _finish(run, duration)
        else:
            _finish(run, duration, reason_of(error), describe(error, skip=1))

    def settle(self, events: Sequence[Any]) -> None:
        """The executor is done with it: tell what is not told yet, give the events their plain id back."""
        if self.remote and events:
            self._take(getattr(events[0].job_id, "carries", ()))
        for place, event in enumerate(events):
            event.job_id = self.job.id
            if not self.runs[place].ended:
                _believe(self.runs[place], event)
        self.close()

    def abandon(self, error: BaseException) -> None:
        """The executor lost it, or never took it: its runs end without having come to their end."""
        if self.remote:
            self.tap.watch.starts.drain()
        with self.tap.watch.lock:
            for run in self.runs:
                # a function that runs on in a thread, though nobody waits for it any more, tells its own end
                if not run.ended and (run.started is None or self.remote):
                    _lose(run, error, self.remote)
        self.close()

    def hear(self, place: int, started: float, duration: float, pid: int) -> None:
        """A process-pool child says that a run has begun, or that it succeeded."""
        with self.tap.watch.lock:
            run = self.runs[place]
            if run.ended:
                return
            if run.started is None:
                run.started, run.worker = started, f"{this_instance().split(':')[0]}:{pid}"
                run.watch.emit(Moment(run, "started", started, started))
            if duration >= 0:
                _finish(run, duration)

    def _take(self, reports: Iterable[Report]) -> None:
        with self.tap.watch.lock:
            for report in reports:
                self.hear(report.place, report.started, -1.0, report.pid)
                run = self.runs[report.place]
                if not run.ended:
                    _finish(run, report.duration, report.reason, report.error)


class Awaited(Submission):
    """The same of a coroutine function, in an executor that awaits it."""

    __slots__ = ()

    async def func(self, *args: Any, **kwargs: Any) -> Any:
        """The job's function, followed."""
        run, token = self._begin()
        try:
            result = await self.job.func(*args, **kwargs)
        except BaseException as error:
            self._end(run, error)
            raise
        else:
            self._end(run, None)
            return result
        finally:
            leave(token)


def _finish(run: Tracked, duration: float, reason: str = "", error: Error | None = None) -> None:
    """It ran to its end; `reason` says why it failed."""
    run.ended, started = True, run.started
    status: Status = "failed" if reason else "success"
    run.watch.emit(Moment(run, status, (started or 0.0) + duration, started, duration, reason, error))


def _believe(run: Tracked, event: Any) -> None:
    """Only the event is known: the run was left out, or the executor has ways of its own to call."""
    if event.code == EVENT_JOB_MISSED:
        _tell_end(run, "skipped", "misfire")
    elif event.code == EVENT_JOB_ERROR:
        _tell_end(run, "failed", reason_of(event.exception), describe(event.exception))
    else:
        _tell_end(run, "success")


def _lose(run: Tracked, error: BaseException, remote: bool) -> None:
    """It will not come to its end."""
    reason = reason_of(error)
    if reason == "cancelled" and run.started is None:
        _tell_end(run, "skipped", reason)
        return
    if isinstance(error, BrokenExecutor) or (remote and run.started is not None):
        reason = "worker_lost"
    _tell_end(run, "failed", reason, describe(error))


def _tell_end(run: Tracked, status: Status, reason: str = "", error: Error | None = None) -> None:
    """An end of which only this moment is known."""
    run.ended = True
    run.watch.emit(Moment(run, status, time.time(), run.started, None, reason, error))
