"""Watches an APScheduler 3: every scheduler class, executor and job store of it."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from threading import RLock
from typing import TYPE_CHECKING, Any

from taskscope.contracts import Bridge, Emit
from taskscope.errors import BadArgument
from taskscope.events import Job, Jobs, QueueState, Reading, SchedulerState

if TYPE_CHECKING:  # these import APScheduler
    from taskscope.bridges._apscheduler_hooks import Tap
    from taskscope.bridges._apscheduler_jobs import Definitions
    from taskscope.bridges._apscheduler_runs import Watch

_STATES = ("stopped", "running", "paused")


class APSchedulerBridge(Bridge):
    """Hooks the executors of one scheduler object, and reads its jobs."""

    system = "apscheduler"
    targets = ("apscheduler.schedulers.base.BaseScheduler",)

    def __init__(self, target: Any, name: str) -> None:
        self._scheduler, self._name = target, name
        self._watch: Watch | None = None
        self._taps: list[Tap] = []
        self._lock = RLock()
        self._was_up = self._reads = False
        self._definitions: Definitions | None = None

    def attach(self, emit: Emit) -> None:
        """Hook every executor, those to come too. Raises `BadArgument` if it is being watched already."""
        from taskscope.bridges._apscheduler_runs import Watch

        listeners = [listener for listener, _ in list(self._scheduler._listeners)]
        if any(isinstance(getattr(listener, "__self__", None), APSchedulerBridge) for listener in listeners):
            raise BadArgument(
                f"the scheduler given as {self._name!r} is being watched already; close that Exporter before"
            )
        with self._lock:
            self._watch = Watch(self._name, emit, self.instance, self._changed)
            self._scheduler.add_listener(self._happened, _interesting())
            self._tap_executors()

    def detach(self) -> None:
        """Take out every hook and the listener, end the thread."""
        with self._lock:
            watch, self._watch = self._watch, None
            if watch is None:
                return
            watch.catch_up()
            watch.stop()
            self._scheduler.remove_listener(self._happened)
            while self._taps:
                self._taps.pop().remove()
            self._definitions = None
        watch.starts.close()

    def abandon(self) -> None:
        """In a forked child: take the hooks out, around locks that threads of the parent held at the fork."""
        watch, self._watch = self._watch, None
        self._lock, self.on_change, self._definitions = RLock(), None, None
        if watch is None:
            return
        watch.abandon()
        scheduler = self._scheduler
        scheduler._listeners = [entry for entry in scheduler._listeners if entry[0] != self._happened]
        for tap in self._taps:
            tap.remove()
        self._taps = []
        if self._reads:  # it was we who held the lock, on a thread that is not here to let it go
            self._reads, scheduler._jobstores_lock = False, scheduler._create_lock()

    def poll(self) -> Iterable[Reading]:
        """State, jobs, and executors' queues; the jobs of a scheduler that went down stay as they were."""
        watch = self._watch
        if watch is None:
            return []
        self._tap_executors()
        watch.catch_up()
        at = time.time()
        readings: list[Reading] = [self._state(watch, at)]
        if self._scheduler.running or not self._was_up:
            readings.append(Jobs(scheduler=self._name, at=at, jobs=self._jobs(watch)))
        else:
            self._definitions = None
        return [*readings, *(self._queue(tap, at) for tap in list(self._taps))]

    def _happened(self, event: Any) -> None:
        """A listener of the scheduler; it runs on the program's threads and only takes note."""
        watch = self._watch
        if watch is None:
            return
        watch.note(event)
        if not hasattr(event, "job_id"):  # about the scheduler or its executors, which is rare
            self._was_up = self._was_up or self._scheduler.running
            self._tap_executors()
        self._changed()

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()

    def _tap_executors(self) -> None:
        """Hook executors that are new; let go of removed ones when their last run has ended."""
        from taskscope.bridges._apscheduler_hooks import Tap

        with self._lock:
            if self._watch is None:
                return
            present = dict(self._scheduler._executors)
            for tap in list(self._taps):
                if present.get(tap.alias) is tap.executor:
                    del present[tap.alias]
                elif not tap.open:
                    tap.remove()
                    self._taps.remove(tap)
            self._taps += [Tap(executor, alias, self._watch) for alias, executor in present.items()]

    def _state(self, watch: "Watch", at: float) -> SchedulerState:
        scheduler = self._scheduler
        self._was_up = self._was_up or scheduler.running
        up = scheduler.running and _is_driven(scheduler)
        return SchedulerState(
            scheduler=self._name,
            system=self.system,
            at=at,
            up=up,
            running=up and _STATES[scheduler.state] == "running",
            summary=tuple(self._summary(watch)),
        )

    def _summary(self, watch: "Watch") -> Iterator[str]:
        scheduler = self._scheduler
        executors = (f"{tap.alias} ({_class(tap.executor)}{_size(tap.executor)})" for tap in list(self._taps))
        stores = (f"{alias} ({_class(store)})" for alias, store in dict(scheduler._jobstores).items())
        yield f"{self._name}: {_class(scheduler)}, {_STATES[scheduler.state]}, time zone {scheduler.timezone}"
        yield f"Executors: {', '.join(executors) or 'none yet'}"
        yield f"Job stores: {', '.join(stores) or 'none yet'}"
        yield f"Runs submitted since it is watched: {watch.submitted}"

    def _jobs(self, watch: "Watch") -> tuple[Job, ...]:
        from taskscope.bridges._apscheduler_jobs import Definitions, Situation

        running, stores = self._running(), dict(self._scheduler._jobstores)
        if self._definitions is None:
            self._definitions = Definitions()

        def situation(job: Any) -> Situation:
            store = job._jobstore_alias or ""
            key = (store, job.id)
            return Situation(
                store=store,
                durable=_class(stores[store]) != "MemoryJobStore" if store in stores else None,
                defaults=self._scheduler._job_defaults,
                running=running[key],
                previous=_seconds(watch.previous.get(key)),
                refused=_seconds(watch.refused.get(key)),
            )

        return self._definitions.read(self._stored(), situation)

    def _stored(self) -> list[Any]:
        """All jobs by the scheduler's own API; no store is changed by it."""
        from taskscope.bridges._apscheduler_stores import sparing

        scheduler = self._scheduler
        with scheduler._jobstores_lock, sparing(scheduler._jobstores.values()):
            self._reads = True
            try:
                jobs: list[Any] = scheduler.get_jobs()
            finally:
                self._reads = False
        return jobs

    def _running(self) -> Counter[tuple[str, str]]:
        """How many submissions of each job are being executed."""
        submissions = [submission for tap in list(self._taps) for submission in list(tap.open)]
        return Counter(
            submission.key for submission in submissions if any(run.started for run in submission.runs)
        )

    def _queue(self, tap: "Tap", at: float) -> QueueState:
        runs = [
            (submission, run) for submission in list(tap.open) for run in submission.runs if not run.ended
        ]
        waiting = [submission.enqueued for submission, run in runs if run.started is None]
        return QueueState(
            scheduler=self._name,
            queue=tap.alias,
            at=at,
            ready=len(waiting),
            in_flight=len(runs) - len(waiting),
            oldest=min(waiting, default=None),
            consumers=_workers(tap.executor),
        )


