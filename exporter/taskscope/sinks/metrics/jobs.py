"""The series of jobs: what was counted of them, and what is true of them now."""

from collections import OrderedDict
from collections.abc import Callable, Container, Mapping
from typing import TypeAlias

import msgspec

from taskscope.counts import OTHER, Counts, Exemplar, Histogram
from taskscope.events import Job, JobKey
from taskscope.live import Live
from taskscope.live_job import LiveJob
from taskscope.rules import rule_for
from taskscope.settings import JobRule, Settings
from taskscope.sinks.metrics.catalog import CATALOG, STATUSES, TRIGGER_EVENTS
from taskscope.sinks.metrics.form import Labels
from taskscope.sinks.metrics.guard import Guard
from taskscope.sinks.metrics.series import Family
from taskscope.sinks.metrics.spare import Spare

CORE = sum(len(metric.split[1]) if metric.split else 1 for metric in CATALOG if metric.core)
"""Series that every known job has."""

_HISTOGRAMS = {
    "duration": "run_duration_seconds",
    "wait": "run_queue_wait_seconds",
    "delay": "run_start_delay_seconds",
}
_REMEMBERED = 10_000  # jobs without series whose counts are kept: one that comes back goes on where it was
_HEARD = 100_000  # jobs of which is kept what their triggers did: it must not be added to the sum again

Held: TypeAlias = tuple[Family, Labels]


class View(msgspec.Struct, frozen=True):
    """What is true of a job at one moment."""

    gauges: dict[str, float]
    """By name; those that are missing are not exported."""
    definition: Job | None
    queue: str
    """That of its runs, where the definition names none."""
    abnormal: dict[str, float]
    """Since when a trigger is in a state that it should not be in."""


def view(job: LiveJob) -> View:
    """A copy of what is exported of a job; the caller holds the lock of `Live`."""
    state = job.state
    gauges = {
        "runs_in_progress": len(job.running),
        "run_oldest_in_progress_timestamp_seconds": min(job.running.values(), default=0.0),
        "job_last_run_timestamp_seconds": state.last_run,
        "job_last_success_timestamp_seconds": state.last_success,
        "job_last_failure_timestamp_seconds": state.last_failure,
        "job_last_duration_seconds": state.last_duration,
        "job_consecutive_failures": state.consecutive_failures,
        "job_interval_seconds": state.interval,
        "job_first_seen_timestamp_seconds": state.first_seen,
        "job_paused": float(state.paused),
    }
    if not state.paused:
        gauges["job_next_run_timestamp_seconds"] = state.next_run
    return View(gauges, job.definition, job.queue, job.abnormal)


