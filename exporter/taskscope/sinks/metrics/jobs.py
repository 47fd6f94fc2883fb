"""The series of jobs: what was counted of them, and what is true of them now."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import TypeAlias

import msgspec

from taskscope.counts import OTHER, Counts, Exemplar, Histogram
from taskscope.events import Job, JobKey
from taskscope.live import LiveJob
from taskscope.rules import rule_for
from taskscope.settings import JobRule, Settings
from taskscope.sinks.metrics.catalog import CATALOG, STATUSES, TRIGGER_EVENTS
from taskscope.sinks.metrics.form import Labels
from taskscope.sinks.metrics.guard import Guard
from taskscope.sinks.metrics.series import Family

CORE = sum(len(metric.split[1]) if metric.split else 1 for metric in CATALOG if metric.core)
"""Series that every known job has."""

_HISTOGRAMS = {
    "duration": "run_duration_seconds",
    "wait": "run_queue_wait_seconds",
    "delay": "run_start_delay_seconds",
}
_REMEMBERED = 10_000  # jobs that left, so that one which comes back goes on where it was

Held: TypeAlias = tuple[Family, Labels]


class View(msgspec.Struct, frozen=True):
    """What is true of a job at one moment."""

    gauges: dict[str, float]
    """By name; those that are missing are not exported."""
    definition: Job | None


class Past(msgspec.Struct, frozen=True):
    """What was counted of a job that has no series now."""

    statuses: tuple[float, ...]
    triggers: dict[str, int]


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
    return View(gauges, job.definition)


class JobSeries:
    """Writes the families of jobs. The caller holds the lock of the families."""

    def __init__(self, families: Mapping[str, Family], guard: Guard, settings: Settings) -> None:
        self._families, self._guard, self._settings = families, guard, settings
        self._runs, self._triggers = families["runs_total"], families["trigger_events_total"]
        self._gauges = [metric.name for metric in CATALOG if metric.core and metric.kind == "gauge"]
        self._info: dict[JobKey, Labels] = {}
        self._rules: dict[JobKey, JobRule | None] = {}
        self._held: dict[JobKey, list[Held]] = {}
        self._fired: dict[JobKey, dict[str, int]] = {}
        self._past: OrderedDict[JobKey, Past] = OrderedDict()
        self._counting = False

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

    def count(self, key: JobKey, counts: Counts) -> None:
        """Export these committed counts of a job; no number falls."""
        self._fire(key, counts.triggers)
        if not self._guard.admit(key):
            self._limited("runs_total")
            self._retire(key, Past(_statuses(counts), counts.triggers))
            return
        self._bear(key)
        self._runs.raise_to(key, *_statuses(counts))
        for name, count in counts.exceptions.items():
            self._raise(key, "run_failures_total", (*key, name), count)
        for name, count in counts.reasons.items():
            self._raise(key, "runs_skipped_total", (*key, name), count)
        for name, histogram in counts.histograms.items():
            self._raise(key, _HISTOGRAMS[name], key, *_cumulative(histogram))

    def point(self, key: JobKey, histogram: str, bucket: int, exemplar: Exemplar) -> None:
        """Let a bucket point to a run."""
        family = self._families[_HISTOGRAMS[histogram]]
        row = family.rows.get(key)
        if row is not None and bucket <= len(family.bounds):
            row.point(bucket, exemplar)

    def show(self, key: JobKey, seen: View) -> None:
        """Export what is true of a job now."""
        if key[1] == OTHER or not self._guard.admit(key):
            return
        if self._counting:
            self._bear(key)
        for name in self._gauges:
            value = seen.gauges.get(name)
            if value is not None:
                self._families[name].put(key, value)
            elif name in _LEAVING:
                self._families[name].drop(key)
        self._describe(key, seen.definition)

    def leave(self, key: JobKey) -> None:
        """Take all series of a job away; what was counted of it is remembered for a while."""
        if key[1] == OTHER:
            return
        if statuses := self._runs.get(key):
            self._retire(key, Past(tuple(statuses), self._fired.get(key, {})))
        self._fired.pop(key, None)
        self._rules.pop(key, None)
        for name in ("runs_total", *self._gauges):
            self._families[name].drop(key)
        if key in self._info:
            self._families["job_info"].drop(self._info.pop(key))
        for family, labels in self._held.pop(key, ()):
            family.drop(labels)
        self._guard.leave(key)

    def _bear(self, key: JobKey) -> None:
        """A job's counters, at what was counted before it left, else at 0."""
        if key not in self._runs.rows:
            past = self._past.pop(key, None)
            self._runs.put(key, *(past.statuses if past else (0 for _ in STATUSES)))
            if past:
                self._fired[key] = past.triggers

    def _fire(self, key: JobKey, triggers: dict[str, int]) -> None:
        """Triggers are counted by scheduler: add what is new of this job."""
        past = self._past.get(key)
        before = self._fired.get(key) or (past.triggers if past else {})
        if triggers == before:
            return
        labels = (key[0],)
        old = self._triggers.get(labels) or [0.0] * len(TRIGGER_EVENTS)
        new = [max(0, triggers.get(event, 0) - before.get(event, 0)) for event in TRIGGER_EVENTS]
        self._triggers.put(labels, *map(float.__add__, old, map(float, new)))
        self._fired[key] = triggers

    def _retire(self, key: JobKey, past: Past) -> None:
        self._past[key] = past
        self._past.move_to_end(key)
        self._fired.pop(key, None)
        if len(self._past) > _REMEMBERED:
            self._past.popitem(last=False)

    def _raise(self, key: JobKey, name: str, labels: Labels, *values: float) -> None:
        """Raise a row beyond the core, if it is there or may be born."""
        family = self._families[name]
        if len(values) != family.width:
            return  # saved under other bounds: the next observation begins anew
        if labels not in family.rows:
            if not self._guard.extend(key, family.width):
                self._limited(name)
                return
            self._held.setdefault(key, []).append((family, labels))
        family.raise_to(labels, *values)

    def _limited(self, name: str) -> None:
        limited = self._families["series_limited_total"]
        old = limited.get((name,))
        limited.put((name,), old[0] + 1 if old else 1)

    def _describe(self, key: JobKey, definition: Job | None) -> None:
        if key not in self._rules:
            self._rules[key] = rule_for(self._settings, key)
            self._promise(key)
        rule, family = self._rules[key], self._families["job_info"]
        labels = (*key, *_definition(definition), rule.team if rule else "", rule.severity if rule else "")
        old = self._info.get(key)
        if old is None:
            family.put(labels, 1)
        else:
            family.rename(old, labels)
        self._info[key] = labels

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
