"""What is asked of error groups: pages of them, one with its texts, its occurrences, its trend."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection

from taskscope.facts import RANKED
from taskscope.identity import first_id
from taskscope.sinks.history.error_ledger import group_of
from taskscope.sinks.history.error_records import (
    STATES,
    ErrorBucket,
    ErrorFilter,
    ErrorGroup,
    ErrorPage,
    ErrorSort,
    ErrorTrend,
    Occurrence,
    State,
)
from taskscope.sinks.history.schema import (
    clean,
    detail,
    error_group,
    error_rollup,
    error_text,
    job,
    name,
    occurrence,
    run,
)

HOUR = 3_600_000
"""ms."""
_SORTS: Mapping[ErrorSort, ColumnElement[int]] = {
    "last_seen": error_group.c.last_seen,
    "first_seen": error_group.c.first_seen,
    "count": error_group.c.failures,
}


def page(
    connection: Connection,
    filter: ErrorFilter,
    limit: int,
    offset: int,
    after: bytes | None,
    sort: ErrorSort,
    descending: bool,
) -> ErrorPage:
    """One page in the order of a column and then of fingerprints, going on `after` a page's last group."""
    conditions = list(_conditions(connection, filter))
    total = sa.select(sa.func.count()).select_from(error_group).where(*conditions)
    column = _SORTS[sort]
    order = [each.desc() if descending else each.asc() for each in (column, error_group.c.fingerprint)]
    rest = [_beyond(column, after, descending)] if after is not None else []
    chosen = sa.select(error_group.c.fingerprint).where(*conditions, *rest).order_by(*order)
    chosen = chosen.limit(limit + 1).offset(offset or None)
    found = connection.execute(_groups().where(error_group.c.fingerprint.in_(chosen)).order_by(*order))
    groups = [group_of(row) for row in found]
    more, groups = len(groups) > limit, groups[:limit]
    return ErrorPage(
        groups=groups,
        total=connection.execute(total).scalar_one(),
        after=_place(groups[-1], sort) if more else None,
    )


def one(connection: Connection, fingerprint: bytes) -> ErrorGroup | None:
    """The group with its texts; None where there is none."""
    texts = (sa.func.coalesce(error_text.c[text], "") for text in ("stack", "data"))
    query = _groups().add_columns(*texts).where(error_group.c.fingerprint == fingerprint)
    row = connection.execute(
        query.outerjoin(error_text, error_text.c.error == error_group.c.fingerprint)
    ).first()
    if row is None:
        return None
    group, (stack, data) = group_of(row), row[-2:]
    return ErrorGroup(**{field: getattr(group, field) for field in _PLAIN}, stack=stack, data=data)


def occurrences(
    connection: Connection,
    fingerprint: bytes,
    since: int | None,
    until: int | None,
    limit: int,
    after: bytes | None,
) -> list[Occurrence]:
    """The group's occurrences, newest first by the anchors of their runs, going on after one of them."""
    conditions = [occurrence.c.error == fingerprint, *_span(since, until)]
    if after is not None:
        conditions.append(occurrence.c.id < after)
    chosen = sa.select(occurrence.c.id).where(*conditions).order_by(occurrence.c.id.desc()).limit(limit)
    query = _occurrences().where(occurrence.c.id.in_(chosen)).order_by(occurrence.c.id.desc())
    return [_occurrence(row) for row in connection.execute(query)]


def of_run(connection: Connection, id: bytes) -> list[Occurrence]:
    """The errors of a run, as they happened."""
    fatal = _occurrences().where(occurrence.c.id == id)
    captured = _occurrences().where(occurrence.c.run == id, sa.text("occurrence.id <> occurrence.run"))
    found = [*connection.execute(fatal), *connection.execute(captured)]
    return sorted(map(_occurrence, found), key=lambda one: (one.at, one.fatal, one.id))


