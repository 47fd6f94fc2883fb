"""Histories of each kind to be inspected."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from inspecting import Past

from taskscope.settings import Inspection


@pytest.fixture(params=["sqlite", "postgresql"])
def history_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty history: a file, and a database on a server."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'runs.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def begin(history_url: str) -> Iterator[Callable[..., Past]]:
    """Begins a history that is inspected by these rules."""
    with ExitStack() as stack:

        def begun(**rules: Inspection) -> Past:
            past = Past(history_url, **rules)
            stack.callback(past.close)
            return past

        yield begun


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Callable[..., Past]]:
    """The same, in a file only."""
    with ExitStack() as stack:

        def begun(**rules: Inspection) -> Past:
            past = Past(f"sqlite:///{tmp_path / 'runs.db'}", **rules)
            stack.callback(past.close)
            return past

        yield begun


@pytest.fixture
def past(begin: Callable[..., Past]) -> Past:
    """A history that is inspected every hour."""
    return begin()
