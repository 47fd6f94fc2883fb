"""A running server to ask."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from asking import NOW, Client

from taskscope.api.backend import Backend
from taskscope.api.server import Server
from taskscope.events import Job, Jobs, QueueState, SchedulerState, Trigger, WorkerState
from taskscope.live import Live
from taskscope.settings import Settings
from taskscope.sinks.metrics import Metrics


@pytest.fixture
def live() -> Live:
    """One scheduler with two jobs, a queue and a worker, read just now."""
    trigger = Trigger(key="nightly-cron", state="WAITING", schedule="cron[hour='2']", next_run=NOW + 60)
    nightly = Job(name="nightly", key="n1", function="app:nightly", interval=3.0, triggers=(trigger,))
    odd = Job(name="odd/name ü?#%2F", key="o1", paused=True)
    live = Live()
    live.fold(
        [
            SchedulerState(
                scheduler="main", system="fake", at=NOW, up=True, running=True, summary=("2 threads",)
            ),
            Jobs(scheduler="main", at=NOW, jobs=(nightly, odd)),
            QueueState(scheduler="main", queue="default", at=NOW, ready=3),
            WorkerState(scheduler="main", worker="w1", at=NOW, active=1),
        ]
    )
    return live


@pytest.fixture
def serve(live: Live) -> Iterator[Callable[..., Client]]:
    """Serves what it is given in place of the usual; `token` is for the client."""
    with ExitStack() as stack:

        def start(settings: Settings | None = None, token: str = "", **parts: Any) -> Client:
            settings = settings or Settings(history=None)
            metrics = Metrics(settings)
            usual: dict[str, Any] = {
                "settings": settings,
                "live": live,
                "metrics": metrics,
                "queries": None,
                "ready": list,
                "refresh": lambda: metrics.sync(live, NOW),
                "clock": lambda: NOW,
            }
            server = Server(Backend(**usual | parts))
            stack.callback(server.stop)
            return Client(server.start("127.0.0.1", 0), token)

        yield start


@pytest.fixture
def client(serve: Callable[..., Client]) -> Client:
    """A client of a server without history and tokens."""
    return serve()
