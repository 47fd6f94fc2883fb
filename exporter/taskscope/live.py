"""What is true right now, folded from events as they arrive: never waits for the store.

Facts are folded by their own time, so repetition and delay are harmless. Readings carry their age and are gone past
their time to live; memories and promises (`JobState`) leave only with their job.
"""

import threading
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar

from taskscope import identity
from taskscope.counts import JobState
from taskscope.events import (
    Defined,
    Departure,
    Event,
    Fact,
    Heartbeat,
    Job,
    JobKey,
    Jobs,
    QueueState,
    Removed,
    SchedulerState,
    WorkerState,
)
from taskscope.facts import Row
from taskscope.inherited import Inherited, common
from taskscope.live_job import LiveJob
from taskscope.queued import Queued, RunKey

_MEMORY = 10_000  # at least so many ended runs are remembered: a start told late must not look like a run in progress


class Live:
    """The present of all schedulers. Written by the pipeline's thread; readers take `lock`."""

    def __init__(self, job_ttl: float = 3600.0, reading_ttl: float = 60.0) -> None:
        self.lock = threading.RLock()
        self.jobs: dict[JobKey, LiveJob] = {}
        self.schedulers: dict[str, SchedulerState] = {}
        self.belonging: dict[str, dict[str, str]] = {}
        """The labels of each scheduler as it said last, also when its reading is gone: its findings are not."""
        self.queues: dict[tuple[str, str], QueueState] = {}
        self.workers: dict[tuple[str, str], WorkerState] = {}
        self.queued = Queued()
        self.read_at: dict[str, float] = {}
        """When each scheduler's jobs were last read."""
        self.departed: set[str] = set()
        """Schedulers that are watched no more."""
        self.departures = 0
        """Rises whenever jobs left, were removed, or were only remembered."""
        self._dirty: dict[str, set[JobKey]] = {"metrics": set(), "store": set()}
        self._touched: set[JobKey] = set()
        self._ended: set[RunKey] = set()
        self._ended_before: set[RunKey] = set()
        self._strays: dict[RunKey, JobKey] = {}
        """Runs that were in progress when names of jobs changed: they may end under another name."""
        self._inherited = Inherited()
        self._job_ttl = job_ttl
        self._reading_ttl = reading_ttl

    def restore(self, states: Mapping[JobKey, JobState], in_progress: Collection[Row] = ()) -> None:
        """Take up what the store kept of jobs and of runs in progress, also beside what was folded meanwhile."""
        with self.lock:
            for key, state in states.items():
                self._job(key, state.first_seen).remember(state)
            told = self._told() if in_progress else frozenset()
            for row in in_progress:
                if identity.key(row.id) not in told:
                    started = row.started / 1000
                    self._job(row.job_key, started).running[self._inherited.add(row)] = started
            self.departures += 1

    def inherited(self) -> list[bytes]:
        """Runs in progress of which only the store has told: they may end where it is not heard here."""
        with self.lock:
            return self._inherited.ids

    def disinherit(self, ids: Iterable[bytes]) -> None:
        """These of them are in progress no more."""
        with self.lock:
            for id_ in ids:
                self._leave(self._inherited.drop(id_))

    def labels(self) -> dict[str, dict[str, str]]:
        """What each scheduler belongs to."""
        with self.lock:
            return dict(self.belonging)

    def resumed(self) -> dict[JobKey, int]:
        """When jobs were resumed that had been paused, in ms."""
        with self.lock:
            return {key: round(job.resumed * 1000) for key, job in self.jobs.items() if job.resumed}

    def fold(self, events: Iterable[Event]) -> None:
        """Take in events as they arrive."""
        with self.lock:
            for event in events:
                self._folds[type(event)](self, event)

    def changed(self, reader: str = "metrics") -> dict[JobKey, LiveJob | None]:
        """The jobs that changed since this reader's last call; None for one that has left."""
        with self.lock:
            self._share()
            dirty, self._dirty[reader] = self._dirty[reader], set()
            return {key: self.jobs.get(key) for key in dirty}

    def recall(self) -> None:
        """Names and descriptions of jobs may change from now on: everything is shown anew."""
        with self.lock:
            self._dirty["metrics"].update(self.jobs)
            self._strays = {run: key for key, job in self.jobs.items() for run in job.running}

    def lose(self, rows: Sequence[Row], now: float) -> None:
        """The process of these runs is gone. Some were told here and are known by other names than their ids."""
        told_here = self._in_progress({row.job_key for row in rows})
        self.fold(
            _lost(row, *told_here.get(identity.key(row.id), ("", identity.text(row.id), 0)), now)
            for row in rows
        )

    def alive(self, key: JobKey) -> bool:
        """Was this job heard of, and does its scheduler still have it? Needs no lock."""
        job = self.jobs.get(key)
        return job is not None and job.heard and not job.state.removed

    def lists(self, key: JobKey, now: float) -> bool:
        """Has its scheduler said just now that it has this job? The caller holds the lock."""
        read_at = self.read_at.get(key[0], 0.0)
        job = self.jobs[key]
        return now - read_at <= self._reading_ttl and job.defined < read_at and not job.state.removed

    def expire(self, now: float) -> None:
        """Let go of jobs which their scheduler removed long ago, and of readings past their time to live."""
        with self.lock:
            for key, job in list(self.jobs.items()):
                at_work = job.running.keys() - self._strays.keys()
                if job.state.removed and now - job.state.removed > self._job_ttl and not at_work:
                    del self.jobs[key]
                    self.departures += 1
                    self._touched.add(key)
            self._share()
            for dirty in self._dirty.values():
                if len(dirty) > len(self.jobs) + _MEMORY:  # a reader that does not ask
                    dirty.intersection_update(self.jobs)
            for readings in (self.schedulers, self.queues, self.workers):
                _drop_old(readings, now - self._reading_ttl)
            known = self.schedulers.keys() | {scheduler for scheduler, _ in self.jobs}
            self.belonging = {name: labels for name, labels in self.belonging.items() if name in known}
            self.queued.expire(now)

    def _in_progress(self, jobs: Iterable[JobKey]) -> dict[bytes, RunKey]:
        """The runs in progress of these jobs, by what every id of a run has in common."""
        with self.lock:
            known = [self.jobs[job] for job in jobs if job in self.jobs]
            return {common(run): run for job in known for run in job.running}

    def _told(self) -> frozenset[bytes]:
        """The runs that this process was told of: they are known, or over."""
        running = (run for job in self.jobs.values() for run in job.running)
        return frozenset(map(common, chain(running, self._ended, self._ended_before)))

    def _leave(self, inherited: tuple[JobKey, RunKey] | None) -> None:
        """A run that was inherited is in progress no more, or under its own name."""
        if inherited is not None and inherited[0] in self.jobs:
            self._job(inherited[0], 0.0).running.pop(inherited[1], None)

    def _job(self, key: JobKey, now: float) -> LiveJob:
        job = self.jobs.get(key)
        if job is None:
            job = self.jobs[key] = LiveJob(JobState(first_seen=now))
        self._touched.add(key)
        return job

    def _share(self) -> None:
        """What was touched is news to every reader."""
        for dirty in self._dirty.values():
            dirty |= self._touched
        self._touched.clear()

    def _fold_fact(self, fact: Fact) -> None:
        run = (fact.scheduler, fact.native, fact.attempt)
        if fact.status != "queued" or fact.instance:  # which has taken it already
            self.queued.drop(run)
        if not fact.job:
            return
        job = self._job((fact.scheduler, fact.job), fact.at)
        job.heard, job.queue = True, job.queue or fact.queue
        job.state.first_seen = min(job.state.first_seen, fact.at)  # a history may be told newest first
        if fact.captured is not None or fact.started == 0:
            return  # a run that is known to have begun, but not since when
        if fact.status == "started":
            self._leave(self._inherited.take(run))
            if not self._has_ended(run):
                job.running[run] = fact.started or fact.at
            job.state.last_run = max(job.state.last_run, fact.started or fact.at)
        elif fact.status != "queued":
            self._end(job, run, fact)
        elif not fact.instance and run not in job.running and not self._has_ended(run):
            self.queued.add(run, fact)

    def _has_ended(self, run: RunKey) -> bool:
        return run in self._ended or run in self._ended_before

    def _end(self, job: LiveJob, run: RunKey, fact: Fact) -> None:
        job.running.pop(run, None)
        self._leave(self._inherited.take(run))
        if self._strays and (key := self._strays.pop(run, None)) in self.jobs:
            self._job(key, fact.at).running.pop(run, None)
        self._ended.add(run)
        if len(self._ended) > _MEMORY:
            self._ended, self._ended_before = set(), self._ended
        state, at = job.state, fact.at
        if fact.started and fact.started > state.last_run:
            state.last_run = fact.started
        if fact.duration is not None and at >= state.last_success and at >= state.last_failure:
            state.last_duration = fact.duration
        if fact.status == "success":
            job.succeed(at)
        elif fact.status in ("failed", "unknown"):
            job.fail(run, at)

    def _fold_jobs(self, reading: Jobs) -> None:
        known: dict[JobKey, list[Job]] = {}
        for definition in reading.jobs:
            known.setdefault((reading.scheduler, definition.name), []).append(definition)
        for key, definitions in known.items():
            job = self._job(key, reading.at)
            if reading.at >= job.state.removed:  # else it was read before, and comes late
                job.define(definitions, reading.at)
        self.read_at[reading.scheduler] = reading.at
        if reading.complete:
            self._remove(reading.scheduler, reading.at, known)
        else:
            self._leave_undefined(reading.scheduler, known)

    def _remove(self, scheduler: str, at: float, but: Container[JobKey] = ()) -> None:
        """Its scheduler has these jobs no more."""
        for key, job in self.jobs.items():
            if key[0] == scheduler and key not in but and not job.state.removed:
                self._let_go(key, job, at)

    def _let_go(self, key: JobKey, job: LiveJob, at: float) -> None:
        """Its scheduler no longer has it."""
        job.state.removed, job.state.next_run, job.abnormal = at, 0.0, {}
        self.departures += 1
        self._touched.add(key)

    def _leave_undefined(self, scheduler: str, but: Container[JobKey]) -> None:
        """Its scheduler promises nothing of these jobs any more; they go on being its jobs."""
        for key, job in self.jobs.items():
            if key[0] == scheduler and key not in but and (job.definition or job.state.next_run):
                job.definition, job.state.next_run, job.state.interval, job.abnormal = None, 0.0, 0.0, {}
                self._touched.add(key)

    def _fold_defined(self, reading: Defined) -> None:
        """Told by each run: one that comes late, from a spool, says nothing new."""
        job = self._job((reading.scheduler, reading.job.name), reading.at)
        if reading.at >= max(job.defined, job.state.last_run, job.state.removed):
            job.defined = reading.at
            job.define([reading.job], reading.at)

    def _fold_removed(self, event: Removed) -> None:
        job = self.jobs.get((event.scheduler, event.job))
        if job is not None and not job.state.removed and event.at >= job.defined:
            self._let_go((event.scheduler, event.job), job, event.at)

    def _fold_scheduler(self, reading: SchedulerState) -> None:
        self.schedulers[reading.scheduler] = reading
        self.belonging[reading.scheduler] = reading.labels
        self.departed.discard(reading.scheduler)
        if not reading.up:
            self._rest(reading.scheduler)

    def _rest(self, scheduler: str) -> None:
        """It is down, and may tell no more of its jobs: where nothing runs, no trigger executes or is blocked."""
        for key, job in self.jobs.items():
            if key[0] == scheduler and not job.running and job.rest():
                self._touched.add(key)

    def _fold_queue(self, reading: QueueState) -> None:
        self.queues[reading.scheduler, reading.queue] = reading

    def _fold_worker(self, reading: WorkerState) -> None:
        self.workers[reading.scheduler, reading.worker] = reading

    def _fold_departure(self, departure: Departure) -> None:
        name = departure.scheduler
        self._remove(name, departure.at)
        self.queued.leave(name)
        self.schedulers.pop(name, None)
        self.read_at.pop(name, None)
        self.departed.add(name)
        self.queues = {key: queue for key, queue in self.queues.items() if key[0] != name}
        self.workers = {key: worker for key, worker in self.workers.items() if key[0] != name}

    def _fold_heartbeat(self, event: Heartbeat) -> None:
        """Whose runs are lost is for the store to say."""

    _folds: ClassVar[dict[type, Any]] = {
        Departure: _fold_departure,
        Fact: _fold_fact,
        Jobs: _fold_jobs,
        Defined: _fold_defined,
        Removed: _fold_removed,
        Heartbeat: _fold_heartbeat,
        SchedulerState: _fold_scheduler,
        QueueState: _fold_queue,
        WorkerState: _fold_worker,
    }


def _lost(row: Row, _: str, native: str, attempt: int, now: float) -> Fact:
    return Fact(  # dated by its start: a success since then is the newer truth
        scheduler=row.scheduler,
        native=native,
        attempt=attempt,
        status="unknown",
        at=(row.started or row.enqueued) / 1000 or now,
        job=row.job,
        reason="lost",
    )


def _drop_old(readings: dict[Any, Any], before: float) -> None:
    for key in [key for key, reading in readings.items() if reading.at < before]:
        del readings[key]
