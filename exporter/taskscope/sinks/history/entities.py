"""What the runs were about: shops, tenants, databases, and how the runs of each went."""

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from taskscope.events import JobKey, Status
from taskscope.facts import RANK, RANKED
from taskscope.identity import anchor_ms, first_id
from taskscope.sinks.history.schema import ABOUT, clean, digest, job, name, run, unindexed

Subject: TypeAlias = tuple[JobKey, str]
"""A job, and what it ran for."""

_BAD: tuple[Status, ...] = ("failed", "unknown")
_SETTLED: tuple[Status, ...] = ("success", *_BAD)
"""Statuses that say how a run went: one that is retried goes on, and one that is skipped never was."""
_MOST = 10_000  # runs about one thing that are looked at
_NOTHING = (0, b"")


class EntityStats(msgspec.Struct, frozen=True, kw_only=True):
    """The runs of one scheduler that were about one thing, in a span of time."""

    entity: str
    scheduler: str
    statuses: dict[str, int]
    last_run: int
    """Anchor of the latest, in ms."""
    healthy: bool
    """Has nothing failed since the latest success?"""


def read(
    connection: Connection, since: int, until: int, schedulers: Sequence[str], jobs: Sequence[str]
) -> list[EntityStats]:
    """Everything that runs with an anchor in [since, until) ms were about, by name and scheduler."""
    found: dict[tuple[str, str], dict[str, tuple[int, bytes]]] = {}
    for (key, entity), status, count, id in _tallies(connection, since, until, schedulers, jobs):
        statuses = found.setdefault((entity, key[0]), {})
        before, latest = statuses.get(status, _NOTHING)
        statuses[status] = (before + count, max(latest, id))
    return [_stats(*key, statuses) for key, statuses in found.items()]


def failing(connection: Connection, since: int, until: int) -> list[Subject]:
    """What the last run that ended was no success for, of those with an anchor in [since, until) ms; latest first."""
    last: dict[Subject, tuple[bytes, bool]] = {}
    for subject, status, _, id in _tallies(connection, since, until):
        if status in _SETTLED:
            last[subject] = max(last.get(subject, (b"", False)), (id, status in _BAD))
    bad = [(id, subject) for subject, (id, is_bad) in last.items() if is_bad]
    return [subject for _, subject in sorted(bad, reverse=True)]


def failures(
    connection: Connection, subject: Subject, since: int, shown: int, until: int
) -> tuple[bytes, list[bytes]]:
    """The last run about it that succeeded (empty for none), and those that failed, the latest first.

    Of anchors in [since, until) ms; of failures those after that success or `shown`, as the rest would take long.
    """
    key, entity = subject
    jobs = sa.select(job.c.id).where(job.c.digest == digest(*map(clean, key))).scalar_subquery()
    entities = sa.select(name.c.id).where(name.c.digest == digest(clean(entity))).scalar_subquery()
    about = (
        sa.select(run.c.id)
        .where(sa.text(f"run.{ABOUT}"), run.c.entity == entities, run.c.id < first_id(until))
        .where(unindexed(run.c.job) == jobs)
        .order_by(run.c.id.desc())
    )
    succeeded = about.where(run.c.rank == RANK["success"], run.c.id >= first_id(since)).limit(1)
    success = bytes(connection.scalar(succeeded) or b"")
    begin = min(success or first_id(since), first_id(max(since, shown)))
    failed = about.where(run.c.rank.in_([RANK[status] for status in _BAD]), run.c.id >= begin)
    return success, list(map(bytes, connection.scalars(failed.limit(_MOST))))


def _tallies(
    connection: Connection, since: int, until: int, schedulers: Sequence[str] = (), jobs: Sequence[str] = ()
) -> Iterator[tuple[Subject, Status, int, bytes]]:
    """By job, entity and status how many runs there are, and the latest; in the order of entities and schedulers."""
    if connection.scalar(sa.select(run.c.entity).where(sa.text(ABOUT)).limit(1)) is None:
        return  # the usual case where nobody says what runs are about, and costs nothing
    sqlite = connection.dialect.name == "sqlite"  # PostgreSQL knows no max() of bytes
    latest = sa.func.max(sa.func.hex(run.c.id) if sqlite else sa.func.encode(run.c.id, "hex"))
    by = {column.name: unindexed(column) for column in (run.c.entity, run.c.job, run.c.rank)}
    tallied = (
        sa.select(
            *(column.label(n) for n, column in by.items()),
            sa.func.count().label("runs"),
            latest.label("latest"),
        )
        .where(sa.text(f"run.{ABOUT}"), run.c.id >= first_id(since), run.c.id < first_id(until))
        .group_by(*by.values())
        .subquery()
    )
    query = (
        sa.select(
            name.c.text, job.c.scheduler, job.c.name, *(tallied.c[n] for n in ("rank", "runs", "latest"))
        )
        .select_from(tallied)
        .join(job, job.c.id == tallied.c.job)
        .join(name, name.c.id == tallied.c.entity)
        .order_by(name.c.text, job.c.scheduler, job.c.name, tallied.c.rank)
    )
    if schedulers:
        query = query.where(job.c.scheduler.in_(schedulers))
    if jobs:
        query = query.where(job.c.name.in_(jobs))
    for entity, scheduler, of, rank, count, id in connection.execute(query):
        yield ((scheduler, of), entity), RANKED[rank], count, bytes.fromhex(id)


def _stats(entity: str, scheduler: str, statuses: dict[str, tuple[int, bytes]]) -> EntityStats:
    bad = max(statuses.get(status, _NOTHING)[1] for status in _BAD)
    return EntityStats(
        entity=entity,
        scheduler=scheduler,
        statuses={status: count for status, (count, _) in statuses.items()},
        last_run=anchor_ms(max(id for _, id in statuses.values())),
        healthy=bad <= statuses.get("success", _NOTHING)[1],
    )
