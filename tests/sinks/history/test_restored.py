"""A history that was put back to an earlier state: what Prometheus adds up stays the truth."""

import signal
import sqlite3
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa
from histories import batch, done, opened, stored
from sqlalchemy.engine import make_url

from services.postgres import PLACES, Postgres
from services.process import program


class Scraped:
    """Tells a history of runs, and sums up the exported counter as Prometheus does."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.told = self.exported = 0
        self.increase = 0

    def run(self, count: int) -> None:
        """A program starts, is scraped, sees so many runs, is scraped after each, and ends."""
        with opened(self._url) as store:
            self.scrape(sum(counts.statuses["success"] for counts in store.totals().values()))
            for _ in range(count):
                self.told += 1
                totals = store.apply(batch([done(self.told)])).totals
                self.scrape(totals["s", "job"].statuses["success"])

    def scrape(self, value: int) -> None:
        self.increase += value - self.exported if value >= self.exported else value
        self.exported = value


def put_back(copy: Path, file: Path) -> None:
    for part in file.parent.glob(f"{file.name}-*"):
        part.unlink()
    file.write_bytes(copy.read_bytes())


@contextmanager
def copied(file: Path) -> Iterator[Path]:
    """A copy of the history as it is at the beginning of the block, put back at its end."""
    copy = file.with_name(f"{uuid4().hex}.copy")
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    yield copy
    put_back(copy, file)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def scraped(sqlite_url: str) -> Scraped:
    return Scraped(sqlite_url)


def test_a_restored_file_counts_from_0_and_keeps_its_runs(scraped: Scraped, file: Path, sqlite_url: str):
    scraped.run(5)
    with copied(file):
        scraped.run(10)

    scraped.run(2)

    assert scraped.exported == 2
    assert scraped.increase == scraped.told == 17
    assert len(stored(sqlite_url)) == 7


def test_the_same_copy_may_be_restored_again_and_again(scraped: Scraped, file: Path):
    scraped.run(5)
    with copied(file) as copy:
        scraped.run(10)
    for runs in (2, 7, 1):
        scraped.run(runs)
        put_back(copy, file)
        assert scraped.increase == scraped.told

    scraped.run(1)

    assert scraped.increase == scraped.told == 26


def test_a_copy_that_lacks_nothing_counts_on(scraped: Scraped, file: Path):
    scraped.run(5)
    with copied(file):
        pass

    scraped.run(1)

    assert scraped.exported == 6


def test_a_file_that_comes_without_its_mark_counts_from_0(scraped: Scraped, file: Path):
    scraped.run(5)
    file.with_name("runs.db.counted").unlink()

    scraped.run(3)

    assert scraped.exported == 3
    assert scraped.increase == scraped.told


def test_after_a_kill_between_commit_and_mark_it_counts_on(scraped: Scraped, file: Path):
    scraped.run(5)
    mark = file.with_name("runs.db.counted")
    before = mark.read_bytes()
    scraped.run(1)
    mark.write_bytes(before)

    scraped.run(1)

    assert scraped.exported == 7


@pytest.mark.parametrize("content", [b"", b"\0" * 54, b"\xff\xfe", b"somebody else"])
def test_a_mark_that_is_damaged_costs_no_more_than_the_count(scraped: Scraped, file: Path, content: bytes):
    scraped.run(5)
    file.with_name("runs.db.counted").write_bytes(content)

    scraped.run(1)
    scraped.run(1)

    assert scraped.exported == 2
    assert scraped.increase == scraped.told


def test_a_mark_that_cannot_be_written_keeps_nothing_from_being_counted(scraped: Scraped, file: Path):
    file.with_name("runs.db.counted").mkdir()

    scraped.run(5)

    assert scraped.exported == 5


def command(name: str, url: str, *arguments: str) -> None:
    place = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    subprocess.run(
        [program(name, "PostgreSQL", PLACES), *arguments, "--dbname", place],
        check=True,
        capture_output=True,
        timeout=60,
    )


def test_a_restored_dump_counts_from_0_and_keeps_its_runs(postgres_url: str, tmp_path: Path):
    scraped, dump = Scraped(postgres_url), str(tmp_path / "dump")
    scraped.run(5)
    command("pg_dump", postgres_url, "--format=custom", "--file", dump)
    scraped.run(10)
    command("pg_restore", postgres_url, "--clean", dump)

    scraped.run(2)

    assert scraped.exported == 2
    assert scraped.increase == scraped.told == 17
    assert len(stored(postgres_url)) == 7


def test_a_database_server_that_was_killed_counts_on(postgres_url: str, postgres_server: Postgres):
    scraped = Scraped(postgres_url)
    scraped.run(5)
    postgres_server.stop(signal.SIGKILL)
    postgres_server.start()

    scraped.run(1)

    assert scraped.exported == 6


def test_a_server_that_does_not_tell_who_it_is_is_no_trouble(postgres_url: str, postgres_server: Postgres):
    role = f"plain_{uuid4().hex}"
    url = make_url(postgres_url)
    postgres_server.execute(f"CREATE ROLE {role} LOGIN")
    try:
        postgres_server.execute(f"ALTER DATABASE {url.database} OWNER TO {role}")
        forbid(postgres_url)
        scraped = Scraped(url.set(username=role).render_as_string(hide_password=False))
        scraped.run(2)
        scraped.run(1)
        assert scraped.exported == 3
    finally:
        postgres_server.execute(f"ALTER DATABASE {url.database} OWNER TO taskscope")
        give_back(postgres_url, role)


def forbid(url: str) -> None:
    run_all(url, ["REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC"])


def give_back(url: str, role: str) -> None:
    run_all(url, [f"DROP OWNED BY {role}", f"DROP ROLE {role}"])


def run_all(url: str, statements: Sequence[str]) -> None:
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
