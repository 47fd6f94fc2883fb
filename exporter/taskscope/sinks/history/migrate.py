"""Brings a database to the schema of this code."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from taskscope.errors import TooNew
from taskscope.sinks.history.schema import HEAD, NAMESPACE

_LOCK = 0x7461736B  # of PostgreSQL, "task": replicas that start together migrate one after the other


def migrate(connection: sa.Connection) -> None:
    """Create the tables or upgrade them, in the transaction of this connection. Raises `TooNew`."""
    if connection.dialect.name == "postgresql":
        _prepare_postgresql(connection)
    found = _revision(connection)
    if found != HEAD:
        with _silent():
            _upgrade(connection, found)


def _prepare_postgresql(connection: sa.Connection) -> None:
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
    connection.exec_driver_sql("SET LOCAL statement_timeout TO 0")
    if not sa.inspect(connection).has_schema(NAMESPACE):  # "IF NOT EXISTS" would need the right to create one
        connection.exec_driver_sql(f"CREATE SCHEMA {NAMESPACE}")


def _revision(connection: sa.Connection) -> str | None:
    schema = NAMESPACE if connection.dialect.name == "postgresql" else None
    if not sa.inspect(connection).has_table("alembic_version", schema=schema):
        return None
    return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()


def _upgrade(connection: sa.Connection, found: str | None) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory  # imported here: a history that is up to date never needs them

    config = Config()
    config.set_main_option("script_location", "taskscope.sinks.history:migrations")
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise TooNew(
            f"the history has revision {found}, this taskscope knows up to {HEAD}; use a newer taskscope"
        )
    command.upgrade(config, "head")


@contextmanager
def _silent() -> Iterator[None]:
    """Alembic tells every program that listens at INFO what it sets up; the watched one has not asked."""
    logger = logging.getLogger("alembic")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)
