"""Pages of runs: in the order of ids by cursor, at the same price at any depth, or sorted by a column."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Select

from taskscope.facts import RANKED, Bit
from taskscope.identity import anchor_ms
from taskscope.sinks.history import schema
from taskscope.sinks.history.filters import Conditions, branches, everything
from taskscope.sinks.history.records import Run, SortColumn

EXACT = 10_000
"""Up to here matching runs are counted, beyond they are estimated."""

Ids: TypeAlias = Select[Any]

run, job, name, detail = schema.run, schema.job, schema.name, schema.detail

_INTERNED = ("reason", "exception", "queue", "worker", "instance", "entity")
_MANY = 2**63
_STATUS_ORDER = {RANKED.index(status): place for place, status in enumerate(sorted(RANKED))}


def by_id(conditions: Conditions, limit: int, offset: int = 0, descending: bool = True) -> Ids:
    """Ids of matching runs, newest (or oldest) first; no index range is read further than needed."""
    ways = [sa.select(run.c.id).where(*way) for way in branches(conditions)]
    if len(ways) == 1:
        return ways[0].order_by(_order(run.c.id, descending)).limit(limit).offset(offset)
    parts = [way.order_by(_order(run.c.id, descending)).limit(limit + offset).subquery() for way in ways]
    ids = sa.union_all(*(sa.select(part.c.id) for part in parts)).subquery()
    return sa.select(ids.c.id).order_by(_order(ids.c.id, descending)).limit(limit).offset(offset)


def by_column(
    dialect: str, conditions: Conditions, limit: int, offset: int, column: SortColumn, descending: bool
) -> Ids:
    """Ids of matching runs, sorted by a column and then by id; where it is unknown they come last."""
    ids = sa.select(run.c.id).where(*everything(conditions)).limit(limit).offset(offset)
    last = _order(run.c.id, descending)
    if column == "task":
        return ids.join(job, job.c.id == run.c.job).order_by(_order(job.c.name, descending), last)
    if column == "status":
        return ids.order_by(_order(sa.case(_STATUS_ORDER, value=run.c.rank), descending), last)
    if column == "started_at":
        begun = sa.func.coalesce(sa.func.nullif(run.c.started, 0), _anchor(dialect))
        return ids.order_by(_order(begun, descending), last)
    unknown, value = run.c.ended == 0, run.c.ended
    if column == "duration":
        unknown, value = run.c.facts.op("&")(Bit.HAS_DURATION) == 0, run.c.duration
    return ids.order_by(unknown, _order(value, descending), last)


def fetch(connection: Connection, ids: Sequence[bytes], texts: Sequence[str] = ("message",)) -> list[Run]:
    """The runs with these ids, in the same order, with these texts of theirs."""
    query = sa.select(run, *(detail.c[text] for text in texts)).outerjoin(detail, detail.c.id == run.c.id)
    found = {bytes(row.id): row for row in connection.execute(query.where(run.c.id.in_(ids)))}
    jobs = _jobs(connection, {row.job for row in found.values()})
    names = _names(connection, {getattr(row, column) for row in found.values() for column in _INTERNED})
    return [_run(found[id], jobs, names, texts) for id in ids if id in found]


def count(connection: Connection, conditions: Conditions, since: int | None) -> tuple[int, bool]:
    """How many runs match, and whether that is exact. For an estimate the newest 10 000 stand for all."""
    number = 0
    for way in branches(conditions):
        some = sa.select(sa.literal_column("1")).select_from(run).where(*way).limit(EXACT + 1 - number)
        number += connection.execute(sa.select(sa.func.count()).select_from(some.subquery())).scalar_one()
        if number > EXACT:
            return _estimate(connection, conditions, since), False
    return number, True


def _estimate(connection: Connection, conditions: Conditions, since: int | None) -> int:
    size, first = _size(connection)
    if not everything(conditions):
        return max(EXACT, size)
    newest, last = (connection.execute(by_id(conditions, 1, skip)).scalar_one() for skip in (0, EXACT))
    span, all_of_it = anchor_ms(newest) - anchor_ms(last), anchor_ms(newest) - max(since or 0, first)
    return max(EXACT, min(size, EXACT * all_of_it // span if span else size))


def _size(connection: Connection) -> tuple[int, int]:
    """How many runs there are (PostgreSQL's own estimate, where it has one), and the anchor of the oldest."""
    oldest = sa.select(run.c.id).order_by(run.c.id).limit(1).scalar_subquery()
    number: Any = sa.select(sa.func.count()).select_from(run).scalar_subquery()
    if connection.dialect.name == "postgresql":
        number = sa.literal_column("(SELECT reltuples::bigint FROM pg_class WHERE oid = 'run'::regclass)")
    size, id = connection.execute(sa.select(number, oldest)).one()
    return (size if size > 0 else _MANY), anchor_ms(id)


def _order(column: ColumnElement[Any], descending: bool) -> ColumnElement[Any]:
    return column.desc() if descending else column.asc()


def _anchor(dialect: str) -> ColumnElement[int]:
    if dialect == "sqlite":
        return sa.func.anchor_ms(run.c.id, type_=sa.BigInteger)  # a function that the reader adds
    return sa.literal_column("('x' || encode(substr(run.id, 1, 6), 'hex'))::bit(48)::bigint", sa.BigInteger)


def _jobs(connection: Connection, ids: Iterable[int]) -> dict[int, tuple[str, str]]:
    query = sa.select(job.c.id, job.c.scheduler, job.c.name).where(job.c.id.in_(ids))
    return {id: (scheduler, text) for id, scheduler, text in connection.execute(query)}


def _names(connection: Connection, ids: Iterable[int]) -> dict[int, str]:
    query = sa.select(name.c.id, name.c.text).where(name.c.id.in_(ids))
    return {0: ""} | {row.id: row.text for row in connection.execute(query)}


def _run(row: Any, jobs: dict[int, tuple[str, str]], names: dict[int, str], texts: Sequence[str]) -> Run:
    scheduler, job_name = jobs[row.job]
    return Run(
        id=bytes(row.id),
        scheduler=scheduler,
        job=job_name,
        status=RANKED[row.rank],
        attempt=row.attempt,
        due=row.due or None,
        enqueued=row.enqueued or None,
        started=row.started or None,
        ended=row.ended or None,
        duration=row.duration if row.facts & Bit.HAS_DURATION else None,
        trace_id=row.trace_id,
        **{column: names[getattr(row, column)] for column in _INTERNED},
        **{text: getattr(row, text) or "" for text in texts},
    )
