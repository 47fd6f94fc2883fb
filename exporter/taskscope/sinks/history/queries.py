"""What can be asked of the history: pages of runs, one run, job names, statistics, trends, alerts."""

import time
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager

import sqlalchemy as sa

from taskscope.counts import OTHER, JobState
from taskscope.errors import BadArgument
from taskscope.events import JobKey
from taskscope.settings import Settings
from taskscope.sinks.history import (
    absences,
    alerts,
    entities,
    error_queries,
    filters,
    findings,
    flow,
    job_states,
    pages,
    schedulers,
    schema,
    statistics,
)
from taskscope.sinks.history.entities import EntityStats, Subject
from taskscope.sinks.history.error_records import (
    ErrorBucket,
    ErrorFilter,
    ErrorGroup,
    ErrorPage,
    ErrorSort,
    ErrorTrend,
    Occurrence,
)
from taskscope.sinks.history.finding_records import Finding, FindingFilter, FindingPage, Inspected
from taskscope.sinks.history.flow import Flows
from taskscope.sinks.history.minutely import Minutely
from taskscope.sinks.history.reader import Reader
from taskscope.sinks.history.records import (
    AlertFilter,
    AlertPage,
    Bucket,
    Filter,
    JobStats,
    Page,
    Run,
    SortColumn,
)
from taskscope.sinks.history.statistics import DAY, Window

CHUNK = 500
"""Runs that `iterate` holds at a time."""
MAX_STEPS = 10_000
"""Buckets of one trend."""

_EVERYTHING = Filter()
_TEXTS = ("message", "stack", "data", "details")


