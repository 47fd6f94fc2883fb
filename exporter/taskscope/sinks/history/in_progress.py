"""Runs in progress as the history knows them."""

from collections.abc import Collection

import sqlalchemy as sa

from taskscope.facts import RANK, Bit, Row
from taskscope.sinks.history.merge import slices
from taskscope.sinks.history.schema import UNSUCCESSFUL, job, run

_MOST = 10_000
_IN_PROGRESS = sa.and_(run.c.rank == RANK["started"], sa.text(UNSUCCESSFUL))


def oldest(connection: sa.Connection) -> list[Row]:
    """Those whose process is named, so that its silence ends them: the oldest, for the latest are soon over."""
    query = (
        sa.select(run.c.id, job.c.scheduler, job.c.name, run.c.started)
        .join(job, job.c.id == run.c.job)
        .where(_IN_PROGRESS, run.c.instance != 0, run.c.started != 0, job.c.name != "")
        .order_by(run.c.rank, run.c.id)  # by id alone SQLite would walk through all runs
        .limit(_MOST)
    )
    return [_row(bytes(id_), *known) for id_, *known in connection.execute(query)]


def ended(connection: sa.Connection, runs: Collection[bytes]) -> set[bytes]:
    """Those of these runs that have ended, or are gone."""
    query = sa.select(run.c.id).where(_IN_PROGRESS)
    left = set(runs)
    for some in slices(sorted(runs)):
        left.difference_update(map(bytes, connection.execute(query.where(run.c.id.in_(some))).scalars()))
    return left


def _row(id_: bytes, scheduler: str, job_name: str, started: int) -> Row:
    return Row(id_, scheduler, Bit.STARTED | Bit.NAMED, RANK["started"], job_name, started=started)
