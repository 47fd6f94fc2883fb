"""A running server to ask."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

import pytest
from asking import NOW, Client
from stored import past

from healthy import health_of
from taskscope.api.backend import Backend, Writer
from taskscope.api.server import Server
from taskscope.errands import Errands
from taskscope.events import Event, Job, Jobs, QueueState, SchedulerState, Trigger, WorkerState
from taskscope.live import Live
from taskscope.settings import JobRule, Settings
from taskscope.sinks.history.memory import MemoryStore
from taskscope.sinks.history.queries import Queries
from taskscope.sinks.history.sql import SqlStore
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
            memory = MemoryStore(settings)
            usual: dict[str, Any] = {
                "settings": settings,
                "live": live,
                "health": health_of(live, settings, clock=lambda: NOW),
                "metrics": metrics,
                "queries": None,
                "ready": list,
                "refresh": lambda: metrics.sync(live, NOW),
                "clock": lambda: NOW,
                "alerts": None if "queries" in parts else memory.alert_log,
                "writer": Writer(memory, _at_once, _delivered, lambda why: None),
            }
            server = Server(Backend(**usual | parts))
            stack.callback(server.stop)
            return Client(server.start("127.0.0.1", 0), token)

        yield start


def _at_once(work: Callable[[], Any]) -> Future[Any]:
    """Does what a pipeline would do a moment later."""
    errands = Errands()
    done = errands.do(work)
    errands.step(NOW)
    return done


def _delivered(events: Sequence[Event]) -> Future[dict[int, str]]:
    """Takes what a pipeline would take."""
    end: Future[dict[int, str]] = Future()
    end.set_result({})
    return end


@pytest.fixture
def client(serve: Callable[..., Client]) -> Client:
    """A client of a server without history and tokens."""
    return serve()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def history_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A history of each kind that holds the past; nothing writes to it."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            url = f"sqlite:///{tmp_path_factory.mktemp('history') / 'runs.db'}"
        else:
            server = request.getfixturevalue("postgres")
            database = f"api_{uuid4().hex}"
            server.execute(f"CREATE DATABASE {database}")
            stack.callback(server.execute, f"DROP DATABASE {database} WITH (FORCE)")
            url = server.url(database)
        store = SqlStore(url, Settings(history=url))
        store.open()
        store.apply(past())
        store.close()
        yield url


@pytest.fixture
def historian(serve: Callable[..., Client], history_url: str) -> Iterator[Client]:
    """A client of a server that remembers the past."""
    settings = Settings(
        history=history_url,
        jobs=(JobRule(match="flaky", slow_after=10.0),),
        links={"logs": "https://l/{job_name}/{run}", "trace": "https://t/{trace}?at={started}"},
    )
    queries = Queries(history_url, settings)
    yield serve(settings, queries=queries, clock=time.time)
    queries.close()
