"""A read-only way into the history: readers never block the writer, never write, and never take for ever."""

import math
import selectors
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, exc
from sqlalchemy.engine import URL
from sqlalchemy.pool import QueuePool

from taskscope import identity
from taskscope.errors import Unavailable
from taskscope.sinks.history import schema
from taskscope.sinks.history.database import parse, shown

CONNECTIONS = 4
DEADLINE = 10.0
"""Seconds that one question may take."""


class Reader:
    """Connections that can only read, for several threads."""

    def __init__(self, url: str, deadline: float = DEADLINE) -> None:
        self._url = parse(url)
        self._deadline = deadline
        make = _sqlite if self._url.get_backend_name() == "sqlite" else _postgresql
        self._engine = make(self._url, deadline)

    @property
    def place(self) -> str:
        """Where the history is, without its password."""
        return shown(self._url)

    @contextmanager
    def snapshot(self, alone: bool = False) -> Iterator[Connection]:
        """A connection on which all reads see one moment. Raises `Unavailable` in one sentence.

        A statement that is `alone` does without a transaction.
        """
        try:
            with self._engine.connect() as connection:
                connection.info["until"] = time.monotonic() + self._deadline
                try:
                    if not alone:
                        connection.exec_driver_sql("BEGIN")  # giving the connection back ends it
                    yield connection
                finally:
                    connection.info["until"] = math.inf
        except (exc.SQLAlchemyError, sqlite3.Error) as error:
            raise Unavailable(f"the history {self.place} cannot be read: {self._why(error)}") from error

    def close(self) -> None:
        """Close the connections that are not in use; the others when they are given back."""
        self._engine.dispose()

    def _why(self, error: Exception) -> str:
        cause = getattr(error, "orig", None) or error
        text = str(cause).strip().partition("\n")[0].rstrip(".") or type(cause).__name__
        if text == "interrupted" or getattr(cause, "sqlstate", None) == "57014":
            return f"the answer took longer than {self._deadline:g} s; narrow the question by time or job"
        if isinstance(error, exc.TimeoutError):
            return f"all {CONNECTIONS} connections are busy"
        if text.startswith("no such table") or getattr(cause, "sqlstate", None) == "42P01":
            return "it holds no history yet"
        return text


def _sqlite(url: URL, deadline: float) -> Engine:
    uri = Path(url.database or "").absolute().as_uri() + "?mode=ro"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(
            uri, uri=True, timeout=deadline / 2, check_same_thread=False, isolation_level=None
        )

    # recycled, so that a file that was put in the place of another is noticed
    engine = create_engine(
        "sqlite://",
        creator=connect,
        poolclass=QueuePool,
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_timeout=deadline / 2,
        pool_recycle=60,
    )
    event.listen(engine, "connect", _set_up_sqlite)
    return engine


def _set_up_sqlite(connection: sqlite3.Connection, record: Any) -> None:
    info = record.info
    connection.execute("PRAGMA query_only=ON")
    connection.execute("PRAGMA cache_size=-16384")
    connection.execute("PRAGMA mmap_size=1073741824")
    connection.create_function("anchor_ms", 1, identity.anchor_ms, deterministic=True)
    connection.set_progress_handler(lambda: time.monotonic() > info.get("until", math.inf), 50_000)


def _postgresql(url: URL, deadline: float) -> Engine:
    engine = create_engine(
        url,
        isolation_level="AUTOCOMMIT",  # otherwise every question costs a BEGIN and a ROLLBACK
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_timeout=deadline / 2,
        connect_args={"connect_timeout": max(2, round(deadline / 2))},
    )
    event.listen(engine, "connect", _set_up_postgresql(deadline))
    event.listen(engine, "checkout", _hang_up_if_left)
    return engine


def _set_up_postgresql(deadline: float) -> Callable[[Any, Any], None]:
    settings = (
        f"SET search_path TO {schema.NAMESPACE}",
        f"SET statement_timeout TO {round(deadline * 1000)}",
        "SET default_transaction_read_only TO on",
        "SET default_transaction_isolation TO 'repeatable read'",
    )

    def set_up(connection: Any, record: Any) -> None:
        connection.execute("; ".join(settings))
        connection.commit()

    return set_up


def _hang_up_if_left(connection: Any, record: Any, proxy: Any) -> None:
    """An idle server says nothing but farewell; to see that costs less than to ask it whether it is there."""
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        if selector.select(0):
            raise exc.DisconnectionError