class Queries:
    """Reads the history, from any thread, while another process or thread writes it.

    Every method raises `Unavailable`, with one sentence, where the history is missing, locked or damaged.
    """

    def __init__(self, url: str, settings: Settings) -> None:
        """`url` is `sqlite:///file` or `postgresql://…`; nothing is opened before the first question."""
        self._reader = Reader(url)
        self._limit = settings.limits.page
        self.kept_errors = settings.retention.errors
        """For how many seconds errors are kept."""
        self._size = Minutely(self._look)
        self._p95 = Minutely(self._work_out_p95)

    def runs(
        self,
        filter: Filter,
        *,
        limit: int,
        offset: int = 0,
        after: bytes | None = None,
        sort: SortColumn | None = None,
        descending: bool = True,
    ) -> Page:
        """One page: by id, that is by anchor, going on `after` a page's last id, or sorted by a column.

        A column sorts all runs that match: give `since` and `until`. Equal values are in the order of ids,
        runs without a start stand at their anchor, unknown ends and durations last. Raises `BadArgument`.
        """
        pages.check(limit, self._limit, offset, after, sort)
        size = self._size()
        everything = filter == _EVERYTHING and size.large
        with self._reader.snapshot(alone=everything) as connection:
            conditions = filters.conditions(connection, filter)
            if conditions is None:
                return Page(runs=[], total=0, exact=True, after=None)
            total, exact = size.runs, False
            if not everything:
                total, exact = pages.count(connection, conditions, filter.since, size)
            order = pages.order(connection.dialect.name, sort, descending)
            if sort is None:
                rest = filters.beyond(conditions, after, descending)
                ids = pages.by_id(rest, limit + 1, offset, descending)
            else:
                ids = pages.by_column(conditions, order, limit + 1, offset)
            runs = pages.fetch(connection, ids, order)
        more = len(runs) > limit and sort is None
        runs = runs[:limit]
        return Page(runs=runs, total=total, exact=exact, after=runs[-1].id if more else None)

    def run(self, id: bytes) -> Run | None:
        """One run with all that is known of it; None where there is none."""
        with self._reader.snapshot(alone=True) as connection:
            only = sa.select(schema.run.c.id).where(schema.run.c.id == id)
            return next(iter(pages.fetch(connection, only, [], _TEXTS)), None)

    def iterate(self, filter: Filter) -> Iterator[Run]:
        """All matching runs with all that is known of them, newest first; read in pieces: memory stays flat.

        Runs that come while it walks may be left out; none comes twice.
        """
        after: bytes | None = None
        while True:
            with self._reader.snapshot() as connection:
                conditions = filters.conditions(connection, filter)
                if conditions is None:
                    return
                ids = pages.by_id(filters.beyond(conditions, after, descending=True), CHUNK)
                order = pages.order(connection.dialect.name, None, descending=True)
                runs = pages.fetch(connection, ids, order, _TEXTS)
            yield from runs
            if len(runs) < CHUNK:
                return
            after = runs[-1].id

    def names(self, scheduler: Sequence[str] = ()) -> list[str]:
        """The distinct names of all jobs (of these schedulers) that were ever seen, alphabetical."""
        job = schema.job
        query = sa.select(job.c.name).distinct().where(job.c.name.not_in(("", OTHER))).order_by(job.c.name)
        if scheduler:
            query = query.where(job.c.scheduler.in_([schema.clean(text) for text in scheduler]))
        with self._reader.snapshot(alone=True) as connection:
            return list(connection.scalars(query))

    def stats(
        self,
        since: int,
        until: int,
        percentiles: Sequence[float],
        jobs: Sequence[str] = (),
        scheduler: Sequence[str] = (),
        slow: float | None = None,
        slow_by_job: dict[JobKey, float] | None = None,
        queue: Sequence[str] = (),
        entity: Sequence[str] = (),
    ) -> list[JobStats]:
        """Statistics of the runs whose anchor is in [since, until) ms: of all, then of each job by its key.

        Runs that retention removed count too, unless only those of a `queue` or about an `entity` are asked
        for. `slow` is a limit in s, for jobs without one in `slow_by_job`.
        """
        window = Window(max(since, 0), until)
        with self._reader.snapshot() as connection:
            known = filters.jobs(connection, jobs, scheduler)
            own = filters.limits_by_id(connection, slow_by_job or {})
            limits = {id: filters.micros(limit) for id in known if (limit := own.get(id, slow)) is not None}
            only = filters.named(connection, {"queue": queue, "entity": entity})
            tallies = statistics.Tallies(window, known, limits, only or (), chosen=bool(jobs))
            if only is not None:
                tallies.read(connection)
        return statistics.by_job(tallies, window, percentiles, limits)

    def entities(
        self, since: int, until: int, scheduler: Sequence[str] = (), jobs: Sequence[str] = ()
    ) -> list[EntityStats]:
        """What the kept runs whose anchor is in [since, until) ms were about, and how they went."""
        with self._reader.snapshot() as connection:
            return entities.read(
                connection, since, until, [*map(schema.clean, scheduler)], [*map(schema.clean, jobs)]
            )

    def failing_entities(self, since: int, until: int) -> list[Subject]:
        """Jobs and what they last failed for, of runs whose anchor is in [since, until) ms; the latest first."""
        with self._reader.snapshot() as connection:
            return entities.failing(connection, since, until)

    def entity_failures(
        self, subject: Subject, since: int, shown: int, until: int
    ) -> tuple[bytes, list[bytes]]:
        """When a job last succeeded for an entity, and failed; details in `entities.failures`."""
        with self._reader.snapshot() as connection:
            return entities.failures(connection, subject, since, shown, until)

    def trend(
        self,
        since: int,
        until: int,
        step: int,
        jobs: Sequence[str] = (),
        scheduler: Sequence[str] = (),
        percentiles: Sequence[float] = (),
    ) -> list[Bucket]:
        """The same over time, all jobs together: a bucket for every step, also where nothing ran.

        Steps begin at multiples of `step` ms; the window may cut the first and last. Raises `BadArgument`.
        """
        _check_step(since, until, step)
        window = Window(max(since, 0), until, step)
        with self._reader.snapshot() as connection:
            tallies = statistics.Tallies(
                window, filters.jobs(connection, jobs, scheduler), {}, chosen=bool(jobs)
            )
            tallies.read(connection)
        return statistics.over_time(tallies, window, percentiles)

    def runs_by_hour(self, jobs: Container[JobKey], since: int, until: int) -> dict[JobKey, dict[int, int]]:
        """Of each of these jobs the hours (ms) of [since, until) in which it ran, and how often."""
        window = Window(max(since, 0), until, statistics.HOUR)
        with self._reader.snapshot() as connection:
            known = {id: key for id, key in filters.jobs(connection, (), ()).items() if key in jobs}
            tallies = statistics.Tallies(window, known, {}, chosen=True)
            tallies.read(connection)
        return statistics.by_hour(tallies)

    def p95(self) -> dict[JobKey, float]:
        """By job, the seconds that 95 % of its runs of the last 30 days did not exceed, as of a minute ago."""
        return self._p95()

    def alerts(
        self, filter: AlertFilter, *, limit: int, offset: int = 0, after: bytes | None = None
    ) -> AlertPage:
        """One page of what Alertmanager told, newest first, going on `after` a page's last alert."""
        pages.check(limit, self._limit, offset, after, None)
        with self._reader.snapshot() as connection:
            return alerts.page(connection, filter, limit, offset, after)

    def errors(
        self,
        filter: ErrorFilter,
        *,
        limit: int,
        offset: int = 0,
        after: bytes | None = None,
        sort: ErrorSort = "last_seen",
        descending: bool = True,
    ) -> ErrorPage:
        """One page of error groups, going on `after` a page's last one."""
        pages.check(limit, self._limit, offset, after, None)
        with self._reader.snapshot() as connection:
            return error_queries.page(connection, filter, limit, offset, after, sort, descending)

    def error(self, fingerprint: bytes) -> ErrorGroup | None:
        """One group with its stack and data; None where there is none."""
        with self._reader.snapshot(alone=True) as connection:
            return error_queries.one(connection, fingerprint)

    def occurrences(
        self,
        fingerprint: bytes,
        *,
        since: int | None = None,
        until: int | None = None,
        limit: int = 50,
        after: bytes | None = None,
    ) -> list[Occurrence]:
        """Its occurrences by the anchors of their runs, newest first, going on `after` one of them."""
        with self._reader.snapshot(alone=True) as connection:
            return error_queries.occurrences(connection, fingerprint, since, until, limit, after)

    def errors_of(self, run: bytes) -> list[Occurrence]:
        """What a run failed of and what it reported, as it happened."""
        with self._reader.snapshot() as connection:
            return error_queries.of_run(connection, run)

    def error_trend(self, fingerprint: bytes, since: int, until: int, step: int) -> list[ErrorBucket]:
        """How often it happened in every step of [since, until) ms. Raises `BadArgument`."""
        _check_step(since, until, step)
        with self._reader.snapshot(alone=True) as connection:
            return error_queries.trend(connection, fingerprint, max(since, 0), until, step)

    def error_trends(
        self, filter: ErrorFilter, since: int, until: int, step: int, top: int
    ) -> list[ErrorTrend]:
        """The same of the `top` groups that happened most in it, the most frequent first."""
        _check_step(since, until, step)
        with self._reader.snapshot() as connection:
            return error_queries.top(connection, filter, max(since, 0), until, step, top)

    def error_counts(self, since: int, until: int) -> dict[bytes, int]:
        """By fingerprint how often each error happened in [since, until) ms, by whole hours."""
        with self._reader.snapshot(alone=True) as connection:
            return error_queries.counts(connection, since, until)

    def errors_seen(self, since: int, until: int, limit: int) -> list[ErrorGroup]:
        """The error groups that were seen since then, first before `until` (ms); the latest first."""
        with self._reader.snapshot(alone=True) as connection:
            return error_queries.seen(connection, since, until, limit)

    def job_states(self) -> dict[JobKey, JobState]:
        """What is remembered of all jobs."""
        with self._reader.snapshot(alone=True) as connection:
            return job_states.states(connection)

    def job_queues(self, since: int) -> dict[JobKey, frozenset[str]]:
        """In which queues each job ran, since then (ms)."""
        with self._reader.snapshot(alone=True) as connection:
            return job_states.queues(connection, since)

    def flows(self, since: int, until: int) -> Flows:
        """What came, ended and waits, by job and queue, from `since` to now (ms)."""
        with self._reader.snapshot() as connection:
            return flow.read(connection, since, until)

    def findings(
        self, filter: FindingFilter, *, limit: int, offset: int = 0, after: bytes | None = None
    ) -> FindingPage:
        """One page of what inspections found, newest first, going on `after` a page's last finding."""
        pages.check(limit, self._limit, offset, after, None)
        with self._reader.snapshot() as connection:
            return findings.page(connection, filter, limit, offset, after)

    def finding(self, id: bytes) -> Finding | None:
        """One finding; None where there is none."""
        with self._reader.snapshot(alone=True) as connection:
            return findings.one(connection, id)

    def current_findings(self, since: int, inspection: str | None = None) -> list[Finding]:
        """What is open, and what has recovered since (ms), of one inspection or of all; the oldest first."""
        with self._reader.snapshot(alone=True) as connection:
            return findings.current(connection, since, inspection)

    def findings_near(self, since: int, until: int) -> list[Finding]:
        """The newest findings that were open at some time in [since, until) ms, a thousand at most."""
        with self._reader.snapshot(alone=True) as connection:
            return findings.near(connection, since, until)

    def absences(self) -> list[tuple[int, int]]:
        """When (ms) no taskscope was there to see what runs."""
        with self._reader.snapshot(alone=True) as connection:
            return absences.read(connection)

    def labels(self) -> dict[str, dict[str, str]]:
        """What each scheduler belongs to, as it said last."""
        with self._reader.snapshot(alone=True) as connection:
            return schedulers.labels(connection)

    def open_findings(self) -> dict[tuple[str, str], int]:
        """How many findings are open, by scheduler and kind."""
        with self._reader.snapshot(alone=True) as connection:
            return findings.census(connection)

    def inspections(self) -> dict[str, Inspected]:
        """How the last inspection of each name went."""
        with self._reader.snapshot(alone=True) as connection:
            return findings.inspections(connection)

    @contextmanager
    def alone(self, what: str) -> Iterator[bool]:
        """Inside, no other replica is alone for the same; False where another is, and it is not waited for."""
        with self._reader.snapshot(alone=True) as connection:
            if connection.dialect.name == "sqlite":  # which has one owner
                yield True
                return
            key = int.from_bytes(schema.digest(what)[:7], "big")
            mine = bool(connection.exec_driver_sql(f"SELECT pg_try_advisory_lock({key})").scalar_one())
            try:
                yield mine
            finally:
                if mine:
                    connection.exec_driver_sql(f"SELECT pg_advisory_unlock({key})")

    def close(self) -> None:
        """Close all connections; questions under way are answered."""
        self._reader.close()

    def _look(self) -> pages.Size:
        with self._reader.snapshot(alone=True) as connection:
            return pages.size(connection)

    def _work_out_p95(self) -> dict[JobKey, float]:
        tomorrow = (int(time.time() * 1000) // DAY + 1) * DAY
        stats = self.stats(tomorrow - 31 * DAY, tomorrow, [95])
        return {(job.scheduler, job.job): job.percentiles["p95"] for job in stats[1:] if job.percentiles}


def _check_step(since: int, until: int, step: int) -> None:
    if step < 1 or (until - since) / step > MAX_STEPS:
        raise BadArgument(
            f"step={step} does not cut this window into 1 to {MAX_STEPS} steps: give a longer one"
        )
