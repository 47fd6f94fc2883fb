"""What the tests of the history tell a store, and how they look behind its back."""

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from taskscope.events import Fact
from taskscope.facts import Row, merge, row_of
from taskscope.identity import run_id
from taskscope.settings import Settings
from taskscope.sinks.history.sql import SqlStore

NOW = 1_760_000_000.0
"""The present of these tests."""


def row(
    number: int, status: str, *, at: float = NOW, anchor: float = NOW, scheduler: str = "s", **known: Any
) -> Row:
    """What one fact says of the run with this number."""
    known = {"job": "job"} | known
    fact = Fact(scheduler=scheduler, native=str(number), status=status, at=at, anchor=anchor, **known)
    return row_of(fact, run_id(scheduler, str(number), 0, int(anchor * 1000)))


def batch(rows: Iterable[Row]) -> list[Row]:
    """Rows as the pipeline hands them over: one for each run, in order."""
    merged: dict[bytes, Row] = {}
    for new in rows:
        merged[new.id] = merge(merged[new.id], new) if new.id in merged else new
    return [merged[run] for run in sorted(merged)]


def done(number: int, *, at: float = NOW, duration: float = 1.0, **known: Any) -> Row:
    """A run that succeeded."""
    return row(number, "success", at=at, started=at - duration, duration=duration, **known)


@contextmanager
def opened(url: str, settings: Settings | None = None, clock: float = NOW) -> Iterator[SqlStore]:
    """A store of this history; its clock stands still."""
    store = SqlStore(url, settings or Settings(service="tests"), clock=lambda: clock)
    store.open()
    try:
        yield store
    finally:
        store.close()


def select(url: str, query: str) -> list[tuple[Any, ...]]:
    """What is in the database, asked beside the store."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("SET search_path TO taskscope")
        return [tuple(found) for found in connection.exec_driver_sql(query)]


def stored(url: str, scheduler: str = "s") -> dict[bytes, tuple[Any, ...]]:
    """Every column of every run that facts determine, names as texts, by run id."""
    names = ("reason", "exception", "queue", "worker", "instance", "entity")
    texts = ", ".join(f"coalesce((SELECT text FROM name WHERE name.id = run.{name}), '')" for name in names)
    found = select(
        url,
        f"SELECT run.id, facts, rank, job.name, attempt, due, enqueued, started, ended, duration, {texts},"
        " trace_id, key, result, message, stack, data, details FROM run JOIN job ON job.id = run.job"
        f" LEFT JOIN detail ON detail.id = run.id WHERE job.scheduler = '{scheduler}'",
    )
    return {bytes(run): tuple(columns) for run, *columns in found}


def expected(rows: Iterable[Row]) -> dict[bytes, tuple[Any, ...]]:
    """What `stored` has to be after these rows, by the words of `facts.merge`."""
    return {known.id: _columns(known) for known in batch(rows)}


def _columns(known: Row) -> tuple[Any, ...]:
    detail = known.detail
    return (
        *(
            known.facts,
            known.rank,
            known.job,
            known.attempt,
            known.due,
            known.enqueued,
            known.started,
            known.ended,
        ),
        *(
            known.duration,
            known.reason,
            known.exception,
            known.queue,
            known.worker,
            known.instance,
            known.entity,
        ),
        known.trace_id,
        known.key,
        known.result,
        *((detail.message, detail.stack, detail.data, detail.details) if detail else (None,) * 4),
    )


def python(source: str, *arguments: str, before: Iterable[str] = (), **options: Any) -> subprocess.Popen[str]:
    """Another process that runs this source; `before` is the command that starts it, if any."""
    path = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
    command = [*before, sys.executable, "-W", "error", "-c", source, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, **pipes, **options)