def _interesting() -> int:
    from apscheduler import events

    mask: int = (
        events.EVENT_SCHEDULER_STARTED
        | events.EVENT_SCHEDULER_SHUTDOWN
        | events.EVENT_SCHEDULER_PAUSED
        | events.EVENT_SCHEDULER_RESUMED
        | events.EVENT_EXECUTOR_ADDED
        | events.EVENT_EXECUTOR_REMOVED
        | events.EVENT_JOBSTORE_ADDED
        | events.EVENT_JOBSTORE_REMOVED
        | events.EVENT_ALL_JOBS_REMOVED
        | events.EVENT_JOB_ADDED
        | events.EVENT_JOB_REMOVED
        | events.EVENT_JOB_MODIFIED
    )
    return mask


def _is_driven(scheduler: Any) -> bool:
    """Does anybody start its jobs? Its thread may have died, or stayed behind in a fork's parent."""
    thread, loop = getattr(scheduler, "_thread", None), getattr(scheduler, "_eventloop", None)
    return (thread is None or thread.is_alive()) and (loop is None or not loop.is_closed())


def _class(thing: Any) -> str:
    return type(thing).__qualname__


def _workers(executor: Any) -> int | None:
    """Threads or processes of its pool; None where it has none."""
    size = getattr(getattr(executor, "_pool", None), "_max_workers", None)
    return size if isinstance(size, int) else None


def _size(executor: Any) -> str:
    workers = _workers(executor)
    return f", {workers} workers" if workers else ""


def _seconds(moment: datetime | None) -> float:
    """Since the epoch; 0 for never, and for times before."""
    return max(0.0, moment.timestamp()) if moment else 0.0
