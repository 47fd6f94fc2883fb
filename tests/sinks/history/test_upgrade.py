"""A history of the first release, with runs in it, is taken over by today's code and goes on."""

import json
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from histories import NOW, batch, done, opened, row, select, stored

from taskscope.counts import Counts
from taskscope.events import Error
from taskscope.facts import RANK
from taskscope.inspection.inspector import Inspector
from taskscope.settings import Inspection, Settings
from taskscope.sinks.history import schema
from taskscope.sinks.history.mark import Mark, size
from taskscope.sinks.history.queries import Queries
from taskscope.sinks.history.records import Filter

ROWS: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parent / "revision_0001.json").read_text(encoding="utf-8")
)
"""What the code of revision 0001 wrote: 10 runs of 4 jobs, after retention had removed 3 that were 40 days old."""

TABLES = sorted(ROWS)

decode = msgspec.msgpack.Decoder(Counts).decode


def value(told: Any) -> Any:
    return bytes.fromhex(told["hex"]) if isinstance(told, dict) else told


@pytest.fixture
def old_url(history_url: str) -> str:
    """A history with the tables of revision 0001, and these rows in them."""
    engine = sa.create_engine(history_url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("CREATE SCHEMA taskscope")
            connection.exec_driver_sql("SET search_path TO taskscope")
        config = Config()
        config.set_main_option("script_location", "taskscope.sinks.history:migrations")
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        assert MigrationContext.configure(connection).get_current_revision() == "0001"
        _fill(connection)
    return history_url


def _fill(connection: sa.Connection) -> None:
    tables = sa.MetaData()
    tables.reflect(connection)
    assert set(tables.tables) == {*ROWS, "alembic_version"}
    for name, rows in ROWS.items():
        told = [{column: value(cell) for column, cell in row.items()} for row in rows]
        connection.execute(sa.insert(tables.tables[name]), told)
        if connection.dialect.name == "postgresql" and name in ("job", "name", "replica"):
            last = max(row["id"] for row in rows)
            connection.exec_driver_sql(f"SELECT setval(pg_get_serial_sequence('{name}', 'id'), {last})")


def everything(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of the old tables, as they are in the database."""
    found = {}
    for table, rows in ROWS.items():
        columns = ", ".join(rows[0])
        cells = [tuple(map(_plain, row)) for row in select(url, f"SELECT {columns} FROM {table}")]
        found[table] = sorted(cells, key=repr)
    return found


def _plain(cell: Any) -> Any:
    return bytes(cell) if isinstance(cell, memoryview) else cell


def test_opening_it_upgrades_it_and_changes_no_row(old_url: str) -> None:
    before = everything(old_url)
    assert before["run"], "there is something to lose"

    with opened(old_url):
        pass

    assert select(old_url, "SELECT version_num FROM alembic_version") == [(schema.HEAD,)]
    after = everything(old_url)
    for table in TABLES:
        if table == "replica":  # who opened it may be another one
            assert after[table][: len(before[table])] == before[table]
        else:
            assert after[table] == before[table], table


def test_its_runs_are_read_as_they_were(old_url: str) -> None:
    with opened(old_url):
        pass

    queries = Queries(old_url, Settings(history=old_url))
    runs = queries.runs(Filter(), limit=100).runs
    [failed] = queries.runs(Filter(status=("failed",)), limit=100).runs
    in_full = queries.run(failed.id)
    queries.close()

    told = {(run.job, run.status) for run in runs}
    assert len(runs) == 10
    assert told == {
        ("job", "success"),
        ("job", "failed"),
        ("nightly", "skipped"),
        ("job", "started"),
        ("näm/e %", "started"),
        ("", "queued"),
    }
    assert in_full is not None
    assert (in_full.exception, in_full.message, in_full.attempt) == ("ValueError", "50 % of naught", 1)
    assert {run.entity for run in runs if run.status == "success"} == {"shop-7"}


def test_its_runs_are_called_nothing_and_new_ones_are_found_by_their_keys(old_url: str) -> None:
    with opened(old_url) as store:
        store.apply(batch([done(n, key=f"order-{n}", result="sent") for n in (30, 31)]))

    queries = Queries(old_url, Settings(history=old_url))
    found = queries.runs(Filter(key=("order-31",)), limit=100).runs
    without = queries.runs(Filter(key=("",)), limit=100)
    queries.close()

    assert [(run.key, run.result) for run in found] == [("order-31", "sent")]
    assert (without.total, {run.result for run in without.runs}) == (10, {""})


def vouch(url: str) -> None:
    """Make whoever opens it next the one who counted: a file or a server that was put back is not counted on."""
    if url.startswith("sqlite"):
        [(name,)] = select(url, "SELECT name FROM replica")
        Mark(Path(url.removeprefix("sqlite:///"))).begin(name, size(map(decode, _counters(url))))
        return
    with opened(url):
        pass
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        connection.exec_driver_sql("SET search_path TO taskscope")
        connection.exec_driver_sql("UPDATE counter SET replica = (SELECT max(id) FROM replica)")


def _counters(url: str) -> list[bytes]:
    return [bytes(counts) for (counts,) in select(url, "SELECT counts FROM counter")]


def test_it_goes_on_counting_where_it_was(old_url: str) -> None:
    vouch(old_url)
    with opened(old_url) as store:
        before = store.totals()["s", "job"]
        assert store.states()["s", "job"].last_success == NOW

        again = store.apply(batch([done(1, duration=0.5), row(10, "failed", started=NOW - 2, duration=2.0)]))
        ended = store.apply(batch([done(12, duration=3.0, at=NOW), done(99), row(14, "started", job="late")]))

    assert (before.statuses, before.exceptions) == ({"success": 8, "failed": 1}, {"ValueError": 1})
    assert again.changes == [], "what is told again is known"
    assert sorted(change.row.rank for change in ended.changes) == [RANK["started"], *[RANK["success"]] * 2]
    assert ended.totals["s", "job"].statuses == {"success": 10, "failed": 1}
    jobs = [job for (job,) in select(old_url, "SELECT name FROM job WHERE scheduler = 's' ORDER BY name")]
    assert jobs == ["", "job", "late", "nightly"], "old names are used again"
    assert len(stored(old_url)) == 10


def test_it_still_knows_what_retention_had_removed(old_url: str) -> None:
    with opened(old_url) as store:
        long_ago = NOW - 40 * 86_400
        late = store.apply([done(20, at=long_ago, anchor=long_ago)])

    assert (late.changes, late.expired) == ([], 1)


def test_its_errors_are_grouped_from_then_on(old_url: str) -> None:
    with opened(old_url) as store:
        assert select(old_url, "SELECT count(*) FROM error_group") == [(0,)]
        store.apply(batch([row(n, "failed", error=Error(kind="E", message="m")) for n in (30, 31)]))
        store.apply(batch([row(10, "failed", started=NOW - 2, duration=2.0)]))  # it had failed before

        counted = store.totals()["s", "job"].errors

    assert counted == {"new": 2}
    groups = select(old_url, "SELECT kind, message, failures FROM error_group ORDER BY kind")
    assert groups == [("E", "m", 2), ("ValueError", "50 % of naught", 1)]


def test_it_is_inspected_from_then_on(old_url: str) -> None:
    with opened(old_url, clock=NOW) as store:
        store.apply(batch([row(n, "failed", error=Error(kind="E", message="m")) for n in (30, 31)]))
        settings = Settings(history=old_url, inspections={"hourly": Inspection()})
        queries = Queries(old_url, settings)

        def keep(found: Any, inspected: Any) -> Future[None]:
            done: Future[None] = Future()
            done.set_result(store.record_findings(found, inspected))
            return done

        Inspector(settings, queries, keep, lambda: NOW + 3_600).catch_up()
        found = queries.current_findings(0)
        queries.close()

    assert {(one.kind, one.object) for one in found} >= {("new_error", "E: m")}
    assert select(old_url, "SELECT name, failure FROM inspection") == [("hourly", "")]
