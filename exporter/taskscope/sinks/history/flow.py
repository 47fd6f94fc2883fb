"""What came into queues, went out of them, and is in them, of late."""

from collections.abc import Iterator
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection

from taskscope.facts import RANK, Bit
from taskscope.identity import anchor_ms, first_id
from taskscope.sinks.history.schema import job, name, run, unindexed

_BEFORE = 24 * 3_600_000  # ms: a run that ended in the span, or waits still, may have come so long before it
_MOST = 50_000  # runs that are read, the newest: where more came, the span is shorter

_NUMBERS = ("waiting", "running", "arrived", "fresh", "ended", "timed", "took", "age")


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """The runs of one job in one queue, in a span of time up to now."""

    scheduler: str
    job: str
    queue: str
    """Empty where nobody says."""
    waiting: int
    """Enqueued and not started."""
    running: int
    arrived: int
    """Enqueued in the span, and started since then."""
    fresh: int
    """Enqueued in the span, and waiting."""
    ended: int
    """Ended in the span."""
    timed: int
    """Of those that ended, how many have a duration."""
    took: int
    """µs that these took together."""
    age: int
    """ms that those in progress have taken so far, together."""


class Flows(msgspec.Struct, frozen=True, kw_only=True):
    """All flows, and the span in which they were counted."""

    since: int
    until: int
    flows: list[Flow]

    @property
    def seconds(self) -> float:
        """How long the span is."""
        return max(self.until - self.since, 1) / 1000


def read(connection: Connection, since: int, until: int) -> Flows:
    """The flows from `since` until now, or of as much of it as the newest runs tell."""
    oldest = first_id(since - _BEFORE)
    newest = sa.select(run.c.id).where(run.c.id >= oldest).order_by(run.c.id.desc())
    beyond = connection.scalar(newest.limit(1).offset(_MOST))
    if beyond is not None:
        oldest, since = bytes(beyond), max(since, anchor_ms(beyond))
    return Flows(since=since, until=until, flows=list(_read(connection, oldest, since, until)))


def _read(connection: Connection, oldest: bytes, since: int, until: int) -> Iterator[Flow]:
    by = {column.name: unindexed(column) for column in (run.c.job, run.c.queue)}
    counted = (
        sa.select(*(column.label(n) for n, column in by.items()), *_numbers(since, until))
        .where(run.c.id >= oldest, sa.or_(_WAITS, _RUNS, _came(since), run.c.ended >= since))
        .group_by(*by.values())
        .subquery()
    )
    query = sa.select(job.c.scheduler, job.c.name, name.c.text, *(counted.c[name] for name in _NUMBERS))
    named = counted.join(job, job.c.id == counted.c.job).outerjoin(name, name.c.id == counted.c.queue)
    for scheduler, of, queue, *numbers in connection.execute(query.select_from(named)):
        counts = dict(zip(_NUMBERS, map(int, numbers), strict=True))  # PostgreSQL adds up to decimals
        yield Flow(scheduler=scheduler, job=of, queue=queue or "", **counts)


def _numbers(since: int, until: int) -> Iterator[ColumnElement[Any]]:
    came, ended = _came(since), run.c.ended >= since
    timed = sa.and_(ended, run.c.facts.op("&")(Bit.HAS_DURATION) != 0)
    one: ColumnElement[int] = sa.literal_column("1", sa.Integer)
    age = sa.case((run.c.started > 0, until - run.c.started), else_=0)
    sums = (
        (_WAITS, one),
        (_RUNS, one),
        (sa.and_(~_WAITS, came), one),
        (sa.and_(_WAITS, came), one),
        (ended, one),
        (timed, one),
        (timed, run.c.duration),
        (_RUNS, age),
    )
    for label, (condition, value) in zip(_NUMBERS, sums, strict=True):
        yield sa.func.sum(sa.case((condition, value), else_=0)).label(label)


def _came(since: int) -> ColumnElement[bool]:
    return sa.or_(run.c.enqueued >= since, sa.and_(run.c.enqueued == 0, run.c.id >= first_id(since)))


_WAITS, _RUNS = run.c.rank == RANK["queued"], run.c.rank == RANK["started"]
