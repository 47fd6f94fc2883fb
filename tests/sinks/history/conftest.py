"""A history of each kind."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from histories import opened

from taskscope.sinks.history.sql import SqlStore


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A history file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'runs.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def history_url(request: pytest.FixtureRequest) -> str:
    """An empty history: a file, and a database on a server."""
    fixture = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    return str(request.getfixturevalue(fixture))


@pytest.fixture
def store(history_url: str) -> Iterator[SqlStore]:
    """A store of an empty history, opened."""
    with opened(history_url) as store:
        yield store
