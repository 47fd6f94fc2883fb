"""Readers beside a writer, and histories that cannot be read."""

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from histories import done, opened
from past import BEGIN, DAY, Past, rows

from services.postgres import Postgres
from taskscope.errors import BadArgument, Unavailable
from taskscope.settings import Settings
from taskscope.sinks.history.queries import Queries
from taskscope.sinks.history.reader import CONNECTIONS, Reader
from taskscope.sinks.history.records import Filter

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def test_readers_see_whole_batches_while_the_writer_goes_on(history_url: str):
    batches, size = 40, 25
    written, failures = threading.Event(), []

    def read(ask: Callable[[Queries], None], queries: Queries) -> None:
        try:
            while not written.is_set():
                ask(queries)
        except Exception as error:  # noqa: BLE001 -- shown by the test's own thread
            failures.append(error)

    with opened(history_url) as store:
        queries = Queries(history_url, Settings())
        readers = [
            threading.Thread(target=read, args=(ask, queries)) for ask in (_pages, _stats, _export) * 2
        ]
        for reader in readers:
            reader.start()
        for number in range(batches):
            anchors = range(number * size, (number + 1) * size)
            store.apply(
                rows(
                    Past(n, "success", anchor=BEGIN + n, started=BEGIN, ended=BEGIN + 9, duration=9000)
                    for n in anchors
                )
            )
        written.set()
        for reader in readers:
            reader.join(30)
        assert queries.runs(Filter(), limit=1).total == batches * size
        queries.close()

    assert failures == []


def _pages(queries: Queries) -> None:
    page = queries.runs(Filter(), limit=1000)
    assert page.total % 25 == 0
    assert page.total == len(page.runs), "total and page are of one moment"


def _stats(queries: Queries) -> None:
    overall, *each = queries.stats(BEGIN, BEGIN + DAY, (50,))
    assert overall.runs % 25 == 0
    assert overall.runs == sum(stats.runs for stats in each)


def _export(queries: Queries) -> None:
    ids = [run.id for run in queries.iterate(Filter())]
    assert ids == sorted(set(ids), reverse=True)


def test_a_reader_cannot_write(history_url: str):
    with opened(history_url) as store:
        store.apply([done(1)])
        reader = Reader(history_url)
        for statement in ("DELETE FROM run", "CREATE TABLE extra (id INTEGER)"):
            with pytest.raises(Unavailable, match=r"(?i)read-?only"), reader.snapshot() as connection:
                connection.exec_driver_sql(statement)
        with reader.snapshot() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM run").scalar() == 1
        reader.close()


def test_a_question_has_a_deadline_and_the_next_one_is_answered(history_url: str):
    with opened(history_url):
        reader = Reader(history_url, deadline=0.2)
        for _ in range(2):
            with pytest.raises(Unavailable, match=r"longer than 0\.2 s"), reader.snapshot() as connection:
                connection.exec_driver_sql(ENDLESS).scalar()
        with reader.snapshot() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM run").scalar() == 0
        reader.close()


def test_more_questions_than_connections_wait_and_then_are_told_so(sqlite_url: str):
    with opened(sqlite_url):
        reader = Reader(sqlite_url, deadline=0.1)
        held = [reader.snapshot() for _ in range(CONNECTIONS)]
        for snapshot in held:
            snapshot.__enter__()
        with pytest.raises(Unavailable, match="connections are busy"), reader.snapshot():
            pass
        for snapshot in held:
            snapshot.__exit__(None, None, None)
        with reader.snapshot() as connection:
            assert connection.exec_driver_sql("SELECT 1").scalar() == 1
        reader.close()


def test_a_history_that_is_not_there_yet_is_unavailable_and_then_is_read(sqlite_url: str):
    queries = Queries(sqlite_url, Settings())
    with pytest.raises(Unavailable, match="unable to open"):
        queries.names()
    assert not Path(sqlite_url.removeprefix("sqlite:///")).exists(), "a reader makes no file"

    with opened(sqlite_url) as store:
        store.apply([done(1)])
        assert queries.names() == ["job"]
    assert queries.names() == ["job"], "without its writer too"
    queries.close()


@pytest.mark.parametrize("content", [b"", b"this is a text file, and a rather long one at that" * 100])
def test_a_file_that_is_no_history_is_unavailable(sqlite_url: str, content: bytes):
    Path(sqlite_url.removeprefix("sqlite:///")).write_bytes(content)
    queries = Queries(sqlite_url, Settings())
    with pytest.raises(Unavailable, match=r"no history yet|not a database"):
        queries.runs(Filter(), limit=1)
    queries.close()


def test_a_damaged_file_is_unavailable(sqlite_url: str):
    with opened(sqlite_url) as store:
        store.apply(rows(Past(n, "success", anchor=BEGIN + n) for n in range(2000)))
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    content = path.read_bytes()
    path.write_bytes(content[:8192] + b"\xff" * (len(content) - 8192))

    queries = Queries(sqlite_url, Settings())
    with pytest.raises(Unavailable, match=r"malformed|no history yet"):
        queries.runs(Filter(), limit=50)
    queries.close()


def test_a_locked_file_is_unavailable_until_it_is_free(sqlite_url: str):
    with opened(sqlite_url) as store:
        store.apply([done(1)])
    locker = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    locker.execute("PRAGMA journal_mode=DELETE")
    locker.execute("BEGIN EXCLUSIVE")
    reader = Reader(sqlite_url, deadline=0.2)
    with pytest.raises(Unavailable, match="locked"), reader.snapshot() as connection:
        connection.exec_driver_sql("SELECT count(*) FROM run")

    locker.execute("ROLLBACK")
    locker.close()
    with reader.snapshot() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM run").scalar() == 1
    reader.close()


def test_a_server_that_went_away_is_unavailable_and_then_is_read(
    postgres_server: Postgres, postgres_url: str
):
    with opened(postgres_url) as store:
        store.apply([done(1)])
    queries = Queries(postgres_url, Settings())
    assert queries.names() == ["job"]
    postgres_server.stop()
    with pytest.raises(Unavailable):
        queries.names()

    postgres_server.start()
    assert queries.names() == ["job"]
    queries.close()


def test_a_server_that_was_restarted_is_read_at_once(postgres_server: Postgres, postgres_url: str):
    with opened(postgres_url) as store:
        store.apply([done(1)])
    queries = Queries(postgres_url, Settings())
    assert queries.names() == ["job"]

    postgres_server.stop()
    postgres_server.start()
    assert queries.names() == ["job"]
    queries.close()


def test_a_refusal_is_one_sentence_without_the_password(postgres_url: str):
    wrong = sa.make_url(postgres_url).set(database="nowhere", password="hunter2")
    queries = Queries(wrong.render_as_string(hide_password=False), Settings())
    with pytest.raises(Unavailable) as refusal:
        queries.names()

    assert "hunter2" not in str(refusal.value)
    assert "\n" not in str(refusal.value)
    queries.close()


@pytest.mark.parametrize("url", ["", "mysql://host/db", "sqlite://", "runs.db"])
def test_a_url_that_is_no_history_is_a_wrong_argument(url: str):
    with pytest.raises(BadArgument, match="sqlite:///file"):
        Queries(url, Settings())
