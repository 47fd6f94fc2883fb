"""Follows every run of an APScheduler, from its submission to its end."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
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

from apscheduler.events import EVENT_ALL_JOBS_REMOVED, EVENT_JOB_REMOVED

from taskscope.bridges._apscheduler_child import Likeness, Report, RunTimes, carrying, in_child
from taskscope.bridges._apscheduler_jobs import Gap
from taskscope.bridges._apscheduler_starts import Starts
from taskscope.bridges._apscheduler_tracked import Tracked, skipped
from taskscope.bridges._quiet import quiet
from taskscope.contracts import Emit, Told
from taskscope.failure import describe, reason_of
from taskscope.instance import instance as this_instance
from taskscope.run import Making, enter, leave

_MERGED = 1_000  # submissions that others were merged into, until they are told
_NEWS = 100_000  # runs that have changed, until that is told
_COALESCED = 1_000  # merged runs of one submission that are told


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
        self._news: deque[Tracked] = deque(maxlen=_NEWS)
        self._announced = False
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

    def note_run(self, run: Tracked) -> None:
        """Take note that a run waits, or has begun. Most have ended before it is told, and their end says all."""
        self._news.append(run)
        if not self._announced:
            self._announced = True
            self.emit(self._tell_news)

    def _tell_news(self) -> None:
        """Tell what is still true of the runs noted, on a thread of ours."""
        self._announced = False
        with suppress(IndexError):  # all are told, perhaps by another thread
            while True:
                run = self._news.popleft()
                run.told = True  # before it is looked at: if it begins now, it is noted again
                if not run.ended:
                    self.emit(run.present())

    def skip(self, job: Any, times: Iterable[datetime], reason: str, at: float | None = None) -> None:
        """Tell runs that will not be, by default as of now."""
        now = at or time.time()
        for due in times:
            run = Tracked(self, job.executor, job, due, next(self.numbers), now)
            self.emit(partial(skipped, run, reason))

    def merge(self, job: Any, gap: Gap) -> None:
        """Take note that these runs will not be; `catch_up` tells them, soon and on a thread of ours."""
        self._merged.append((job, gap, time.time()))
        self._changed()

    def _catch_up(self) -> None:
        """Tell what waits to be told, also after a full queue had no room for the announcement; of the runs that were
        left out in favour of later ones the first 1,000 of each time."""
        self._tell_news()
        with suppress(IndexError):  # all are told, perhaps by another thread
            while True:
                job, gap, at = self._merged.popleft()
                self.skip(job, gap.times(_COALESCED), "coalesced", at)

    def send_away(self, submission: "Submission") -> int:
        """A number by which a process-pool child can speak of this submission."""
        number = next(self.numbers)
        self._away[number] = submission
        return number

    def note(self, event: Any) -> None:
        """Remember nothing of jobs that the scheduler removed."""
        if event.code == EVENT_JOB_REMOVED:
            self.previous.pop((event.jobstore, event.job_id), None)
            self.refused.pop((event.jobstore, event.job_id), None)
        elif event.code == EVENT_ALL_JOBS_REMOVED:
            for memory in (self.previous, self.refused):
                for key in [key for key in list(memory) if event.alias in (None, key[0])]:
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


def _ignore(told: Told) -> None:
    """Nobody wants to know any more."""


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
            self._fail(run, error)
            raise
        else:
            run.finish(time.perf_counter() - run.begun)
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
            self.tap.watch.note_run(run)

    def close(self) -> None:
        """The executor has reported it back, or nobody wants to know any more."""
        self.id = self.job.id
        self.tap.open.discard(self)

    def _begin(self) -> tuple[Tracked, Token[Making | None]]:
        """A run begins, in this process."""
        run = self.runs[self.times.current if type(self.times) is RunTimes else 0]
        if not run.ended:
            run.begin(time.time())
        token = enter(run)
        run.begun = time.perf_counter()
        return run, token

    def _fail(self, run: Tracked, error: BaseException) -> None:
        """A run has failed, in this process."""
        duration = time.perf_counter() - run.begun
        if not run.ended:
            run.finish(duration, reason_of(error), describe(error, skip=1))

    def settle(self, events: Sequence[Any]) -> None:
        """The executor is done with it: tell what is not told yet, give the events their plain id back."""
        if self.remote and events:
            self._take(getattr(events[0].job_id, "carries", ()))
        for place, event in enumerate(events):
            event.job_id = self.job.id
            if not self.runs[place].ended:
                self.runs[place].believe(event)
        self.close()

    def abandon(self, error: BaseException) -> None:
        """The executor lost it, or never took it: its runs end without having come to their end."""
        if self.remote:
            self.tap.watch.starts.drain()
        with self.tap.watch.lock:
            for run in self.runs:
                # a function that runs on in a thread, though nobody waits for it any more, tells its own end
                if not run.ended and (run.started is None or self.remote):
                    run.lose(error, self.remote)
        self.close()

    def hear(self, place: int, started: float, duration: float, pid: int) -> None:
        """A process-pool child says that a run has begun, or that it succeeded."""
        with self.tap.watch.lock:
            run = self.runs[place]
            if run.ended:
                return
            if run.started is None:
                run.worker = f"{this_instance().split(':')[0]}:{pid}"
                run.begin(started)
            if duration >= 0:
                run.finish(duration)

    def _take(self, reports: Iterable[Report]) -> None:
        with self.tap.watch.lock:
            for report in reports:
                self.hear(report.place, report.started, -1.0, report.pid)
                run = self.runs[report.place]
                for fact in report.told:
                    run.tell(fact)
                if not run.ended:
                    run.finish(report.duration, report.reason, report.error)


class Awaited(Submission):
    """The same of a coroutine function, in an executor that awaits it."""

    __slots__ = ()

    async def func(self, *args: Any, **kwargs: Any) -> Any:
        """The job's function, followed."""
        run, token = self._begin()
        try:
            result = await self.job.func(*args, **kwargs)
        except BaseException as error:
            self._fail(run, error)
            raise
        else:
            run.finish(time.perf_counter() - run.begun)
            return result
        finally:
            leave(token)
