"""The one connection that writes the history: made again after every failure, which is told in a sentence."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from taskscope.errors import BadArgument, BadEvent, Unavailable
from taskscope.sinks.history.schema import NAMESPACE

_SQLITE = (
    "PRAGMA busy_timeout=5000",  # first: the next ones may have to wait for a reader
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA cache_size=-32768",
    "PRAGMA journal_size_limit=67108864",
    "PRAGMA foreign_keys=OFF",
)
_POSTGRESQL = (
    f"SET search_path TO {NAMESPACE}",
    "SET synchronous_commit TO on",
    "SET statement_timeout TO '30s'",
    "SET lock_timeout TO '10s'",
    "SET idle_in_transaction_session_timeout TO '60s'",
    "SET client_min_messages TO warning",
)
_BAD = (DataError, OverflowError, UnicodeError)
_KNOWN = {
    "database or disk is full": "the disk is full; free some space",
    "attempt to write a readonly database": "the file or its directory is read-only; make both writable",
    "unable to open database file": "the file cannot be opened; check its directory",
    "file is not a database": "the file is not a SQLite database; move it away or name another one",
    "database disk image is malformed": "the file is damaged; restore a copy or move it away",
    "database is locked": "another program has locked the file",
    "disk I/O error": "the disk reports an error (I/O error)",
}


class Database:
    """One connection, one transaction at a time; `session` sets up each, `forget` follows its end."""

    def __init__(
        self, url: str, session: Callable[[sa.Connection], None], forget: Callable[[], None]
    ) -> None:
        self._url = parse(url)
        self._session = session
        self._forget = forget
        self._engine = _engine(self._url)
        self._connection: sa.Connection | None = None
        self._lock = threading.RLock()

    @property
    def place(self) -> str:
        """Where the history is, without its password."""
        return shown(self._url)

    @property
    def path(self) -> Path | None:
        """Its file; None on a server."""
        return Path(self._url.database or "") if self._url.get_backend_name() == "sqlite" else None

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """A transaction, durable once the block is left. Raises `Unavailable`: it may hold or not, then.

        Raises `BadEvent` for a value that the database cannot hold.
        """
        with self._lock:
            try:
                connection = self._connected()
                with connection.begin():
                    yield connection
            except BaseException as error:
                self._drop()
                if isinstance(error, _BAD):
                    raise BadEvent(f"the history cannot hold it: {self._why(error)}") from error
                if self._is_outage(error):
                    raise Unavailable(
                        f"the history {self.place} cannot be written: {self._why(error)}"
                    ) from error
                raise

    def close(self) -> None:
        """Close the connection, after a transaction under way; may be called twice, from any thread."""
        with self._lock:
            self._drop()

    def _connected(self) -> sa.Connection:
        if self._connection is None:
            self._connection = self._engine.connect()
            with self._connection.begin():
                self._session(self._connection)
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        self._forget()
        if connection is not None:
            with suppress(Exception):  # what is broken may fail to close as well
                connection.close()

    def _is_outage(self, error: BaseException) -> bool:
        driver: Any = self._engine.dialect.loaded_dbapi
        return isinstance(error, (SQLAlchemyError, driver.Error, OSError))

    def _why(self, error: BaseException) -> str:
        text = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
        text = next((why for known, why in _KNOWN.items() if known in text), text.splitlines()[0])
        password = str(self._url.password or "")
        return text.replace(password, "***") if password else text


def shown(url: URL) -> str:
    """The URL as people know it, without driver and password."""
    return url.set(drivername=url.get_backend_name()).render_as_string(hide_password=True)


def parse(url: str) -> URL:
    """The URL of a history, with the driver that we use. Raises `BadArgument`."""
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, NoSuchModuleError):
        backend = ""
    if backend == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise BadArgument(
            "history='sqlite://' names no file; give `sqlite:///file`, or None to keep nothing on disk"
        )
    if backend not in ("sqlite", "postgresql"):
        raise BadArgument(
            "history is neither `sqlite:///file` nor `postgresql://user:password@host/database`"
        )
    return parsed.set(drivername="postgresql+psycopg" if backend == "postgresql" else "sqlite+pysqlite")


def _engine(url: URL) -> sa.Engine:
    if url.get_backend_name() == "sqlite":
        engine = sa.create_engine(url, poolclass=NullPool, connect_args={"check_same_thread": False})
        sa.event.listen(engine, "connect", _set_up_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine
    try:
        arguments = {"connect_timeout": 5, "application_name": "taskscope"}
        engine = sa.create_engine(url, poolclass=NullPool, connect_args=arguments)
    except ModuleNotFoundError as error:
        raise BadArgument("history on PostgreSQL needs psycopg: pip install 'taskscope[postgres]'") from error
    sa.event.listen(engine, "connect", _set_up_postgresql)
    return engine


def _set_up_sqlite(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # the module must not begin transactions by its own rules
    for pragma in _SQLITE:
        connection.execute(pragma).fetchall()


def _begin_sqlite(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _set_up_postgresql(connection: Any, _: object) -> None:
    for statement in _POSTGRESQL:
        connection.execute(statement)
    connection.commit()
