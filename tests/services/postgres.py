"""A private PostgreSQL, and a fresh database in it for every test."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from services.process import Server, again, once, program

PLACES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


class Postgres(Server):
    """PostgreSQL on loopback. Crash-safe against its own death, not against the machine's (`fsync=off`)."""

    def __init__(self) -> None:
        self._postgres = program("postgres", "PostgreSQL", PLACES)
        super().__init__("postgres", user="postgres")
        initdb = program("initdb", "PostgreSQL", PLACES)
        self.run(initdb, "-D", "data", "-U", "taskscope", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")

    def command(self) -> list[str]:
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "shared_buffers": "64MB",
        }
        return [self._postgres, "-D", "data", *(f"--{key}={value}" for key, value in settings.items())]

    def ready(self) -> bool:
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def execute(self, statement: str) -> None:
        """Run one statement as superuser, outside of any test's database."""
        url = f"postgresql://taskscope@127.0.0.1:{self.port}/postgres?connect_timeout=5"
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(statement)

    def url(self, database: str) -> str:
        """The database as an SQLAlchemy URL."""
        return f"postgresql+psycopg://taskscope@127.0.0.1:{self.port}/{database}"


postgres = once(Postgres)
"""The session's PostgreSQL. Tests that disturb it take `postgres_server`."""
postgres_server = again("postgres")
"""The session's PostgreSQL to stop, start and pause; afterwards it runs again."""


@pytest.fixture
def postgres_url(postgres_server: Postgres) -> Iterator[str]:
    """The URL of an empty database."""
    database = f"test_{uuid4().hex}"
    postgres_server.execute(f"CREATE DATABASE {database}")
    yield postgres_server.url(database)
    postgres_server.start()
    postgres_server.execute(f"DROP DATABASE {database} WITH (FORCE)")