def trend(connection: Connection, fingerprint: bytes, since: int, until: int, step: int) -> list[ErrorBucket]:
    """How often it happened in each step of the window, by the anchors of the runs.

    Whole hours come from rollups, which outlive the runs; shorter steps are counted.
    """
    counts: dict[int, list[int]] = {at: [0, 0] for at in range(since // step * step, until, step)}
    read = _by_hours if step % HOUR == 0 else _by_occurrence
    for at, failures, captured in read(connection, fingerprint, since, until):
        bucket = counts.get(at // step * step)
        if bucket is not None:
            bucket[0] += failures
            bucket[1] += captured
    return [ErrorBucket(at=at, failures=max(f, 0), captured=max(c, 0)) for at, (f, c) in counts.items()]


def top(
    connection: Connection, filter: ErrorFilter, since: int, until: int, step: int, most: int
) -> list[ErrorTrend]:
    """The trends of the groups that happened most in the window, the most frequent first."""
    happened = _in_hours(since, until) if step % HOUR == 0 else _in_occurrences(since, until)
    query = _groups().join(happened, happened.c.error == error_group.c.fingerprint)
    query = query.where(happened.c.times > 0, *_conditions(connection, filter))
    found = connection.execute(query.order_by(happened.c.times.desc(), error_group.c.fingerprint).limit(most))
    return [
        ErrorTrend(group=group, steps=trend(connection, group.fingerprint, since, until, step))
        for group in map(group_of, found.all())
    ]


def counts(connection: Connection, since: int, until: int) -> dict[bytes, int]:
    """By fingerprint how often each error happened in these hours, by the anchors of the runs."""
    found = connection.execute(sa.select(_in_hours(since, until)))
    return {bytes(error): int(count) for error, count in found if count > 0}


def seen(connection: Connection, since: int, until: int, limit: int) -> list[ErrorGroup]:
    """The groups that were seen since then, first before `until` (ms); the latest first."""
    lately = (error_group.c.last_seen >= since, error_group.c.first_seen < until)
    query = _groups().where(*lately).order_by(error_group.c.last_seen.desc()).limit(limit)
    return [group_of(row) for row in connection.execute(query)]


def census(connection: Connection) -> dict[tuple[str, State], int]:
    """How many groups each scheduler has in each state."""
    count = sa.select(job.c.scheduler, error_group.c.state, sa.func.count()).join_from(
        error_group, job, job.c.id == error_group.c.job
    )
    found = connection.execute(count.group_by(job.c.scheduler, error_group.c.state))
    return {(scheduler, STATES[state]): groups for scheduler, state, groups in found}


def runs_of(fingerprints: Sequence[bytes]) -> ColumnElement[bool]:
    """The condition that a run has an error of one of these groups."""
    return run.c.id.in_(sa.select(occurrence.c.run).where(occurrence.c.error.in_(fingerprints)))


def _in_hours(since: int, until: int) -> sa.Subquery:
    """How many `times` each `error` happened in these hours."""
    rollup = error_rollup.c
    times = sa.func.sum(rollup.failures + rollup.captured).label("times")
    query = sa.select(rollup.error, times).where(rollup.at >= since // HOUR, rollup.at < -(-until // HOUR))
    return query.group_by(rollup.error).subquery()


def _in_occurrences(since: int, until: int) -> sa.Subquery:
    """The same to the millisecond, of runs that are kept."""
    query = sa.select(occurrence.c.error, sa.func.count().label("times")).where(*_span(since, until))
    return query.group_by(occurrence.c.error).subquery()


def _by_hours(
    connection: Connection, fingerprint: bytes, since: int, until: int
) -> Iterator[tuple[int, int, int]]:
    rollup = error_rollup.c
    query = sa.select(rollup.at, rollup.failures, rollup.captured).where(
        rollup.error == fingerprint,
        rollup.at >= since // HOUR,
        rollup.at * sa.literal(HOUR, sa.BigInteger) < until,
    )
    for at, failures, captured in connection.execute(query):
        yield at * HOUR, failures, captured


def _by_occurrence(
    connection: Connection, fingerprint: bytes, since: int, until: int
) -> Iterator[tuple[int, int, int]]:
    query = sa.select(occurrence.c.id, occurrence.c.run).where(
        occurrence.c.error == fingerprint, *_span(since, until)
    )
    for id, of_run in connection.execute(query):
        yield int.from_bytes(id[:6], "big"), id == of_run, id != of_run


def _span(since: int | None, until: int | None) -> Iterable[ColumnElement[bool]]:
    if since is not None:
        yield occurrence.c.id >= first_id(since)
    if until is not None:
        yield occurrence.c.id < first_id(until)


def _groups() -> sa.Select[Any]:
    names = (job.c.scheduler, job.c.name.label("job_name"))
    return sa.select(error_group, *names).join_from(error_group, job, job.c.id == error_group.c.job)


def _occurrences() -> sa.Select[Any]:
    columns = (run.c.rank, run.c.started, _named(run.c.instance), _named(run.c.worker), error_group.c.kind)
    texts = (detail.c.message, detail.c.stack, detail.c.data)
    return sa.select(occurrence, *columns, *texts).select_from(
        occurrence.outerjoin(run, run.c.id == occurrence.c.run)
        .outerjoin(detail, detail.c.id == occurrence.c.id)
        .outerjoin(error_group, error_group.c.fingerprint == occurrence.c.error)
    )


def _named(id: ColumnElement[int]) -> ColumnElement[str]:
    return sa.select(name.c.text).where(name.c.id == id).correlate(run).scalar_subquery()


def _occurrence(row: sa.Row[Any]) -> Occurrence:
    id, of_run, error, at, rank, started, instance, worker, kind, message, stack, data = tuple(row)
    return Occurrence(
        id=bytes(id),
        run=bytes(of_run),
        error=bytes(error),
        at=at,
        kind=kind or "",
        message=message or "",
        stack=stack or "",
        data=data or "",
        status=RANKED[rank] if rank is not None else "",
        started=started or 0,
        instance=instance or "",
        worker=worker or "",
    )


def _jobs(connection: Connection, filter: ErrorFilter) -> list[int] | None:
    if not filter.job and not filter.scheduler:
        return None
    conditions = [
        column.in_([clean(text) for text in wanted])
        for column, wanted in ((job.c.name, filter.job), (job.c.scheduler, filter.scheduler))
        if wanted
    ]
    return list(connection.scalars(sa.select(job.c.id).where(*conditions)))


def _conditions(connection: Connection, filter: ErrorFilter) -> Iterator[ColumnElement[bool]]:
    group = error_group.c
    jobs = _jobs(connection, filter)
    if jobs is not None:
        yield group.job.in_(jobs)
    if filter.kind:
        yield group.kind.in_([clean(text) for text in filter.kind])
    if filter.state:
        yield group.state.in_([STATES.index(state) for state in filter.state])
    if filter.since is not None:
        yield group.last_seen >= filter.since
    if filter.until is not None:
        yield group.first_seen < filter.until
    if filter.q:
        holds = sa.func.instr if connection.dialect.name == "sqlite" else sa.func.strpos
        text = clean(filter.q).encode().lower().decode()  # as `filters` does
        yield sa.or_(
            *(
                holds(sa.func.lower(column), text) > 0
                for column in (group.kind, group.name, group.place, group.message)
            )
        )


def _beyond(column: ColumnElement[int], after: bytes, descending: bool) -> ColumnElement[bool]:
    value, fingerprint = int.from_bytes(after[:8], "big"), after[8:]
    here, there = sa.tuple_(column, error_group.c.fingerprint), sa.tuple_(value, fingerprint)
    return here < there if descending else here > there


def _place(group: ErrorGroup, sort: ErrorSort) -> bytes:
    """16 bytes that say where in this order the group is."""
    value = {"last_seen": group.last_seen, "first_seen": group.first_seen, "count": group.failures}[sort]
    return max(value, 0).to_bytes(8, "big") + group.fingerprint


_PLAIN = [field for field in ErrorGroup.__struct_fields__ if field not in ("stack", "data")]
