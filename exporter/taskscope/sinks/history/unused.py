"""Removes names that no run needs any more: entities, workers and instances come and go, and each leaves a name.

What is merged meanwhile keeps its names: a pass begins with none remembered, and removes none that is remembered at
its end. Replicas on PostgreSQL remember names of their own, so there a pass is only made by one that is alone.
"""

from collections.abc import Iterator

import sqlalchemy as sa

from taskscope.sinks.history import replica
from taskscope.sinks.history.merge import slices
from taskscope.sinks.history.removed import removing
from taskscope.sinks.history.schema import instance, name, run
from taskscope.sinks.history.sql import SqlStore

FEW = 10_000
"""So many names are not worth a pass: it reads all runs."""
_HOP = 2_000  # runs read at once; that takes some milliseconds
_NAMED = (run.c.reason, run.c.exception, run.c.queue, run.c.worker, run.c.instance, run.c.entity)


def remove(store: SqlStore, chunk: int) -> Iterator[int]:
    """One pass in short steps; gives how many names each removed. It ends early where it cannot be sure."""
    with store.transaction() as connection:
        number, newest = connection.execute(sa.select(sa.func.count(), sa.func.max(name.c.id))).one()
        company = replica.company(connection)
    if number <= FEW or company.writers > 1:
        return
    store.names.forget()
    forgotten, used = store.names.forgotten, set[int]()
    after: bytes | None = b""
    while after is not None:
        with store.transaction() as connection:
            after = _look(connection, after, used)
        yield 0
    last: int | None = 0
    while last is not None:
        with store.transaction() as connection:
            removing(connection)
            if store.names.forgotten != forgotten or replica.company(connection) != company:
                return
            last, removed = _remove_some(connection, used | store.names.keys.keys(), last, newest, chunk)
        yield removed


def _look(connection: sa.Connection, after: bytes, used: set[int]) -> bytes | None:
    """Note the names of the next runs; returns the last of these, None at the end."""
    query = sa.select(run.c.id, *_NAMED).where(run.c.id > after).order_by(run.c.id).limit(_HOP)
    runs = connection.execute(query).all()
    for _, *names in runs:
        used.update(names)
    return bytes(runs[-1].id) if len(runs) == _HOP else None


def _remove_some(
    connection: sa.Connection, used: set[int], last: int, newest: int, chunk: int
) -> tuple[int | None, int]:
    """Of the next names remove those that are not used; returns the last one looked at, None at the end."""
    query = sa.select(name.c.id).where(name.c.id > last, name.c.id <= newest).order_by(name.c.id)
    names = list(connection.scalars(query.limit(chunk)))
    living = set(connection.scalars(sa.select(instance.c.name)))
    gone = [number for number in names if number not in used and number not in living]
    for some in slices(gone):
        connection.execute(sa.delete(name).where(name.c.id.in_(some)))
    return names[-1] if len(names) == chunk else None, len(gone)
