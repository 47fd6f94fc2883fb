"""Pages of runs: in the order of ids by cursor, at the same price at any depth, or sorted by a column."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import msgspec
import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Select

from taskscope.errors import BadArgument
from taskscope.facts import RANK, RANKED, Bit
from taskscope.identity import anchor_ms
from taskscope.sinks.history import schema
from taskscope.sinks.history.filters import Conditions, branches, everything
from taskscope.sinks.history.records import Run, SortColumn

EXACT = 10_000
"""Up to here matching runs are counted, beyond they are estimated."""
MAX_OFFSET = 100_000
"""An offset costs what it skips; deeper pages are reached by the cursor."""

Ids: TypeAlias = Select[Any]
Order: TypeAlias = list[ColumnElement[Any]]

run, job, name, detail = schema.run, schema.job, schema.name, schema.detail

_NUMBERS = ("id", "rank", "facts", "attempt", "due", "enqueued", "started", "ended", "duration")
_OWN_TEXTS = ("trace_id", "key", "result")
_INTERNED = ("reason", "exception", "queue", "worker", "instance", "entity")
_STATUS_ORDER = {RANKED.index(status): place for place, status in enumerate(sorted(RANKED))}


def order(dialect: str, column: SortColumn | None, descending: bool) -> Order:
    """By a column and then by id, or by id alone; where the column is unknown, runs come last."""
    by_id = _directed(run.c.id, descending)
    if column is None:
        return [by_id]
    if column == "task":
        return [_directed(job.c.name, descending), by_id]
    if column == "status":
        return [_directed(sa.case(_STATUS_ORDER, value=run.c.rank), descending), by_id]
    if column == "started_at":
        started = sa.func.coalesce(sa.func.nullif(run.c.started, 0), _anchor(dialect))
        return [_directed(started, descending), by_id]
    if column == "ended_at":
        return [run.c.ended == 0, _directed(run.c.ended, descending), by_id]
    unknown = run.c.facts.op("&")(Bit.HAS_DURATION) == 0
    return [unknown, _directed(run.c.duration, descending), by_id]


def by_id(conditions: Conditions, limit: int, offset: int = 0, descending: bool = True) -> Ids:
    """Ids of matching runs, newest (or oldest) first; no index range is read further than needed."""
    ways = [sa.select(run.c.id).where(*way) for way in branches(conditions)]
    if len(ways) == 1:
        return _cut(ways[0].order_by(_directed(run.c.id, descending)), limit, offset)
    parts = [_cut(way.order_by(_directed(run.c.id, descending)), limit + offset).subquery() for way in ways]
    ids = sa.union_all(*(sa.select(part.c.id) for part in parts)).subquery()
    return _cut(sa.select(ids.c.id).order_by(_directed(ids.c.id, descending)), limit, offset)


def by_column(conditions: Conditions, order: Order, limit: int, offset: int) -> Ids:
    """Ids of matching runs in this order."""
    ids = sa.select(run.c.id).join(job, job.c.id == run.c.job).where(*everything(conditions))
    return _cut(ids.order_by(*order), limit, offset)


def fetch(connection: Connection, ids: Ids, order: Order, texts: tuple[str, ...] = ("message",)) -> list[Run]:
    """The runs with these ids, in this order, with these texts of theirs."""
    found = connection.execute(_runs(texts).where(run.c.id.in_(ids)).order_by(*order))
    return [_run(row, texts) for row in found.all()]


@lru_cache(maxsize=4)
def _runs(texts: tuple[str, ...]) -> Select[Any]:
    """All runs with these texts; to put the query together anew would take longer than to ask it."""
    described = run.join(job, job.c.id == run.c.job).outerjoin(detail, detail.c.id == run.c.id)
    plain = (run.c[column] for column in (*_NUMBERS, *_OWN_TEXTS))
    names = (_name(run.c[column]) for column in _INTERNED)
    details = (detail.c[text] for text in texts)
    return sa.select(job.c.scheduler, job.c.name, *plain, *names, *details).select_from(described)


def _name(id: ColumnElement[int]) -> ColumnElement[str]:
    """The text with this id; most ids are 0, and for these nothing is looked up."""
    found = sa.select(name.c.text).where(name.c.id == id).correlate(run).scalar_subquery()
    return sa.case((id != sa.literal_column("0"), found), else_=sa.literal_column("''"))


class Size(msgspec.Struct, frozen=True):
    """How many runs there are (0 where only counting would tell), and how old the oldest is."""

    runs: int
    oldest: int
    """Its anchor in ms."""

    @property
    def large(self) -> bool:
        """So many that nobody counts them all."""
        return self.runs > 10 * EXACT


def size(connection: Connection) -> Size:
    """As of now."""
    number: Any = sa.select(sa.func.count()).select_from(run).scalar_subquery()
    if connection.dialect.name == "postgresql":  # its own estimate; -1 where it has none yet
        number = sa.literal_column("(SELECT reltuples::bigint FROM pg_class WHERE oid = 'run'::regclass)")
    oldest = sa.select(run.c.id).order_by(run.c.id).limit(1).scalar_subquery()
    runs, id = connection.execute(sa.select(number, oldest)).one()
    return Size(max(runs, 0), anchor_ms(id) if id else 0)


def count(connection: Connection, conditions: Conditions, since: int | None, size: Size) -> tuple[int, bool]:
    """How many runs match, and whether that is exact. For an estimate the newest 10 000 stand for all."""
    number = 0
    for way in branches(conditions):
        some: Ids = sa.select(sa.literal_column("1")).select_from(run).where(*way).limit(EXACT + 1 - number)
        number += connection.execute(sa.select(sa.func.count()).select_from(some.subquery())).scalar_one()
        if number > EXACT:
            estimate = _by_density(connection, conditions, max(since or 0, size.oldest))
            return max(EXACT + 1, min(estimate, size.runs or estimate)), False
    return number, True


def _by_density(connection: Connection, conditions: Conditions, begin: int) -> int:
    newest, last = (connection.execute(by_id(conditions, 1, skip)).scalar_one() for skip in (0, EXACT))
    return EXACT * (anchor_ms(newest) - begin) // max(1, anchor_ms(newest) - anchor_ms(last))


def _cut(ids: Ids, limit: int, offset: int = 0) -> Ids:
    """A limit that stands in the statement lets PostgreSQL plan it once; of offsets there are too many for that."""
    return ids.limit(sa.literal_column(str(limit))).offset(offset or None)


def _directed(column: ColumnElement[Any], descending: bool) -> ColumnElement[Any]:
    return column.desc() if descending else column.asc()


def _anchor(dialect: str) -> ColumnElement[int]:
    if dialect == "sqlite":
        return sa.func.anchor_ms(run.c.id, type_=sa.BigInteger)  # a function that the reader adds
    return sa.literal_column("('x' || encode(substr(run.id, 1, 6), 'hex'))::bit(48)::bigint", sa.BigInteger)


def _run(row: Sequence[Any], texts: Sequence[str]) -> Run:
    scheduler, job_name, id, rank, facts, attempt, due, enqueued, started, ended, duration, *others = row
    trace_id, key, result, reason, exception, queue, worker, instance, entity, *details = others
    return Run(
        id=bytes(id),
        scheduler=scheduler,
        job=job_name,
        status=RANKED[rank],
        # `lost` is never stored: the reason of a real ending that may still come must hold
        reason=schema.LOST if rank == _UNKNOWN else reason,
        attempt=attempt,
        due=due or None,
        enqueued=enqueued or None,
        started=started or None,
        ended=ended or None,
        duration=duration if facts & _HAS_DURATION else None,
        queue=queue,
        worker=worker,
        instance=instance,
        entity=entity,
        key=key,
        result=result,
        trace_id=trace_id,
        exception=exception,
        **{text: value or "" for text, value in zip(texts, details, strict=True)},
    )


_UNKNOWN, _HAS_DURATION = RANK["unknown"], Bit.HAS_DURATION


def check(limit: int, most: int, offset: int, after: bytes | None, sort: SortColumn | None) -> None:
    """Raises `BadArgument` where no such page can be asked for."""
    if not 1 <= limit <= most:
        raise BadArgument(f"limit={limit} is not between 1 and {most}")
    if not 0 <= offset <= MAX_OFFSET:
        raise BadArgument(f"offset={offset} is not between 0 and {MAX_OFFSET}: deeper pages need the cursor")
    if after is not None and (sort or offset):
        raise BadArgument(
            "a cursor goes with neither offset nor sort_column: it is a place in the order of ids"
        )
