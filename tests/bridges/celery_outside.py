"""A Celery that nobody changed: its workers as processes of their own, and a taskscope that is given its URL alone."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from celery import Celery
from ledger import Ledger

from services.process import until
from taskscope import Exporter
from taskscope.identity import key, parse, run_id
from taskscope.settings import Source
from taskscope.testing import Recorder

TESTS = Path(__file__).parent.parent


class Plain:
    """The workers of a shop, and who sends it work."""

    def __init__(self, directory: Path, broker: str, **transport: Any) -> None:
        self.directory, self.broker, self.transport = directory, broker, transport
        self.ledger = Ledger(directory / "ledger")
        self.app = Celery("customer", broker=broker, set_as_current=False)
        self.app.conf.update(task_send_sent_event=True, broker_transport_options=transport)
        self._workers: list[subprocess.Popen[bytes]] = []

    def worker(self, *arguments: str, name: str = "w1", **environment: str) -> "subprocess.Popen[bytes]":
        """A worker that is ready."""
        log = self.directory / f"{name}.log"
        paths = [str(TESTS / "programs"), str(TESTS / "bridges"), *sys.path]
        settings = {
            "PYTHONPATH": os.pathsep.join(paths),
            "SHOP_BROKER": self.broker,
            "SHOP_LEDGER": self.ledger.path,
            "SHOP_TRANSPORT": json.dumps(self.transport),
            "C_FORCE_ROOT": "1",
        }
        command = ["-m", "celery", "-A", "celery_plain", "worker", "-l", "info", "-n", f"{name}@shop"]
        with log.open("wb") as output:
            worker = subprocess.Popen(
                [sys.executable, *command, *arguments],
                cwd=self.directory,
                env={**os.environ, **settings, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._workers.append(worker)
        until(lambda: "ready." in log.read_text(errors="replace"), what=f"worker {name}")
        return worker

    def send(self, task: str, *arguments: Any, **options: Any) -> str:
        """Send a task; its id."""
        return str(self.app.send_task(f"shop.{task}", arguments, **options).id)

    def close(self) -> None:
        """End all."""
        for worker in self._workers:
            if worker.poll() is None:
                kill(worker)
        self.app.close()


def kill(worker: "subprocess.Popen[bytes]") -> None:
    """End a worker and its children as if the power had failed."""
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


@contextmanager
def plain(directory: Path, broker: str, **transport: Any) -> Iterator[Plain]:
    """A shop, closed at the end."""
    opened = Plain(directory, broker, **transport)
    try:
        yield opened
    finally:
        opened.close()


class Outside:
    """A taskscope beside it."""

    def __init__(self, directory: Path, broker: str, **options: Any) -> None:
        self.seen = Recorder()
        self.exporter = Exporter(
            Source(system="celery", target=broker, options=options),
            names=["shop"],
            sinks=[self.seen],
            history=f"sqlite:///{directory}/runs.db",
            port=0,
            poll_interval=0.5,
            reading_ttl=6.0,
        )

    def ended(self, task_id: str, attempt: int = 0, timeout: float = 30) -> dict[str, Any]:
        """The stored run of a task, when it has ended."""

        def ends() -> bool:
            facts = self.seen.runs().get(task_id, [])
            return any(fact.status not in ("queued", "started") and fact.attempt == attempt for fact in facts)

        self.seen.wait_for(ends, timeout)
        until(
            lambda: self.run(task_id, attempt)["status"] not in ("queued", "started"),
            what="its end in the store",
        )
        return self.run(task_id, attempt)

    def run(self, task_id: str, attempt: int = 0) -> dict[str, Any]:
        """The stored run of a task."""
        wanted, found = key(run_id("shop", task_id, attempt, 0)), []

        def there() -> bool:
            runs = self.get("/api/task/?limit=1000")["data"]
            found[:] = [run for run in runs if key(parse(run["id"])) == wanted]
            return bool(found)

        until(there, what=f"the run of {task_id}")
        return dict(self.get(f"/api/task/{found[0]['id']}"))

    def get(self, path: str) -> Any:
        """What the API says."""
        with urlopen(f"{self.exporter.url}{path}", timeout=10) as answer:
            return json.load(answer)

    def metric(self, name: str, *labels: str) -> float | None:
        """The sum of the series with these labels; None where there is none."""
        with urlopen(f"{self.exporter.url}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        found = [
            line
            for line in lines
            if line.startswith(f"taskscope_{name}") and all(one in line for one in labels)
        ]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found) if found else None


@contextmanager
def outside(directory: Path, broker: str, **options: Any) -> Iterator[Outside]:
    """A taskscope that is connected, closed at the end."""
    watching = Outside(directory, broker, **options)
    with watching.exporter:
        until(lambda: watching.metric("scheduler_up") == 1, what="a connection")
        yield watching
