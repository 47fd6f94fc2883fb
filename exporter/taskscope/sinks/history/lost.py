"""Runs whose process is gone or silent."""

import os
import socket
from collections.abc import Mapping

import sqlalchemy as sa

from taskscope.facts import RANK, Row, lost_row
from taskscope.sinks.history.schema import UNSUCCESSFUL, instance, job, name, run

_AT_ONCE = 5_000
_OPEN = sa.and_(run.c.rank.in_([RANK["queued"], RANK["started"]]), sa.text(UNSUCCESSFUL))
"""Also those that wait: a fact names an instance only where the queue is inside of it."""


def beat(connection: sa.Connection, instances: Mapping[int, str], now: float) -> None:
    """Note that the processes `host:pid:uuid`, interned as these numbers, live."""
    mark = "?" if connection.dialect.name == "sqlite" else "%s"
    connection.exec_driver_sql(
        f"INSERT INTO instance (name, host, pid, beat) VALUES ({mark}, {mark}, {mark}, {mark})"
        " ON CONFLICT (name) DO UPDATE SET beat = excluded.beat",
        [(number, *place(text), int(now * 1000)) for number, text in sorted(instances.items())],
    )


def lost(connection: sa.Connection, now: float, after: float) -> list[Row]:
    """Runs in progress whose process is gone or silent, some thousands at most: ask again for the rest."""
    since = int((now - after) * 1000)
    seen = sa.case((run.c.started > run.c.enqueued, run.c.started), else_=run.c.enqueued)
    silent = sa.func.coalesce(instance.c.beat, seen) < since
    query = (
        sa.select(run.c.id, job.c.scheduler, job.c.name, run.c.started, run.c.enqueued)
        .select_from(run)
        .join(job, job.c.id == run.c.job)
        .outerjoin(instance, instance.c.name == run.c.instance)
        .where(_OPEN, run.c.instance != 0, sa.or_(silent, run.c.instance.in_(_gone(connection))))
        .order_by(run.c.rank, run.c.id)  # by id alone SQLite would walk through all runs
        .limit(_AT_ONCE)
    )
    return [lost_row(bytes(run_id), *known) for run_id, *known in connection.execute(query)]


def _gone(connection: sa.Connection) -> list[int]:
    """Instances of this host, with runs in progress, whose pid no process has."""
    open_runs = sa.select(run.c.instance).where(_OPEN).distinct().subquery()
    query = sa.select(name.c.id, name.c.text).join(open_runs, open_runs.c.instance == name.c.id)
    here = socket.gethostname()
    return [number for number, text in connection.execute(query) if _is_gone(*place(text), here)]


def _is_gone(host: str, pid: int, here: str) -> bool:
    if host != here or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # it is there but somebody else's
        return False
    return False


def place(text: str) -> tuple[str, int]:
    """Host and pid of `host:pid:uuid`; pid 0 where the text says something else."""
    host, _, rest = text.partition(":") if text.count(":") == 2 else ("", "", "")
    pid = rest.partition(":")[0]
    return (host, int(pid)) if pid.isdecimal() and len(pid) < 10 else (text, 0)


def sweep(connection: sa.Connection, before: float) -> None:
    """Forget processes that were silent since long ago."""
    connection.execute(sa.delete(instance).where(instance.c.beat < int(before * 1000)))
