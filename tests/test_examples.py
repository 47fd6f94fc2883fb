import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from services.process import free_port
from taskscope.configure import load

EXAMPLES = Path(__file__).parent.parent / "examples"
PATIENCE = 30.0
CANCELLED = "asyncio.exceptions.CancelledError\n"

PROGRAMS = {  # file, a job of it, and which variable names the port of its metrics
    "script.py": ("send_invoices", "TASKSCOPE_PORT"),
    "asyncio_app.py": ("fetch_rates", "TASKSCOPE_PORT"),
    "own_registry.py": ("clean_up", "PORT"),
    "logging_filter.py": ("reorder", "TASKSCOPE_PORT"),
    "web_app.py": ("newsletter", "TASKSCOPE_PORT"),
    "backfill.py": ("enrich_order", "TASKSCOPE_PORT"),
    "prefork.py": ("expire_sessions", "TASKSCOPE_PORT"),
    "forwarding.py": ("restock", "TASKSCOPE_PORT"),
    "collector": ("invoice_reminders", "TASKSCOPE_PORT"),
    "celery": ("shop.check_stock", "TASKSCOPE_PORT"),
    "rq": ("shop.send_receipt", "TASKSCOPE_PORT"),
    "cron": ("beat", "TASKSCOPE_PORT"),
}
SEVERAL = ("celery", "rq", "cron")  # examples of several programs


def ctrl_c(process: "subprocess.Popen[str]") -> None:
    """It reaches all that has the terminal."""
    os.killpg(process.pid, signal.SIGINT)


def sigterm(process: "subprocess.Popen[str]") -> None:
    """It reaches one process."""
    process.terminate()


def successes(port: str, job: str) -> float:
    """Of this job, by the page of metrics on this port."""
    try:
        page = str(urlopen(f"http://127.0.0.1:{port}/metrics").read().decode())
    except URLError:
        return 0
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    wanted = {"job_name": job, "status": "success"}
    return sum(sample.value for sample in samples if wanted.items() <= sample.labels.items())


def files() -> set[Path]:
    """What stands beside the examples, less what Python itself leaves there."""
    return {path for path in EXAMPLES.rglob("*") if "__pycache__" not in path.parts}


def is_asked_for(port: str) -> bool:
    """Has the web application taken the order for a newsletter?"""
    try:
        return bool(urlopen(Request(f"http://127.0.0.1:{port}/newsletter", method="POST")).status == 202)
    except URLError:
        return False


def test_every_example_is_tried():
    elsewhere = (
        "kubernetes",
        "stack",
        "systemd",
        "__pycache__",
    )  # which are no programs: tests/test_stack.py
    assert {name.partition("/")[0] for name in PROGRAMS} == {
        path.name for path in EXAMPLES.iterdir() if path.name not in elsewhere
    }


def test_the_settings_of_the_collector_are_right_also_with_all_that_may_be_switched_on(tmp_path: Path):
    text = (EXAMPLES / "collector" / "taskscope.yaml").read_text()
    (tmp_path / "all.yaml").write_text(re.sub(r"(?m)^#(?=\S|  )", "", text))

    plain = load(path=EXAMPLES / "collector" / "taskscope.yaml", environ={})
    full = load(path=tmp_path / "all.yaml", environ={})

    assert set(plain.schedulers) == {"shop"}
    assert {source.system for source in full.schedulers.values()} == {"apscheduler", "celery", "rq"}
    secret = {"TASKSCOPE_SCHEDULERS__INVOICES__TARGET": "amqp://user:secret@host/vhost"}
    invoices = load(path=tmp_path / "all.yaml", environ=secret).schedulers["invoices"]
    assert (invoices.system, invoices.target) == ("celery", "amqp://user:secret@host/vhost")
    assert (full.host, full.log_format, len(full.tokens), len(full.jobs)) == ("0.0.0.0", "json", 1, 2)


@pytest.mark.parametrize("name", ["celery", "rq"])
def test_an_example_that_finds_no_redis_says_so(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for given in ("BROKER", "REDIS_URL"):
        monkeypatch.delenv(given, raising=False)

    done = subprocess.run(
        [sys.executable, EXAMPLES / name],
        env=os.environ | {"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )

    assert done.returncode == 1
    assert done.stderr.startswith("There is no redis-server on PATH; install it, or name a ")


@pytest.mark.parametrize(
    ("name", "end"), [*((name, ctrl_c) for name in PROGRAMS), *((name, sigterm) for name in SEVERAL)]
)
def test_an_example_runs_counts_its_job_and_ends_with_all_that_it_started(
    name: str,
    end: Callable[["subprocess.Popen[str]"], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    job, variable = PROGRAMS[name]
    ports = {name: str(free_port()) for name in ("TASKSCOPE_PORT", "PORT")}
    is_program, before = name != "collector", files()
    for given in ("TASKSCOPE_HOME", "BROKER", "REDIS_URL"):
        monkeypatch.delenv(given, raising=False)
    process = subprocess.Popen(
        [sys.executable, "-W", "error", *([EXAMPLES / name] if is_program else ["-m", "taskscope", "serve"])],
        cwd=tmp_path if is_program else EXAMPLES / name,
        env=os.environ | ports | {"HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    deadline, found, asked = time.monotonic() + PATIENCE, False, job != "newsletter"
    while not found and time.monotonic() < deadline and process.poll() is None:
        asked = asked or is_asked_for(ports["PORT"])
        found = successes(ports[variable], job) > 0
        time.sleep(0.1)
    end(process)
    try:
        output, _ = process.communicate(timeout=PATIENCE)  # up to the end of all that write there
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert found, output
    if name not in ("script.py", "celery", "rq"):  # where a job fails on purpose
        # APScheduler logs a job that Ctrl-C cancels; nothing else may fail.
        logged, cancelled = (output.count(words) for words in ("raised an exception\nTraceback", CANCELLED))
        assert output.count("Traceback") == logged == cancelled, output
    assert process.returncode == 0, output
    assert files() == before
    if name in SEVERAL:  # what they share goes with them
        assert list(tmp_path.rglob("*.db")) == []
