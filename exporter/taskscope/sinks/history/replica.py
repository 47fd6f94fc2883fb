"""Who counts: counters belong to a replica, which is never two processes at once."""

import socket
import time
from uuid import uuid4

import sqlalchemy as sa

from taskscope.errors import Unavailable
from taskscope.sinks.history.schema import replica

_LOCKS = 0x7265706C  # of PostgreSQL, "repl": one lock for each replica, held as long as the connection lives
_SLOTS = 256
_PATIENCE = 2.0
_PAUSE = 0.05


def take(connection: sa.Connection, service: str) -> int:
    """The replica that this process is: the file's own, or on PostgreSQL the first free one of this host."""
    if connection.dialect.name == "sqlite":
        known = connection.execute(sa.select(replica.c.name).order_by(replica.c.id)).scalar()
        return _ensure(
            connection, known or uuid4().hex
        )  # also writes: a file that is read-only shows at once
    place = f"{socket.gethostname()}/{service}"
    first = _ensure(connection, f"{place}/0")
    until = time.monotonic() + _PATIENCE
    while not _lease(connection, first):  # a process that was killed a moment ago may still seem to hold it
        if time.monotonic() > until:
            return _another(connection, place)
        time.sleep(_PAUSE)
    return first


def _another(connection: sa.Connection, place: str) -> int:
    for slot in range(1, _SLOTS):
        number = _ensure(connection, f"{place}/{slot}")
        if _lease(connection, number):
            return number
    raise Unavailable(
        f"{_SLOTS} processes of {place} already write to this history; give some another `service`"
    )


def _ensure(connection: sa.Connection, name: str) -> int:
    mark = "?" if connection.dialect.name == "sqlite" else "%s"
    connection.exec_driver_sql(
        f"INSERT INTO replica (name) VALUES ({mark}) ON CONFLICT (name) DO NOTHING", (name,)
    )
    number: int = connection.execute(sa.select(replica.c.id).where(replica.c.name == name)).scalar_one()
    return number


def _lease(connection: sa.Connection, number: int) -> bool:
    return bool(connection.exec_driver_sql(f"SELECT pg_try_advisory_lock({_LOCKS}, {number})").scalar())
