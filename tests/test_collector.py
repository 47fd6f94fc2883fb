import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from taskscope.settings import Settings
from taskscope.sinks.history.queries import Queries
from taskscope.sinks.history.records import Filter

COMMAND = [sys.executable, "-W", "error", "-m", "taskscope", "serve"]
PATIENCE = 30.0
SHOP = """
import atexit
import gc
from pathlib import Path
from apscheduler.executors.debug import DebugExecutor
from apscheduler.schedulers.background import BackgroundScheduler

def invoices():
    pass

def explosive():
    raise RuntimeError("boom")

# A pool cannot be used while Python ends: a scheduler that nobody shuts down complains of it now and then.
scheduler = BackgroundScheduler(executors={"default": DebugExecutor()})
scheduler.add_job(invoices, "interval", seconds=0.2, id="invoices")
scheduler.start()
nothing = object()
atexit.register(lambda: Path("frozen").write_text(str(gc.get_freeze_count())))
"""

Serve = Callable[[dict[str, object]], "subprocess.Popen[str]"]


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, object]:
    """Of a collector that watches a scheduler in a module of the working directory."""
    (tmp_path / "shop.py").write_text(SHOP)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return {
        "history": f"sqlite:///{tmp_path}/runs.db",
        "port": port,
        "schedulers": {"shop": {"system": "apscheduler", "target": "shop:scheduler"}},
    }


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    started: list[subprocess.Popen[str]] = []

    def start(settings: dict[str, object]) -> "subprocess.Popen[str]":
        (tmp_path / "taskscope.yaml").write_text(json.dumps(settings))
        process = subprocess.Popen(
            COMMAND,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(os.environ),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def page(url: str) -> str:
    try:
        return str(urlopen(url).read().decode())
    except URLError:
        return ""


def soon(is_true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not (true := is_true()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return true


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_watches_a_scheduler_by_name_until_it_is_told_to_end(
    serve: Serve, settings: dict[str, object], tmp_path: Path, number: signal.Signals
):
    process = serve(settings)
    assert soon(lambda: '"invoices"' in page(f"http://127.0.0.1:{settings['port']}/api/task/"))
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (0, "")
    assert "Traceback" not in err
    assert "taskscope has ended" in err
    queries = Queries(f"sqlite:///{tmp_path}/runs.db", Settings())
    runs = queries.runs(Filter(), limit=1000).runs
    queries.close()
    assert {(run.scheduler, run.job) for run in runs} == {("shop", "invoices")}
    assert int((tmp_path / "frozen").read_text()) > 10_000, (
        "what was there at start is looked through for garbage"
    )


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"prot": 1}, "prot"),
        ({"schedulers": {"shop": {"system": "quarz", "target": "shop:scheduler"}}}, "quarz"),
        ({"schedulers": {"shop": {"system": "apscheduler", "target": "shop.scheduler"}}}, "module:attribute"),
        ({"schedulers": {"shop": {"system": "apscheduler", "target": "shopp:scheduler"}}}, "shopp"),
        ({"schedulers": {"shop": {"system": "apscheduler", "target": "shop:schedule"}}}, "schedule"),
        ({"schedulers": {"shop": {"system": "apscheduler", "target": "shop:nothing"}}}, "object"),
        ({"schedulers": {"shop": {"system": "fake", "target": "shop:scheduler"}}}, "fake"),
        ({"history": "sqlite:////proc/nowhere/runs.db"}, "/proc/nowhere"),
        ({"history": "postgresql://me:hunter2@127.0.0.1:1/runs"}, "127.0.0.1"),
        ({"host": "0.0.0.0"}, "0.0.0.0"),
    ],
    ids=str,
)
def test_serve_fails_at_once_with_a_sentence_that_names_what_is_wrong(
    serve: Serve, settings: dict[str, object], wrong: dict[str, object], word: str
):
    process = serve(settings | wrong)
    out, err = process.communicate(timeout=PATIENCE)
    complaints = [line for line in err.splitlines() if line.startswith("taskscope: ")]
    assert (process.returncode, out) == (2, "")
    assert len(complaints) == 1
    assert word in complaints[0]
    assert "Traceback" not in err
    assert "hunter2" not in err


def test_serve_fails_at_once_when_its_port_is_taken(serve: Serve, settings: dict[str, object]):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = serve(settings | {"port": taken.getsockname()[1]})
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert "cannot listen" in err
