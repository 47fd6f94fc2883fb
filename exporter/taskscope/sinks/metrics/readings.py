"""The series of readings: schedulers, queues, workers, triggers; none older than its time to live."""

from collections import Counter
from collections.abc import Mapping

from taskscope.checks import backlog_limit
from taskscope.events import Job, JobKey, QueueState, SchedulerState, WorkerState
from taskscope.live import Live
from taskscope.live_job import LiveJob
from taskscope.rules import MAX_AGE, queue_rule
from taskscope.settings import Settings
from taskscope.sinks.metrics.catalog import TRIGGER_STATES
from taskscope.sinks.metrics.form import Labels
from taskscope.sinks.metrics.series import Family


class Snapshot:
    """The readings of one moment; the caller holds the lock of `Live`."""

    def __init__(self, live: Live, oldest: float) -> None:
        self.schedulers = [reading for reading in live.schedulers.values() if reading.at >= oldest]
        self.queues = [reading for reading in live.queues.values() if reading.at >= oldest]
        self.workers = [reading for reading in live.workers.values() if reading.at >= oldest]
        self.jobs_read_at = dict(live.read_at)
        self.departed = set(live.departed)
        self.queued, self.tell_queued = live.queued.count(), set(live.queued.schedulers)
        self.oldest = oldest

    def known(self) -> set[str]:
        """The schedulers that were ever heard of, so far as their readings are kept."""
        return {*self.jobs_read_at, *(reading.scheduler for reading in self.schedulers)}


class ReadingSeries:
    """Writes the families of readings. The caller holds the lock of the families."""

    def __init__(self, families: Mapping[str, Family], settings: Settings) -> None:
        self._families, self._settings = families, settings
        self._states: dict[JobKey, tuple[str, ...]] = {}
        self._triggers: Counter[Labels] = Counter()
        self._read_at: dict[Labels, float] = {}

    def adopt(self, settings: Settings) -> None:
        """Go by what these settings say of queues."""
        self._settings = settings

    def jobs(self) -> set[JobKey]:
        """The jobs that have triggers."""
        return set(self._states)

    def define(self, key: JobKey, definition: Job | None) -> None:
        """A job's triggers are these now; None when it has left."""
        new = tuple(trigger.state for trigger in definition.triggers) if definition else ()
        old = self._states.pop(key, ())
        if new:
            self._states[key] = new
        if new != old:
            self._triggers.subtract((key[0], state) for state in old)
            self._triggers.update((key[0], state) for state in new)

    def show(self, now: Snapshot) -> None:
        """Export these readings and no older ones."""
        self._show_triggers(now)
        self._show_schedulers(now.schedulers)
        self._show_queues(now.queues)
        self._show_queued(now)
        self._show_workers(now.workers)
        self._show_ages(now)

    def _show_triggers(self, now: Snapshot) -> None:
        fresh = [scheduler for scheduler, at in now.jobs_read_at.items() if at >= now.oldest]
        wanted: dict[Labels, float] = {
            (scheduler, state): 0.0 for scheduler in fresh for state in TRIGGER_STATES
        }
        for (scheduler, state), count in self._triggers.items():
            if count and scheduler in fresh:
                wanted[scheduler, state] = float(count)
        self._families["triggers"].keep(wanted)

    def _show_schedulers(self, readings: list[SchedulerState]) -> None:
        self._keep("scheduler_up", {(reading.scheduler,): reading.up for reading in readings})
        self._keep("scheduler_running", {(reading.scheduler,): reading.running for reading in readings})
        self._keep("runs_unseen_total", {(reading.scheduler,): reading.unseen for reading in readings})

    def _show_queues(self, readings: list[QueueState]) -> None:
        messages: dict[Labels, float | None] = {}
        for reading in readings:
            key: Labels = (reading.scheduler, reading.queue)
            messages |= {(*key, state): getattr(reading, state) for state in _MESSAGES}
        self._keep("queue_messages", messages)
        self._keep("queue_consumers", {(r.scheduler, r.queue): r.consumers for r in readings})
        oldest: dict[Labels, float | None] = {(r.scheduler, r.queue): r.oldest for r in readings}
        self._keep("queue_oldest_message_timestamp_seconds", oldest)
        self._show_limits(readings)

    def _show_queued(self, now: Snapshot) -> None:
        """Of queues that are read, to be held beside what is in them."""
        told = [(r.scheduler, r.queue) for r in now.queues if r.scheduler in now.tell_queued]
        self._keep("runs_queued", {key: now.queued[key] for key in told})

    def _show_limits(self, readings: list[QueueState]) -> None:
        """What the settings allow each queue, so that nobody has to edit a rule."""
        rules = {(r.scheduler, r.queue): queue_rule(self._settings, r.scheduler, r.queue) for r in readings}
        backlogs: dict[Labels, float | None] = {key: backlog_limit(self._settings, *key) for key in rules}
        ages: dict[Labels, float | None] = {
            key: (rule and rule.max_age) or MAX_AGE for key, rule in rules.items()
        }
        self._keep("queue_limit_messages", backlogs)
        self._keep("queue_limit_age_seconds", ages)
        info = self._families["queue_info"]
        info.keep({(*key, rule.team, rule.severity): 1.0 for key, rule in rules.items() if rule})

    def _show_workers(self, readings: list[WorkerState]) -> None:
        counted = Counter((reading.scheduler, "up" if reading.up else "down") for reading in readings)
        schedulers = {reading.scheduler for reading in readings}
        self._keep("workers", {(s, state): counted[s, state] for s in schedulers for state in ("up", "down")})
        for name, field in _WORKER_FIELDS.items():
            self._keep(name, {(r.scheduler, r.worker): getattr(r, field) for r in readings})

    def _show_ages(self, now: Snapshot) -> None:
        """Ages have no time to live: they say how old a reading is that is no longer exported."""
        for scheduler, at in now.jobs_read_at.items():
            self._read_at[scheduler, "jobs"] = at
        for kind, readings in (("scheduler", now.schedulers), ("queue", now.queues), ("worker", now.workers)):
            for reading in readings:
                key = (reading.scheduler, kind)
                self._read_at[key] = max(reading.at, self._read_at.get(key, 0.0))
        self._read_at = {key: at for key, at in self._read_at.items() if key[0] not in now.departed}
        self._families["reading_timestamp_seconds"].keep(self._read_at)

    def _keep(self, name: str, wanted: Mapping[Labels, float | None]) -> None:
        known = {labels: float(value) for labels, value in wanted.items() if value is not None}
        self._families[name].keep(known)


def current(job: LiveJob | None) -> Job | None:
    """The definition of a job that its scheduler has now."""
    return job.definition if job and not job.state.removed else None


_MESSAGES = ("ready", "in_flight", "scheduled", "deferred", "failed")
_WORKER_FIELDS = {
    "worker_up": "up",
    "worker_active_runs": "active",
    "worker_slots": "slots",
    "worker_reserved_runs": "reserved",
    "worker_resident_memory_bytes": "memory_bytes",
    "worker_threads": "threads",
    "worker_cpu_seconds_total": "cpu_seconds",
}