class JobSeries:
    """Writes the families of jobs. The caller holds the lock of the families."""

    def __init__(self, families: Mapping[str, Family], guard: Guard, settings: Settings) -> None:
        self._families, self._guard, self._settings = families, guard, settings
        self._runs, self._triggers = families["runs_total"], families["trigger_events_total"]
        self._new_errors = families["new_errors_total"]
        self._gauges = [metric.name for metric in CATALOG if metric.core and metric.kind == "gauge"]
        self._info: dict[JobKey, Labels] = {}
        self._rules: dict[JobKey, JobRule | None] = {}
        self._held: dict[JobKey, list[Held]] = {}
        self._counted: dict[JobKey, Counts] = {}
        self._past: OrderedDict[JobKey, Counts] = OrderedDict()
        self._fired: OrderedDict[JobKey, list[float]] = OrderedDict()
        self._forgot = False
        self._counting = False
        self._live: Live | None = None
        self._admitted, self._extended = Spare(guard.jobs), Spare(self._held.keys)

    def follow(self, live: Live) -> None:
        """From now on jobs that are not alive give way to those that are, and those that left get no series."""
        self._live = live
        self._admitted.look_again()
        self._extended.look_again()

    def adopt(self, settings: Settings) -> None:
        """Forget what the user said about jobs: it is looked up in these settings when they are shown again."""
        self._settings = settings
        for key, rule in self._rules.items():
            if rule:
                self._withdraw(key, "job_limit_seconds")
        self._rules.clear()

    def admit(self, key: JobKey) -> bool:
        """May this job have series of its own? For one that is alive those that are not make room."""
        return self._find_room(key, lambda: self._guard.admit(key), self._admitted, self.leave)

    def begin(self) -> None:
        """From now on counters are exported: what was committed before is known.

        Earlier a counter would be born at 0 and then jump, which reads as runs that happened now.
        """
        if not self._counting:
            self._counting = True
            for key in self._guard.jobs():
                self._bear(key)

    def known(self, scheduler: str) -> None:
        """This scheduler is there: what its triggers did is exported, at 0."""
        if self._counting and (scheduler,) not in self._triggers.rows:
            self._triggers.put((scheduler,), *(0 for _ in TRIGGER_EVENTS))

    def rank(self, key: JobKey) -> int:
        """Who comes later when room is given and memories are kept: the gone, the remembered, the living."""
        return 0 if self._live is None else (key in self._live.jobs) + self._live.alive(key)

    def count(self, key: JobKey, counts: Counts) -> None:
        """Export these committed counts of a job; no number falls."""
        self._fire(key, counts.triggers)
        if self._left(key):
            self._retire(key, counts)
        elif self.admit(key):
            self._bear(key)
            self._export(key, counts)
        else:
            self._limited("runs_total")
            self._retire(key, counts)

    def point(self, key: JobKey, histogram: str, bucket: int, exemplar: Exemplar) -> None:
        """Let a bucket point to a run."""
        family = self._families[_HISTOGRAMS[histogram]]
        row = family.rows.get(key)
        if row is not None and bucket <= len(family.bounds):
            row.point(bucket, exemplar)

    def show(self, key: JobKey, seen: View) -> None:
        """Export what is true of a job now."""
        if key[1] == OTHER or not self.admit(key):
            return
        if self._counting:
            self._bear(key)
        for name in self._gauges:
            value = seen.gauges.get(name)
            if value is not None:
                self._families[name].put(key, value)
            elif name in _LEAVING:
                self._families[name].drop(key)
        self._describe(key, seen)
        self._warn(key, seen.abnormal)

    def leave(self, key: JobKey) -> None:
        """Take all series of a job away; what was counted of it is remembered for a while."""
        if key[1] == OTHER:
            return
        if counts := self._counted.pop(key, None):
            self._retire(key, counts)
        self._trim(key)
        for name in ("runs_total", "new_errors_total", *self._gauges):
            self._families[name].drop(key)
        if key in self._info:
            self._families["job_info"].drop(self._info.pop(key))
        self._guard.leave(key)

    def _left(self, key: JobKey) -> bool:
        return self._live is not None and key[1] != OTHER and key not in self._live.jobs

    def _find_room(
        self, key: JobKey, ask: Callable[[], bool], spare: Spare, yield_room: Callable[[JobKey], None]
    ) -> bool:
        """Ask the guard; while it refuses a living job, one that is not makes room."""
        while not ask():
            other = spare.next(self._live) if self._live and self._live.alive(key) else None
            if other is None:
                return False
            yield_room(other)
        return True

    def _bear(self, key: JobKey) -> None:
        """A job's counters, at what was counted before it left, else at 0; if that is forgotten they wait."""
        past = self._past.pop(key, None)
        if key not in self._runs.rows and (past or key not in self._fired):
            self._runs.put(key, *(0 for _ in STATUSES))
            self._new_errors.put(key, 0)
        if past:
            self._export(key, past)

    def _export(self, key: JobKey, counts: Counts) -> None:
        old = self._counted.get(key)
        if old is None or sum(counts.statuses.values()) >= sum(old.statuses.values()):
            self._counted[key] = counts
        self._runs.raise_to(key, *_statuses(counts))
        self._new_errors.raise_to(key, counts.errors.get("new", 0))
        if captured := counts.errors.get("captured"):
            self._raise(key, "captured_exceptions_total", key, captured)
        for name, count in counts.exceptions.items():
            self._raise(key, "run_failures_total", (*key, name), count)
        for name, count in counts.reasons.items():
            self._raise(key, "runs_skipped_total", (*key, name), count)
        for name, histogram in counts.histograms.items():
            self._raise(key, _HISTOGRAMS[name], key, *_cumulative(histogram))

    def _fire(self, key: JobKey, triggers: Mapping[str, int]) -> None:
        """Triggers are counted by scheduler: add what is new of this job."""
        told = [float(triggers.get(event, 0)) for event in TRIGGER_EVENTS]
        before = self._fired.pop(key, None)
        if before is None:  # of one that may be forgotten nothing is added: better too little than twice
            before = told if self._forgot else [0.0] * len(told)
        now = self._fired[key] = list(map(max, before, told))
        if now != before:
            old = self._triggers.get((key[0],)) or [0.0] * len(told)
            self._triggers.put((key[0],), *(o + n - b for o, n, b in zip(old, now, before, strict=True)))
        if len(self._fired) > _HEARD:
            self._fired.popitem(last=False)
            self._forgot = True

    def _retire(self, key: JobKey, counts: Counts) -> None:
        self._past[key] = counts
        self._past.move_to_end(key)
        if len(self._past) > _REMEMBERED:
            self._past.popitem(last=False)

    def _raise(self, key: JobKey, name: str, labels: Labels, *values: float) -> None:
        """Raise a row beyond the core, if it is there or may be born."""
        family = self._families[name]
        if len(values) != family.width:
            return  # saved under other bounds: the next observation begins anew
        if labels not in family.rows:
            if not self._extend(key, family.width):
                self._limited(name)
                return
            self._held.setdefault(key, []).append((family, labels))
        family.raise_to(labels, *values)

    def _extend(self, key: JobKey, series: int) -> bool:
        return self._find_room(key, lambda: self._guard.extend(key, series), self._extended, self._trim)

    def _trim(self, key: JobKey) -> None:
        """Leave a job its core alone."""
        self._rules.pop(key, None)
        for family, labels in self._held.pop(key, ()):
            family.drop(labels)
            self._guard.shrink(key, family.width)

    def _limited(self, name: str) -> None:
        limited = self._families["series_limited_total"]
        old = limited.get((name,))
        limited.put((name,), old[0] + 1 if old else 1)

    def _describe(self, key: JobKey, seen: View) -> None:
        if key not in self._rules:
            self._rules[key] = rule_for(self._settings, key)
            self._promise(key)
        rule, family = self._rules[key], self._families["job_info"]
        schedule, zone, queue = _definition(seen.definition)
        owner = (rule.team, rule.severity) if rule else ("", "")
        labels = (*key, schedule, zone, queue or seen.queue, *owner)
        old = self._info.get(key)
        if old is None:
            family.put(labels, 1)
        else:
            family.rename(old, labels)
        self._info[key] = labels

    def _warn(self, key: JobKey, abnormal: Mapping[str, float]) -> None:
        name = "trigger_abnormal_since_timestamp_seconds"
        self._withdraw(key, name, stays=abnormal)
        for state, since in abnormal.items():
            self._raise(key, name, (*key, state), since)

    def _withdraw(self, key: JobKey, name: str, stays: Container[str] = ()) -> None:
        """Take a job's rows of this family away, but those whose last label stays."""
        family, held = self._families[name], self._held.get(key, [])
        for one in [one for one in held if one[0] is family and one[1][-1] not in stays]:
            held.remove(one)
            family.drop(one[1])
            self._guard.shrink(key, family.width)

    def _promise(self, key: JobKey) -> None:
        if rule := self._rules[key]:
            limits = (
                ("grace", rule.grace),
                ("max_duration", rule.max_duration),
                ("max_silence", rule.expect_every),
            )
            for name, limit in limits:
                if limit is not None:
                    self._raise(key, "job_limit_seconds", (*key, name), limit)


def _statuses(counts: Counts) -> tuple[float, ...]:
    return tuple(float(counts.statuses.get(status, 0)) for status in STATUSES)


def _cumulative(histogram: Histogram) -> list[float]:
    """The numbers of a histogram's lines: buckets, count, sum."""
    total, values = 0, []
    for count in histogram.buckets:
        total += count
        values.append(float(total))
    return [*values, float(total), histogram.sum]


def _definition(definition: Job | None) -> tuple[str, str, str]:
    """Schedule, time zone and queue; several triggers are told one after the other."""
    if definition is None:
        return "", "", ""
    schedules = dict.fromkeys(trigger.schedule for trigger in definition.triggers if trigger.schedule)
    zones = dict.fromkeys(trigger.timezone for trigger in definition.triggers if trigger.timezone)
    return "; ".join(schedules), "; ".join(zones), definition.queue


_LEAVING = ("job_next_run_timestamp_seconds",)
