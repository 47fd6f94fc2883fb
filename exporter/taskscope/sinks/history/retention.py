"""Removes old runs in short steps, so that no merge waits for long; what has been removed is remembered.

Open runs stay, and so do runs anchored or changed within `dedup_window`. A SQLite file does not
shrink: its free pages are used again (`VACUUM` it by hand while nobody owns it, if it must be smaller).
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec.structs import replace

from taskscope.events import JobKey
from taskscope.facts import RANK
from taskscope.identity import first_id
from taskscope.settings import Retention as Rules
from taskscope.settings import Settings
from taskscope.sinks.history import alerts, error_retention, findings, lost, open_runs, unused
from taskscope.sinks.history.merge import slices
from taskscope.sinks.history.removed import removing
from taskscope.sinks.history.schema import job, rollup, run
from taskscope.sinks.history.sql import SqlStore

_HOP = 10_000
"""Runs passed over in one look; that takes about a millisecond."""
_HOUR, _DAY = 3_600, 86_400


class Sweep(msgspec.Struct, frozen=True):
    """Runs with `after` < id <= `last`: those of one job, or (job 0) of all."""

    last: bytes
    job: int = 0
    after: bytes = b""


class Retention:
    """Applies `settings.retention` to a store, between its merges: call it from the store's own thread."""

    def __init__(self, store: SqlStore, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = _Clock(monotonic)
        self._pass: Iterator[int] | None = None
        self._forgot_at = self._swept_at = -math.inf

    @property
    def _settings(self) -> Settings:
        return self._store.settings

    @property
    def _rules(self) -> Rules:
        return self._store.settings.retention

    def plan(self, now: float) -> dict[JobKey, int]:
        """How many runs of which job would go now; nothing is removed."""
        with self._store.transaction() as connection:
            return plan(connection, self._settings, now)

    def step(self, now: float) -> int | None:
        """Do one short piece of work and return how many runs it removed; None when the pass is complete."""
        if self._pass is None:
            self._pass = self._work(self._clock.trusted(now))
        removed = next(self._pass, None)
        if removed is None:
            self._pass = None
        return removed

    def prune(self, now: float, progress: Callable[[int], None] = lambda removed: None) -> int:
        """A whole pass at once; `progress` hears of every piece. Returns how many runs it removed."""
        total = 0
        while (removed := self.step(now)) is not None:
            total += removed
            progress(removed)
        return total

    def _work(self, now: float) -> Iterator[int]:
        with self._store.transaction() as connection:
            jobs = _jobs(connection)
        yield 0
        settled = now - self._settings.dedup_window
        for sweep in self._sweeps(jobs, now):
            yield from self._remove(sweep, jobs.get(sweep.job), int(settled)) if sweep else (0,)
        yield from self._forget(now)
        yield from self._tidy(now)
        yield from self._sweep_names(now)

    def _sweeps(self, jobs: Mapping[int, JobKey], now: float) -> Iterator[Sweep | None]:
        """What has to go; None after a look that found nothing."""
        yield from by_age(jobs, self._settings, now)
        if self._rules.max_runs:
            yield from self._by_count(self._rules.max_runs, now)
        if self._rules.max_runs_per_job:
            for number in jobs:
                yield from self._by_count(self._rules.max_runs_per_job, now, number)

    def _by_count(self, keep: int, now: float, number: int = 0) -> Iterator[Sweep | None]:
        with self._store.transaction() as connection:
            excess = _excess(connection, keep, *_of(number))
        yield None
        cursor: bytes | None = b""
        while excess > 0 and cursor is not None:
            after = cursor
            with self._store.transaction() as connection:
                cursor = _skip(connection, after, min(excess, _HOP), *_of(number))
            excess -= _HOP
            if cursor:
                yield Sweep(min(cursor, _border(self._settings, now)), number, after)

    def _remove(self, sweep: Sweep, key: JobKey | None, settled: int) -> Iterator[int]:
        rest: Sweep | None = sweep
        while rest:
            with self._store.transaction() as connection:
                rest, removed = self._remove_some(connection, rest, key, settled)
            yield removed

    def _remove_some(
        self, connection: sa.Connection, sweep: Sweep, key: JobKey | None, settled: int
    ) -> tuple[Sweep | None, int]:
        """Look at the next runs, remove what may go; return what then is left to look at."""
        removing(connection)
        chunk, removable = self._rules.chunk, sa.and_(*_removable(settled))
        found = sa.select(run.c.id, removable).where(*_meant(sweep)).order_by(run.c.id).limit(chunk)
        runs = connection.execute(found).all()
        if gone := [run_id for run_id, may_go in runs if may_go]:
            some = replace(sweep, last=gone[-1])
            connection.execute(sa.delete(run).where(*_meant(some), removable))
            _remove_details(connection, gone)
            error_retention.remove_occurrences(connection, gone)
            self._store.removed.note(connection, gone[-1], sweep.job, key)
        rest = replace(sweep, after=runs[-1][0]) if len(runs) == chunk else None
        return rest, len(gone)

    def _forget(self, now: float) -> Iterator[int]:
        """Let go of the ids of runs that ended long ago; once in the while that they are kept: it reads them all."""
        if now - self._forgot_at < self._settings.dedup_window:
            return
        self._forgot_at = now
        settled = int(now - self._settings.dedup_window)
        rest: bytes | None = b""
        while rest is not None:
            with self._store.transaction() as connection:
                removing(connection)
                rest = open_runs.sweep(connection, rest, self._rules.chunk, settled)
            yield 0

    def _tidy(self, now: float) -> Iterator[int]:
        """Forget old rollups, hour by hour, old alerts, errors, findings, and processes silent for a day."""
        before = int(now - self._rules.rollups) // _HOUR
        for hours in (1, 24):
            old = (rollup.c.hours == hours, rollup.c.at < before - hours)
            while (at := self._oldest(old)) is not None:
                with self._store.transaction() as connection:
                    connection.execute(sa.delete(rollup).where(rollup.c.hours == hours, rollup.c.at == at))
                yield 0
        while self._forget_alerts(now) or self._forget_errors(now) or self._forget_findings(now):
            yield 0
        with self._store.transaction() as connection:
            lost.sweep(connection, now - _DAY)

    def _sweep_names(self, now: float) -> Iterator[int]:
        """Once a day: it reads all runs."""
        if now - self._swept_at >= _DAY:
            self._swept_at = now
            for _ in unused.remove(self._store, self._rules.chunk):
                yield 0

    def _forget_alerts(self, now: float) -> int:
        with self._store.transaction() as connection:
            return alerts.remove(connection, self._rules, now)

    def _forget_errors(self, now: float) -> int:
        with self._store.transaction() as connection:
            return error_retention.remove(connection, self._rules, now)

    def _forget_findings(self, now: float) -> int:
        with self._store.transaction() as connection:
            return findings.remove(connection, self._rules, now)

    def _oldest(self, old: Iterable[Any]) -> int | None:
        with self._store.transaction() as connection:
            return connection.execute(
                sa.select(rollup.c.at).where(*old).order_by(rollup.c.at).limit(1)
            ).scalar()


def plan(connection: sa.Connection, settings: Settings, now: float) -> dict[JobKey, int]:
    """How many runs of which job retention would remove now; reading is enough."""
    jobs, removable = _jobs(connection), _removable(int(now - settings.dedup_window))
    borders = dict.fromkeys(jobs, b"")
    for sweep in by_age(jobs, settings, now):
        _extend(borders, sweep)
    rules = settings.retention
    for number, keep in [(0, rules.max_runs), *((number, rules.max_runs_per_job) for number in jobs)]:
        stays = _left_of({number: borders[number]} if number else borders, removable)
        excess = _excess(connection, keep, *_of(number), stays) if keep else 0
        if excess > 0 and (last := _skip(connection, b"", excess, *_of(number), stays)):
            _extend(borders, Sweep(min(last, _border(settings, now)), number))
    planned = {
        key: _count(connection, *_meant(Sweep(borders[number], number)), *removable)
        for number, key in jobs.items()
    }
    return {key: count for key, count in planned.items() if count}


def _extend(borders: dict[int, bytes], sweep: Sweep) -> None:
    """Up to there the runs of each job go."""
    for number in [sweep.job] if sweep.job else borders:
        borders[number] = max(borders[number], sweep.last)


def _left_of(
    borders: Mapping[int, bytes], removable: Iterable[sa.ColumnElement[bool]]
) -> sa.ColumnElement[bool]:
    """The runs that stay where those up to the borders go: mostly many jobs have the same."""
    jobs = {
        border: [number for number in borders if borders[number] == border] for border in borders.values()
    }
    beyond = [
        sa.and_(
            run.c.id > border,
            run.c.job.in_(sa.bindparam(None, numbers, expanding=True, literal_execute=True)),
        )
        for border, numbers in jobs.items()
    ]
    return sa.or_(sa.not_(sa.and_(*removable)), *beyond)


def by_age(jobs: Mapping[int, JobKey], settings: Settings, now: float) -> Iterator[Sweep]:
    """What is too old: of jobs with an age of their own, and of all others."""
    rules, border = settings.retention, _border(settings, now)
    ages = {number: _age(rules.max_age_per_job, key) for number, key in jobs.items()}
    own = {number: age for number, age in ages.items() if age}
    if rules.max_age and not own:
        yield Sweep(min(_id_at(now - rules.max_age), border))
    else:  # job by job, also for the others: runs which outlive theirs may be too many to pass over
        for number, age in ages.items():
            if limit := age or rules.max_age:
                yield Sweep(min(_id_at(now - limit), border), number)


def _jobs(connection: sa.Connection) -> dict[int, JobKey]:
    query = sa.select(job.c.id, job.c.scheduler, job.c.name)
    return {number: (scheduler, name) for number, scheduler, name in connection.execute(query)}


def _age(rules: Mapping[str, float], key: JobKey) -> float | None:
    """The maximum age that is this job's own."""
    scheduler, name = key
    for pattern, age in rules.items():
        if fnmatchcase(name, pattern) or fnmatchcase(f"{scheduler}/{name}", pattern):
            return age
    return None


def _of(number: int) -> tuple[sa.ColumnElement[bool], ...]:
    """Runs of that job; 0: of all."""
    return (run.c.job == number,) if number else ()


def _count(connection: sa.Connection, *which: sa.ColumnElement[bool]) -> int:
    return connection.execute(sa.select(sa.func.count()).select_from(run).where(*which)).scalar_one()


def _excess(connection: sa.Connection, keep: int, *which: sa.ColumnElement[bool]) -> int:
    """How many runs there are beyond `keep`."""
    return _count(connection, *which) - keep


def _skip(
    connection: sa.Connection, after: bytes, count: int, *which: sa.ColumnElement[bool]
) -> bytes | None:
    """The run that comes `count` runs after this one."""
    query = sa.select(run.c.id).where(run.c.id > after, *which).order_by(run.c.id)
    return connection.execute(query.offset(count - 1).limit(1)).scalar()


def _meant(sweep: Sweep) -> tuple[sa.ColumnElement[bool], ...]:
    runs = (
        run.c.id > sweep.after,
        run.c.id <= sweep.last,
    )  # one bound each way: SQLite would use a wrong one
    return (*runs, *_of(sweep.job))


def _removable(settled: int) -> tuple[sa.ColumnElement[bool], ...]:
    return (run.c.rank >= RANK["unknown"], run.c.changed <= settled)


def _remove_details(connection: sa.Connection, runs: list[bytes]) -> None:
    mark = "?" if connection.dialect.name == "sqlite" else "%s"
    for some in slices(runs):
        marks = ", ".join([mark] * len(some))
        connection.exec_driver_sql(f"DELETE FROM detail WHERE id IN ({marks})", tuple(some))


def _border(settings: Settings, now: float) -> bytes:
    """Nothing younger goes, whatever the rules say; also saves looking at it."""
    return _id_at(now - settings.dedup_window)


def _id_at(moment: float) -> bytes:
    return first_id(int(moment * 1000))


class _Clock:
    """Believes a clock that jumped ahead only after a day: a wrong one would cost history."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._reference: tuple[float, float] | None = None
        self._doubted: float | None = None

    def trusted(self, now: float) -> float:
        """`now`, or less."""
        passed = self._monotonic()
        if self._reference is None:
            self._reference = (now, passed)
        latest = self._reference[0] + passed - self._reference[1] + _HOUR
        if now <= latest:
            self._doubted = None
            return now
        self._doubted = self._doubted or passed
        if passed - self._doubted < _DAY:
            return latest
        self._reference, self._doubted = (now, passed), None
        return now
