"""Statistics over any window: whole days and hours from rollups, the rest exactly from the runs themselves.

Rollups outlive runs. Where retention has removed runs of an incomplete hour, that whole hour counts, in the
step in which it begins: a window is rather widened to the hour than emptied.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from taskscope.events import JobKey
from taskscope.facts import Bit
from taskscope.identity import anchor_ms, first_id
from taskscope.sinks.history import rollups, schema
from taskscope.sinks.history.filters import Condition
from taskscope.sinks.history.records import Bucket, JobStats
from taskscope.sinks.history.rollups import Rollup

HOUR, DAY = 3_600_000, 86_400_000
"""ms."""
_FEW = 10  # jobs

run, job, rollup, removed = schema.run, schema.job, schema.rollup, schema.removed


class Window(msgspec.Struct, frozen=True):
    """From `since` until before `until`, in ms; cut into steps at the multiples of `step`."""

    since: int
    until: int
    step: int | None = None

    def begins(self) -> list[int]:
        """Where its steps begin."""
        if self.step is None:
            return [self.since]
        return [self.since, *range((self.since // self.step + 1) * self.step, self.until, self.step)]

    def broken(self) -> set[int]:
        """The hours, counted since the epoch, of which a step holds only a part."""
        return {cut // HOUR for cut in (*self.begins(), self.until) if cut % HOUR}

    def ranges(self) -> list[tuple[int, int, int]]:
        """The rollups that cover it and its broken hours: (hours of each, first hour, hour after it)."""
        first, last = self.since // HOUR, -(-self.until // HOUR)
        day, night = -(-self.since // DAY) * 24, self.until // DAY * 24
        if day >= night or (self.step or DAY) % DAY:
            return [(1, first, last)]
        return [(1, first, day), (24, day, night), (1, night, last)]


class Tally(msgspec.Struct):
    """What is known of one job's runs in one step."""

    rolled: Rollup = msgspec.field(default_factory=Rollup)
    """From rollups."""
    seen: Rollup = msgspec.field(default_factory=Rollup)
    """From the runs themselves."""
    slow: int = 0
    """Of those in `seen`."""

    def together(self) -> Rollup:
        """Both."""
        total = Rollup()
        total.add(self.rolled)
        total.add(self.seen)
        return total


