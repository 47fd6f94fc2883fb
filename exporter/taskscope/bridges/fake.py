"""A scripted scheduler, which says exactly what it is told to: for demos, tests and benchmarks."""

import time
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any, TypeAlias
from uuid import uuid4

import msgspec

from taskscope.bridges._quiet import quiet
from taskscope.contracts import Bridge, Emit
from taskscope.events import (
    Error,
    Fact,
    Job,
    Jobs,
    QueueState,
    Reading,
    SchedulerState,
    Status,
    Trigger,
    TriggerState,
)
from taskscope.failure import describe, reason_of
from taskscope.instance import instance

Tell: TypeAlias = "Callable[[FakeRun, Status, float, float | None, BaseException | None, str], None]"
"""Takes a run, its new status, since when it has that, how long it took, what it failed with, and why."""


class Clock:
    """A clock that goes only when told to; seconds since the epoch."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """The time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class FakeScheduler:
    """Jobs that run when the script says so."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.up = self.running = True
        self.poll_error: Exception | None = None
        """Raised to whoever asks how the scheduler is."""
        self.jobs: dict[str, FakeJob] = {}
        self.listeners: list[Tell] = []
        self.changed: list[Callable[[], None]] = []
        self.open: set[FakeRun] = set()
        self._id, self._numbers = uuid4().hex, count()

    def job(self, name: str, **definition: Any) -> "FakeJob":
        """Add a job, or define it anew; `definition` holds any fields of `taskscope.events.Job`."""
        job = self.jobs.setdefault(name, FakeJob(self, name))
        job.define(**definition)
        return job

    def remove(self, name: str) -> None:
        """Forget a job."""
        del self.jobs[name]
        self.note_change()

    def burst(self, runs: int, jobs: int = 10, fails_every: int = 0) -> None:
        """Tell `runs` whole runs of `jobs` jobs as fast as possible; every n-th fails."""
        scripts = [self.job(f"burst-{number}") for number in range(jobs)]
        error = RuntimeError("scripted failure")
        for number in range(1, runs + 1):
            fails = error if fails_every and number % fails_every == 0 else None
            scripts[number % jobs].past(fails=fails)

    def native(self) -> str:
        """An id that no other run has."""
        return f"{self._id}:{next(self._numbers)}"

    def note_change(self) -> None:
        """Let watchers know that a job is not as it was."""
        for changed in list(self.changed):
            changed()


class FakeJob:
    """A job of the script."""

    def __init__(self, scheduler: FakeScheduler, name: str) -> None:
        self.scheduler, self.name = scheduler, name
        self.definition = Job(name=name, key=name, queue="default")

    def define(self, **changes: Any) -> None:
        """Change fields of its definition."""
        self.definition = msgspec.structs.replace(self.definition, **changes)
        self.scheduler.note_change()

    def run(self, duration: float = 0.0, fails: BaseException | None = None) -> "FakeRun":
        """A whole run that began `duration` ago and ends now, well or with this exception."""
        now = self.scheduler.clock()
        return self.start(at=now - duration).end(duration, fails)

    def past(self, duration: float = 0.0, fails: BaseException | None = None) -> "FakeRun":
        """The same, told by its end alone, which says all of it."""
        run = FakeRun(self, self.scheduler.clock() - duration, self.scheduler.native())
        run.started = run.due
        return run.end(duration, fails)

    def queue(self, at: float | None = None) -> "FakeRun":
        """A run that waits."""
        due = self.scheduler.clock() if at is None else at
        return FakeRun(self, due, self.scheduler.native()).wait()

    def start(self, at: float | None = None) -> "FakeRun":
        """A run in progress."""
        return self.queue(at).start(at)

    def skip(self, reason: str) -> "FakeRun":
        """A run that was due and is left out: `misfire`, `overlap`, `coalesced` …"""
        return self.queue().skip(reason)


class FakeRun(msgspec.Struct, gc=False, eq=False):
    """One run of the script. The collector need not know of it: nothing leads back to it once it has ended."""

    job: FakeJob
    due: float
    native: str
    started: float | None = None
    ended: bool = False

    def wait(self) -> "FakeRun":
        """Wait to be executed."""
        self.job.scheduler.open.add(self)
        self._tell("queued", self.due)
        return self

    def start(self, at: float | None = None) -> "FakeRun":
        """Begin to execute it."""
        self.started = self.job.scheduler.clock() if at is None else at
        self._tell("started", self.started)
        return self

    def end(self, duration: float | None = None, fails: BaseException | None = None) -> "FakeRun":
        """End it, well or with this exception; `duration` is by default what the clock says."""
        now = self.job.scheduler.clock()
        started = now if self.started is None else self.started
        took = now - started if duration is None else duration
        if fails is None:
            return self._end("success", started + took, took)
        return self._end("failed", started + took, took, fails, reason_of(fails))

    def skip(self, reason: str) -> "FakeRun":
        """End it without having run."""
        return self._end("skipped", self.job.scheduler.clock(), reason=reason)

    def die(self) -> "FakeRun":
        """Its worker dies."""
        return self._end("failed", self.job.scheduler.clock(), reason="worker_lost")

    def _end(
        self,
        status: Status,
        at: float,
        duration: float | None = None,
        fails: BaseException | None = None,
        reason: str = "",
    ) -> "FakeRun":
        self.job.scheduler.open.discard(self)
        self.ended = True
        self._tell(status, at, duration, fails, reason)
        return self

    def _tell(
        self,
        status: Status,
        at: float,
        duration: float | None = None,
        fails: BaseException | None = None,
        reason: str = "",
    ) -> None:
        for listener in self.job.scheduler.listeners:
            listener(self, status, at, duration, fails, reason)


class FakeBridge(Bridge):
    """Watches a `FakeScheduler`."""

    system = "fake"
    scripted = True
    targets = ("taskscope.bridges.fake.FakeScheduler",)

    def __init__(self, target: FakeScheduler, name: str) -> None:
        self._target, self._name = target, name
        self._emit: Emit | None = None

    def attach(self, emit: Emit) -> None:
        """Hear of every run from now on."""
        self._emit = quiet(emit)
        self._target.listeners = [*self._target.listeners, self._tell]
        self._target.changed.append(self._changed)

    def detach(self) -> None:
        """Hear no more."""
        if self._emit is not None:
            self._emit = None
            self._target.listeners = [tell for tell in self._target.listeners if tell != self._tell]
            self._target.changed.remove(self._changed)

    def abandon(self) -> None:
        """Hear no more in a forked child."""
        self.detach()
        self.on_change = None

    def poll(self) -> Iterable[Reading]:
        """The script's jobs, queues and state."""
        target, at = self._target, self._target.clock()
        if target.poll_error:
            raise target.poll_error
        yield SchedulerState(
            scheduler=self._name,
            system=self.system,
            at=at,
            up=target.up,
            running=target.running,
            summary=("a script",),
        )
        yield Jobs(
            scheduler=self._name,
            at=at,
            jobs=tuple(self._defined(job.definition) for job in target.jobs.values()),
        )
        for queue in sorted({job.definition.queue for job in target.jobs.values()}):
            yield self._queue(queue, at)

    def _queue(self, queue: str, at: float) -> QueueState:
        runs = [run for run in list(self._target.open) if run.job.definition.queue == queue]
        waiting = [run.due for run in runs if run.started is None]
        oldest = min(waiting, default=None)
        return QueueState(
            scheduler=self._name,
            queue=queue,
            at=at,
            ready=len(waiting),
            in_flight=len(runs) - len(waiting),
            oldest=oldest,
        )

    def _defined(self, job: Job) -> Job:
        state: TriggerState = "PAUSED" if job.paused else "WAITING"
        triggers = (Trigger(key=job.key, state=state, next_run=job.next_run),)
        return job if job.triggers else msgspec.structs.replace(job, triggers=triggers)

    def _tell(
        self,
        run: FakeRun,
        status: Status,
        at: float,
        duration: float | None,
        fails: BaseException | None,
        reason: str,
    ) -> None:
        if self._emit is not None:
            who = self.instance or instance()
            error = None if fails is None else describe(fails)
            self._emit(_Moment(self._name, who, run, status, at, run.started, duration, reason, error))

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()


class _Moment(msgspec.Struct, gc=False, eq=False):
    """Something that happened to a run, which becomes a fact on a thread of ours."""

    scheduler: str
    instance: str
    run: FakeRun
    status: Status
    at: float
    started: float | None
    duration: float | None
    reason: str
    error: Error | None

    def __call__(self) -> Fact | None:
        """The fact; None where the run's end, which says all of it, has been told meanwhile."""
        run = self.run
        if run.ended and self.status in ("queued", "started"):
            return None
        return Fact(
            scheduler=self.scheduler,
            native=run.native,
            status=self.status,
            at=self.at,
            anchor=run.due,
            job=run.job.name,
            due=run.due,
            enqueued=run.due,
            started=self.started,
            duration=self.duration,
            reason=self.reason,
            queue=run.job.definition.queue,
            instance=self.instance,
            error=self.error,
        )
