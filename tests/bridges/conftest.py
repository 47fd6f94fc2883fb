from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from ledger import Ledger
from watching import stop

from taskscope.bridges import find
from taskscope.contracts import Bridge
from taskscope.testing import Recorder


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """What the jobs of the test write."""
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def seen() -> Recorder:
    """What the bridge tells."""
    return Recorder()


@pytest.fixture
def attach(seen: Recorder) -> Iterator[Callable[[Any], Bridge]]:
    """Watch a scheduler until the test is over."""
    with ExitStack() as stack:

        def attach(scheduler: Any, name: str = "s") -> Bridge:
            bridge = find(scheduler)(scheduler, name)
            stack.callback(bridge.detach)
            bridge.attach(seen.emit)
            return bridge

        yield attach


@pytest.fixture
def make(attach: Callable[[Any], Bridge]) -> Iterator[Callable[..., BackgroundScheduler]]:
    """Background schedulers, watched but not started; shut down after the test."""
    with ExitStack() as stack:

        def make(**options: Any) -> BackgroundScheduler:
            scheduler = BackgroundScheduler(timezone="UTC", **options)
            stack.callback(stop, scheduler)
            scheduler.bridge = attach(scheduler)
            return scheduler

        yield make
