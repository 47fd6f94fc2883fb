"""Real RQ workers as processes, and a bridge that is polled by the test."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from rq import Queue

from services.process import until
from taskscope.bridges import made
from taskscope.contracts import Bridge
from taskscope.events import Fact, Reading
from taskscope.settings import Source
from taskscope.testing import Recorder

RQ = str(Path(sys.executable).with_name("rq"))
HERE = Path(__file__).parent
ENDED = ("success", "failed", "retried", "unknown")


@contextmanager
def program(url: str, *arguments: str, **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    """`rq …` until the block ends."""
    paths = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, RQ, *arguments, *(["--url", url] if url else [])],
        env={**os.environ, "PYTHONPATH": paths, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def worker(
    url: str, *queues: str, kind: str = "rq.Worker", **environment: str
) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker, once it has said that it is there."""
    client = redis.Redis.from_url(url)
    before = client.scard("rq:workers")
    with program(url, "worker", "--worker-class", kind, *(queues or ["default"]), **environment) as process:
        until(lambda: client.scard("rq:workers") > before or process.poll() is not None, what="a worker")
        assert process.poll() is None, "the worker has ended"
        yield process


class Watching:
    """A bridge outside of an RQ, polled when the test says so."""

    def __init__(self, target: Any, **options: Any) -> None:
        """`target` is a URL, or a queue."""
        self.seen, self.readings = Recorder(), []  # type: tuple[Recorder, list[Reading]]
        source = Source(system="rq", target=target, options=options) if isinstance(target, str) else target
        self.bridge: Bridge = made(source, "s")
        self.bridge.attach(self.seen.emit)

    def poll(self) -> list[Reading]:
        self.readings = list(self.bridge.poll())
        return self.readings

    def until(self, true: Callable[[], object], timeout: float = 30) -> None:
        """Poll until it is so."""

        def polled() -> object:
            self.poll()
            return true()

        until(polled, timeout)

    def ended(self, count: int) -> None:
        """Poll until so many ends have been told."""
        self.until(lambda: len(self.ends) >= count)

    @property
    def ends(self) -> list[Fact]:
        return [fact for fact in self.seen.facts if fact.status in ENDED]

    def reading(self, kind: type, **fields: str) -> Any:
        """The one reading of this kind with these fields."""
        (found,) = [
            one
            for one in self.readings
            if isinstance(one, kind) and all(getattr(one, name) == value for name, value in fields.items())
        ]
        return found


def queue(url: str, name: str = "default") -> Queue:
    return Queue(name, connection=redis.Redis.from_url(url))


def short(fact: Fact) -> tuple[str, str, str]:
    """Job without its module, status, reason."""
    return fact.job.rpartition(".")[2], fact.status, fact.reason