class Tallies:
    """What happened to these jobs in a window; a run that took longer than its job's limit (µs) is slow."""

    def __init__(
        self,
        window: Window,
        jobs: Mapping[int, JobKey],
        limits: Mapping[int, int],
        only: Sequence[Condition] = (),
        *,
        chosen: bool = False,
    ) -> None:
        """Of runs that fulfil these conditions only, which rollups cannot tell: of the runs that are kept.

        Runs of a few jobs that were `chosen` among others are found by the index of their jobs.
        """
        self.jobs = jobs
        self._only = only
        self._of_few = chosen and len(jobs) <= _FEW
        self.by_place: dict[tuple[int, int], Tally] = {}
        """By the begin of the step, in ms, and job.id."""
        self._window = window
        self._begins = window.begins()
        self._broken = window.broken()
        self._limits = limits
        self._removed: dict[int, int] = {}

    def read(self, connection: Connection) -> None:
        """Add up everything."""
        if self._only:
            self._read_runs(connection, self._window.since, self._window.until)
            return
        query = sa.select(removed.c.job, removed.c.id)
        removals = ((id, anchor_ms(last)) for id, last in connection.execute(query))
        self._removed = {id: last for id, last in removals if last >= self._window.since}
        for hours, first, last in self._window.ranges():
            self._read_rollups(connection, hours, first, last)
        for since, until in self._edges():
            self._read_runs(connection, since, until)

    def _read_rollups(self, connection: Connection, hours: int, first: int, last: int) -> None:
        columns = (rollup.c.at, rollup.c.job, rollup.c.rollup)
        covered = (rollup.c.hours == hours, rollup.c.at >= first, rollup.c.at < last)
        for at, id, packed in _rows(connection, sa.select(*columns).where(*covered)):
            if id in self.jobs and (at not in self._broken or self._is_gone(id, at)):
                begin = max(at * HOUR, self._window.since)
                self._tally(begin, id).rolled.add(rollups.decode(packed))

    def _read_runs(self, connection: Connection, since: int, until: int) -> None:
        columns = (run.c.id, run.c.job, run.c.rank, run.c.facts, run.c.duration)
        of_few = [run.c.job.in_(self.jobs)] if self._of_few else []
        query = sa.select(*columns).where(
            run.c.id >= first_id(since), run.c.id < first_id(until), *of_few, *self._only
        )
        streamed = query.execution_options(stream_results=True)
        for run_id, id, rank, facts, duration in _rows(connection, streamed):
            anchor = anchor_ms(run_id)
            if id in self.jobs and not self._is_gone(id, anchor // HOUR):
                tally = self._tally(anchor, id)
                tally.seen.ranks[rank] += 1
                if facts & Bit.HAS_DURATION:
                    tally.seen.observe(duration)
                    tally.slow += duration > self._limits.get(id, duration)

    def _edges(self) -> Iterator[tuple[int, int]]:
        """The broken hours as far as they are in the window, neighbours together, in ms."""
        hours = sorted(self._broken)
        begins = [hour for hour in hours if hour - 1 not in self._broken]
        ends = [hour + 1 for hour in hours if hour + 1 not in self._broken]
        for begin, end in zip(begins, ends, strict=True):
            yield max(begin * HOUR, self._window.since), min(end * HOUR, self._window.until)

    def _is_gone(self, id: int, hour: int) -> bool:
        """Has retention removed runs of this job in the part of the hour that is in the window?"""
        if not self._removed:
            return False
        last = max(self._removed.get(0, -1), self._removed.get(id, -1))
        return last >= max(hour * HOUR, self._window.since)

    def _tally(self, at: int, id: int) -> Tally:
        place = (self._begins[bisect_right(self._begins, at) - 1], id)
        tally = self.by_place.get(place)
        if tally is None:
            tally = self.by_place[place] = Tally()
        return tally


def _rows(connection: Connection, query: sa.Select[Any]) -> Iterable[Any]:
    """What it finds, taken by the thousand: row by row would take twice as long."""
    return chain.from_iterable(connection.execute(query).partitions(5_000))


def by_job(
    tallies: Tallies, window: Window, percentiles: Sequence[float], limits: Mapping[int, int]
) -> list[JobStats]:
    """Of all jobs together, then of each that ran in the window, in the order of their keys."""
    seconds = max(window.until - window.since, 1) / 1e3
    each, overall, slow = [], Rollup(), 0
    for (_, id), tally in sorted(tallies.by_place.items(), key=lambda item: tallies.jobs[item[0][1]]):
        limit = limits.get(id)
        of_job = tally.slow + (_longer(tally.rolled, limit) if limit is not None else 0)
        together = tally.together()
        each.append(_stats(tallies.jobs[id], together, of_job, seconds, percentiles))
        overall.add(together)
        slow += of_job
    return [_stats(("", ""), overall, slow, seconds, percentiles), *each]


def by_hour(tallies: Tallies) -> dict[JobKey, dict[int, int]]:
    """Of each job the steps in which it ran, and how often: not what waits or was left out."""
    found: dict[JobKey, dict[int, int]] = {}
    for (begin, id), tally in tallies.by_place.items():
        statuses = tally.together().statuses
        if ran := sum(count for status, count in statuses.items() if status not in ("queued", "skipped")):
            found.setdefault(tallies.jobs[id], {})[begin] = ran
    return found


def over_time(tallies: Tallies, window: Window, percentiles: Sequence[float]) -> list[Bucket]:
    """Of all jobs together, step by step."""
    steps = {begin: Rollup() for begin in window.begins()}
    for (begin, _), tally in tallies.by_place.items():
        steps[begin].add(tally.together())
    return [
        Bucket(
            at=begin,
            statuses=dict[str, int](rollup.statuses.items()),
            mean=_mean(rollup),
            max=rollup.max / 1e6 if rollup.durations else None,
            percentiles=_percentiles(rollup, percentiles),
        )
        for begin, rollup in steps.items()
    ]


def _stats(key: JobKey, rollup: Rollup, slow: int, seconds: float, percentiles: Sequence[float]) -> JobStats:
    counts = dict[str, int](rollup.statuses.items())
    failed, succeeded = counts.get("failed", 0), counts.get("success", 0)
    runs = sum(counts.values())
    return JobStats(
        scheduler=key[0],
        job=key[1],
        runs=runs,
        statuses=counts,
        rate=(runs - counts.get("queued", 0) - counts.get("started", 0)) / seconds,
        failure_rate=failed / (failed + succeeded) if failed else 0.0,
        mean=_mean(rollup),
        max=rollup.max / 1e6 if rollup.durations else None,
        percentiles=_percentiles(rollup, percentiles),
        slow=slow,
    )


def _mean(rollup: Rollup) -> float | None:
    return rollup.sum / rollup.durations / 1e6 if rollup.durations else None


def _percentiles(rollup: Rollup, percentiles: Sequence[float]) -> dict[str, float]:
    found = {f"p{percent:g}": rollup.percentile(percent) for percent in percentiles}
    return {name: value / 1e6 for name, value in found.items() if value is not None}


def _longer(rollup: Rollup, limit: int) -> int:
    return sum(count for bucket, count in rollup.sketch.items() if round(rollup.duration_of(bucket)) > limit)
