"""Runs `taskscope exec` as a process, and asks a collector what it heard."""

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from prometheus_client.parser import text_string_to_metric_families

from services.process import Server, answers, until

EXEC = [sys.executable, "-m", "taskscope", "exec"]
NOWHERE = "http://127.0.0.1:9"
"""Nobody listens there: it refuses at once."""


class Collector(Server):
    """`taskscope serve`, with an SQLite file of its own."""

    def __init__(self, **settings: Any) -> None:
        super().__init__("collector")
        self.url = f"http://127.0.0.1:{self.port}"
        told = {"port": self.port, "history": f"sqlite:///{self.directory}/runs.db", **settings}
        (self.directory / "taskscope.yaml").write_text(json.dumps(told))

    def command(self) -> list[str]:
        """What to run."""
        return [sys.executable, "-W", "error", "-m", "taskscope", "serve", "--config", "taskscope.yaml"]

    def ready(self) -> bool:
        """Does it answer?"""
        return answers(f"{self.url}/-/ready")

    def ask(self, path: str, method: str = "GET", **query: str) -> Any:
        """What it answers."""
        url = f"{self.url}{path}?{urlencode(query)}" if query else f"{self.url}{path}"
        with urlopen(Request(url, method=method), timeout=20) as answer:
            return json.loads(answer.read())

    def value(self, sample: str, **labels: str) -> float:
        """What the page of metrics says: the value of its only sample of this name with these labels."""
        with urlopen(f"{self.url}/metrics", timeout=20) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        samples = [one for family in families for one in family.samples if one.name == sample]
        (found,) = [one.value for one in samples if labels.items() <= one.labels.items()]
        return float(found)

    def runs(self, scheduler: str) -> list[dict[str, Any]]:
        """The runs of a scheduler in full, newest first."""
        listed = self.ask("/api/task/", scheduler=scheduler)["data"]
        return [self.ask(f"/api/task/{run['id']}") for run in listed]

    def run(self, scheduler: str) -> dict[str, Any]:  # type: ignore[override]
        """Its only run."""
        (run,) = self.runs(scheduler)
        return run

    def until_runs(self, scheduler: str, *statuses: str) -> list[dict[str, Any]]:
        """Its runs, once they are in these states, in whatever order."""
        wanted = sorted(statuses)
        until(lambda: sorted(run["status"] for run in self.runs(scheduler)) == wanted, what=str(statuses))
        return self.runs(scheduler)


class Wrapper:
    """A home for spools and locks, an address, a scheduler of its own."""

    def __init__(self, home: Path, url: str, scheduler: str) -> None:
        self.home, self.url, self.scheduler = home, url, scheduler
        self.started: list[subprocess.Popen[bytes]] = []

    def environment(self, **more: str) -> dict[str, str]:
        """Ours, without what would be taken for settings."""
        words = ("TASKSCOPE_", "TRIGGER_", "SYSTEMD_", "INVOCATION_", "CRON_TZ", "TRACEPARENT")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(words)}
        own = {
            "TASKSCOPE_FORWARD": self.url,
            "TASKSCOPE_SCHEDULER": self.scheduler,
            "TASKSCOPE_HOME": str(self.home),
        }
        return inherited | own | more

    def start(
        self, *arguments: str, env: dict[str, str] | None = None, **more: Any
    ) -> "subprocess.Popen[bytes]":
        """`taskscope exec` with these arguments; its output comes by pipes."""
        pipes: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        }
        process = subprocess.Popen([*EXEC, *arguments], env=self.environment(**env or {}), **pipes | more)
        self.started.append(process)
        return process

    def run(
        self, *arguments: str, stdin: bytes | None = None, **more: Any
    ) -> "subprocess.CompletedProcess[bytes]":
        """The same, to its end."""
        process = self.start(*arguments, **({"stdin": subprocess.PIPE} if stdin is not None else {}), **more)
        out, err = process.communicate(stdin, timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def shell(self, script: str, *flags: str, **more: Any) -> "subprocess.CompletedProcess[bytes]":
        """The same for a script of sh."""
        return self.run(*flags, "--", "sh", "-c", script, **more)

    def correct(self, url: str) -> None:
        """Another address is the right one, and what waits for the old one moves there: docs/operations.md."""
        old, new = (self.home / "spool" / sha256(each.encode()).hexdigest()[:16] for each in (self.url, url))
        old.rename(new)
        self.url = url

    def spooled(self) -> list[dict[str, Any]]:
        """The events that wait on disk."""
        files = sorted((self.home / "spool").glob("*/[!.]*"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def close(self) -> None:
        """End what a failed test left."""
        for process in self.started:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()


def is_gone(pid: int) -> bool:
    """Is there no such process, or only what is left of it?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
