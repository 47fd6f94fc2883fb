"""A Celery as it is deployed: workers and beats as processes of their own, and what taskscope tells of them."""

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

import taskscope
from services.process import free_port, until
from taskscope.identity import key, parse, run_id

TESTS = Path(__file__).parent.parent


class Shop:
    """The programs of one shop: they share a broker, a ledger and a history."""

    def __init__(self, directory: Path, broker: str, results: str | None = None, **settings: Any) -> None:
        self.directory, self.port = directory, free_port()
        self.ledger = Ledger(directory / "ledger")
        self.broker = broker
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(TESTS / "programs"), str(TESTS / "bridges"), *sys.path]),
            "SHOP_BROKER": broker,
            "SHOP_LEDGER": self.ledger.path,
            "TASKSCOPE_HOME": str(directory),
            "TASKSCOPE_PORT": str(self.port),
            "TASKSCOPE_POLL_INTERVAL": "500ms",
            "TASKSCOPE_READING_TTL": "3s",
        }
        if results:
            self.environment["SHOP_RESULTS"] = results
        self.environment |= {name: str(value) for name, value in settings.items()}
        self.app = Celery("customer", broker=broker, set_as_current=False)
        self._customer = taskscope.watch(self.app, history=None, port=None)
        self._programs: list[subprocess.Popen[bytes]] = []

    def program(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """Run `celery -A celery_shop …`."""
        with (self.directory / "log").open("ab") as log:
            program = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "celery_shop", *arguments],
                cwd=self.directory,
                env=self.environment | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._programs.append(program)
        return program

    def worker(self, *arguments: str, name: str = "w", **environment: str) -> subprocess.Popen[bytes]:
        """A worker that is ready."""
        program = self.program("worker", "-l", "info", "-n", f"{name}@shop", *arguments, **environment)
        until(lambda: f"{name}@shop ready." in self.log(), what="the worker")
        return program

    def log(self) -> str:
        """What the programs said."""
        return (self.directory / "log").read_text(errors="replace")

    def send(self, task: str, *args: Any, **options: Any) -> str:
        """Send a task; its id."""
        return str(self.app.send_task(task, args, **options).id)

    def get(self, path: str) -> Any:
        """What the API says; asked again where the worker was just forking."""
        try:
            with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return json.load(answer)
        except ConnectionResetError:
            return self.get(path)

    def metric(self, *parts: str) -> float | None:
        """The value of the one series that holds these parts; None where there is none."""
        with urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        found = [line for line in lines if line[0] != "#" and all(part in line for part in parts)]
        assert len(found) <= 1, found
        return float(found[0].rsplit(" ", 1)[1]) if found else None

    def index(self) -> dict[bytes, dict[str, Any]]:
        """All runs, by what is the same in every id that a run could have."""
        return {key(parse(run["id"])): run for run in self.get("/api/task/?limit=1000")["data"]}

    def run(self, task_id: str, attempt: int = 0) -> dict[str, Any] | None:
        """The run of a task, in full."""
        run = self.index().get(of(task_id, attempt))
        return self.get(f"/api/task/{run['id']}") if run else None

    def ended(self, task_id: str, attempt: int = 0, timeout: float = 30) -> dict[str, Any]:
        """The run of a task, when it has ended."""

        def over() -> bool:
            run = self.run(task_id, attempt)
            return run is not None and run["status"] not in ("queued", "started")

        until(over, timeout, f"the end of {task_id}")
        run = self.run(task_id, attempt)
        assert run is not None
        return run

    def close(self) -> None:
        """End all."""
        self._customer.close()
        for program in self._programs:
            if program.poll() is None:
                os.killpg(program.pid, signal.SIGKILL)
                program.wait()


def of(task_id: str, attempt: int = 0) -> bytes:
    """The key of a task's run."""
    return key(run_id("shop", task_id, attempt, 0))


@contextmanager
def shop(directory: Path, broker: str, results: str | None = None, **settings: Any) -> Iterator[Shop]:
    """A shop, closed at the end."""
    opened = Shop(directory, broker, results, **settings)
    try:
        yield opened
    finally:
        opened.close()
