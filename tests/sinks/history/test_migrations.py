from collections.abc import Iterable
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from histories import done, opened, row, select, stored
from sqlalchemy.engine.interfaces import ReflectedIndex

from taskscope.errors import TooNew
from taskscope.facts import Bit
from taskscope.sinks.history import schema
from taskscope.sinks.history.migrate import migrate

MIGRATIONS = Path(schema.__file__).parent / "migrations"


def engine(url: str) -> sa.Engine:
    """A connection as the store's own: on PostgreSQL it searches our schema alone."""
    if url.startswith("sqlite"):
        return sa.create_engine(url, poolclass=sa.NullPool)
    return sa.create_engine(url, poolclass=sa.NullPool, connect_args={"options": "-c search_path=taskscope"})


def test_the_newest_migration_is_the_one_the_code_expects():
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == schema.HEAD


def test_the_migrations_make_the_tables_of_the_schema(history_url: str):
    with engine(history_url).begin() as connection:
        migrate(connection)

    with engine(history_url).connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []


def test_the_indexes_are_those_of_the_schema_also_in_their_conditions(history_url: str):
    with engine(history_url).begin() as connection:
        migrate(connection)
        migrated = indexes(connection)

    declared_in = (
        history_url if "postgresql" in history_url else "sqlite://"
    )  # there: its own schema, `public`
    with sa.create_engine(declared_in, poolclass=sa.NullPool).connect() as connection:
        schema.metadata.create_all(connection)
        assert indexes(connection) == migrated


def indexes(connection: sa.Connection) -> dict[str | None, str]:
    """Every index of ours with all that the database says of it."""
    inspector = sa.inspect(connection)
    found = [index for table in schema.metadata.tables for index in inspector.get_indexes(table)]
    return {
        index["name"]: f"{index['column_names']} {[str(option) for option in _options(index)]}"
        for index in found
    }


def _options(index: ReflectedIndex) -> Iterable[object]:
    return index.get("dialect_options", {}).values()


def test_a_history_of_a_newer_taskscope_is_left_alone(history_url: str):
    with opened(history_url) as store:
        store.apply([done(1)])
        with store.transaction() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")

    with pytest.raises(TooNew, match=r"revision 9999.*use a newer taskscope"), opened(history_url):
        pass

    assert select(history_url, "SELECT version_num FROM alembic_version") == [("9999",)]


def test_tables_of_the_users_own_database_are_not_touched(postgres_url: str):
    with sa.create_engine(postgres_url, poolclass=sa.NullPool).begin() as connection:
        connection.exec_driver_sql("CREATE TABLE run (mine text)")
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num text)")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('theirs')")

    with opened(postgres_url) as store:
        store.apply([done(1)])

    assert select(postgres_url, "SELECT * FROM public.alembic_version") == [("theirs",)]


def test_a_migration_that_is_rolled_back_leaves_nothing_behind(history_url: str):
    with engine(history_url).connect() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN")
        migrate(connection)
        connection.rollback()

    with engine(history_url).connect() as connection:
        assert sa.inspect(connection).get_table_names() == []


OF_0004 = ("occurrence", "error_group", "error_text", "error_rollup")
OF_0008 = ("absence", "scheduler")


def test_a_history_from_before_runs_without_an_anchor_takes_them_in(history_url: str):
    with opened(history_url) as store:
        store.apply([done(1)])
        before = stored(history_url)
        with store.transaction() as connection:
            for table in ("open_run", *OF_0004, "finding", "inspection", *OF_0008):
                connection.exec_driver_sql(f"DROP TABLE {table}")
            for index in ("run_by_entity", "run_by_key"):
                connection.exec_driver_sql(f"DROP INDEX {index}")
            for column in ("key", "result"):
                connection.exec_driver_sql(f"ALTER TABLE run DROP COLUMN {column}")
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0002'")

    unanchored = row(2, "started")
    unanchored.facts |= Bit.UNANCHORED
    with opened(history_url) as store:
        store.apply([unanchored])

    assert before.items() <= stored(history_url).items()
    assert select(history_url, "SELECT count(*) FROM open_run") == [(1,)]
