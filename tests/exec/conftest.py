from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from wrapping import NOWHERE, Collector, Wrapper


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """A real one, for all tests; each has a scheduler of its own."""
    server = Collector(heartbeat=0.5, lost_after=2)
    server.start()
    yield server
    server.remove()


@pytest.fixture
def wrapper(tmp_path: Path, collector: Collector) -> Iterator[Wrapper]:
    """Tells the collector."""
    wrapper = Wrapper(tmp_path / "home", collector.url, uuid4().hex)
    yield wrapper
    wrapper.close()


@pytest.fixture
def lonely(tmp_path: Path) -> Iterator[Wrapper]:
    """Has nobody to tell."""
    wrapper = Wrapper(tmp_path / "home", NOWHERE, "lonely")
    yield wrapper
    wrapper.close()
