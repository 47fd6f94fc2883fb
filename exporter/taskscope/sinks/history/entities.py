"""What the runs were about: shops, tenants, databases, and how the runs of each went."""

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from taskscope.facts import RANKED
from taskscope.identity import anchor_ms, first_id
from taskscope.sinks.history.schema import ABOUT, job, name, run

_BAD = ("failed", "unknown")


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
    sqlite = connection.dialect.name == "sqlite"  # PostgreSQL knows no max() of bytes
    latest = sa.func.max(sa.func.hex(run.c.id) if sqlite else sa.func.encode(run.c.id, "hex"))
    query = (
        sa.select(name.c.text, job.c.scheduler, run.c.rank, sa.func.count(), latest)
        .select_from(run)
        .join(job, job.c.id == run.c.job)
        .join(name, name.c.id == run.c.entity)
        .where(sa.text(f"run.{ABOUT}"), run.c.id >= first_id(since), run.c.id < first_id(until))
        .group_by(name.c.text, job.c.scheduler, run.c.rank)
        .order_by(name.c.text, job.c.scheduler, run.c.rank)
    )
    if schedulers:
        query = query.where(job.c.scheduler.in_(schedulers))
    if jobs:
        query = query.where(job.c.name.in_(jobs))
    found: dict[tuple[str, str], dict[str, tuple[int, bytes]]] = {}
    for entity, scheduler, rank, count, id in connection.execute(query):
        found.setdefault((entity, scheduler), {})[RANKED[rank]] = (count, bytes.fromhex(id))
    return [_stats(*key, statuses) for key, statuses in found.items()]


def _stats(entity: str, scheduler: str, statuses: dict[str, tuple[int, bytes]]) -> EntityStats:
    nothing = (0, b"")
    bad = max(statuses.get(status, nothing)[1] for status in _BAD)
    return EntityStats(
        entity=entity,
        scheduler=scheduler,
        statuses={status: count for status, (count, _) in statuses.items()},
        last_run=anchor_ms(max(id for _, id in statuses.values())),
        healthy=bad <= statuses.get("success", nothing)[1],
    )
