"""Who counts: counters belong to a replica, which is never two processes at once."""

import logging
import socket
import time
from uuid import uuid4

import msgspec
import sqlalchemy as sa

from taskscope.counts import Counts
from taskscope.errors import Unavailable
from taskscope.sinks.history.mark import Mark, size
from taskscope.sinks.history.schema import counter, replica

logger = logging.getLogger("taskscope")

_LOCKS = 0x7265706C  # of PostgreSQL, "repl": one lock for each replica, held as long as the connection lives
_SLOTS = 256
_PATIENCE = 2.0
_PAUSE = 0.05


_SERVER = "SELECT system_identifier || '.' || left(pg_walfile_name(pg_current_wal_lsn()), 8) FROM pg_control_system()"
"""SQL: the database server and its timeline, which is another one after recovery to a point in time."""
_decode = msgspec.msgpack.Decoder(Counts).decode


def take(connection: sa.Connection, service: str, mark: Mark | None = None) -> int:
    """The replica that this process is: the file's own, or on PostgreSQL the first free one of this host.

    Of a history that was put back to an earlier state it is a new one, which counts from 0.
    """
    if mark is not None:
        return _of_file(connection, mark)
    place = f"{socket.gethostname()}/{service}@{_incarnation(connection)}"
    first = _ensure(connection, f"{place}/0")
    until = time.monotonic() + _PATIENCE
    while not _lease(connection, first):  # a process that was killed a moment ago may still seem to hold it
        if time.monotonic() > until:
            return _another(connection, place)
        time.sleep(_PAUSE)
    return first


class Company(msgspec.Struct, frozen=True):
    """Who writes to a history."""

    writers: int
    """Processes that are connected now."""
    came: int
    """Differs when another one has come meanwhile, also if it left again."""


def company(connection: sa.Connection) -> Company:
    """Who writes to this history besides this process: nobody where it is a file."""
    if connection.dialect.name == "sqlite":
        return Company(writers=1, came=0)
    writers, came = connection.exec_driver_sql(
        "SELECT (SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database"
        f" WHERE datname = current_database() AND locktype = 'advisory' AND classid = {_LOCKS} AND objsubid = 2),"
        " (SELECT last_value FROM replica_id_seq)"  # whoever comes takes a number, though it has one already
    ).one()
    return Company(writers=writers, came=came)


def _of_file(connection: sa.Connection, mark: Mark) -> int:
    name = connection.execute(sa.select(replica.c.name).order_by(replica.c.id.desc())).scalar() or uuid4().hex
    number = _ensure(connection, name)  # also writes: a file that is read-only shows at once
    counts = connection.execute(sa.select(counter.c.counts).where(counter.c.replica == number)).scalars()
    counted = size(map(_decode, counts))
    if counted and not mark.agrees(name, counted):
        logger.info(
            "taskscope: the history is not as it was left, so counters begin again at 0; its runs stay"
        )
        name, counted = uuid4().hex, 0
        number = _ensure(connection, name)
    mark.begin(name, counted)
    return number


def _incarnation(connection: sa.Connection) -> str:
    """What is another one when these tables were restored: by hand, from a dump or to a point in time."""
    table = connection.exec_driver_sql("SELECT 'counter'::regclass::oid").scalar_one()
    try:
        with connection.begin_nested():
            return f"{connection.exec_driver_sql(_SERVER).scalar_one()}.{table}"
    except sa.exc.DBAPIError:  # a server that keeps this to itself
        return str(table)


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
