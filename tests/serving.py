"""`taskscope serve` as a process of its own, on a free port, with the bridges of programs/outside."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from services.process import free_port, until

PROGRAM = Path(__file__).parent / "programs" / "with_outside.py"
QUICK = {"poll_interval": 0.3, "reading_ttl": 5, "flush_interval": 0.01}
"""Settings with which a test need not wait for long."""
_READ_AGAIN = re.compile("has read its settings|keeps its old settings|could not take over")


class Served:
    """One collector in a directory; `settings` is the content of its taskscope.yaml."""

    def __init__(self, folder: Path, settings: dict[str, Any], *arguments: str) -> None:
        self.folder, self.port, self.token = folder, free_port(), ""
        self.history = f"sqlite:///{folder}/runs.db"
        self.write(settings)
        self._log = (folder / "log").open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(PROGRAM), "serve", *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
        )

    def write(self, settings: dict[str, Any]) -> None:
        """Write the settings file."""
        usual = {"history": self.history, "port": self.port} | QUICK
        (self.folder / "taskscope.yaml").write_text(json.dumps(usual | settings))

    def reload(self, settings: dict[str, Any] | None = None) -> None:
        """Write the settings file and have it read; returns when that is done."""
        before = len(_READ_AGAIN.findall(self.log))
        if settings is not None:
            self.write(settings)
        self.process.send_signal(signal.SIGHUP)
        until(lambda: len(_READ_AGAIN.findall(self.log)) > before, what="a word about the settings")

    def end(self) -> int:
        """End it by SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    @property
    def log(self) -> str:
        """What it wrote on stderr."""
        return (self.folder / "log").read_text()

    def ask(self, path: str) -> tuple[int, str]:
        """Status and body; status 0 where nobody answers."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            with urlopen(
                Request(f"http://127.0.0.1:{self.port}{path}", headers=headers), timeout=10
            ) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()
        except URLError:
            return 0, ""

    def parts(self) -> dict[str, dict[str, Any]]:
        """What /-/ready says of each part; nothing while nobody answers."""
        return {
            part["name"]: part for part in json.loads(self.ask("/-/ready")[1] or '{"parts": []}')["parts"]
        }

    def is_ready(self) -> bool:
        """Does every part do its work?"""
        return self.ask("/-/ready")[0] == 200

    def value(self, metric: str, **labels: str) -> float | None:
        """The sum of the samples with these labels, as Prometheus would scrape them; None where there are none."""
        page = self.ask("/metrics")[1]
        found = [
            sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == f"taskscope_{metric}" and labels.items() <= sample.labels.items()
        ]
        return sum(found) if found else None

    def runs(self, **labels: str) -> float:
        """How many runs it has counted."""
        return self.value("runs_total", **labels) or 0.0

    def remove(self) -> None:
        """Whatever became of it, it is gone."""
        self.process.kill()
        self.process.communicate()
        self._log.close()


Serve = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts collectors; they are gone after the test."""
    started: list[Served] = []

    def start(settings: dict[str, Any], *arguments: str, files: Mapping[str, str] = {}) -> Served:
        folder = tmp_path / f"collector-{len(started)}"
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
        served = Served(folder, settings, *arguments)
        started.append(served)
        return served

    yield start
    for served in started:
        served.remove()
