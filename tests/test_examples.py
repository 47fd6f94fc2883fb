import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

EXAMPLES = Path(__file__).parent.parent / "examples"
PATIENCE = 30.0

PROGRAMS = {  # file, a job of it, and which variable names the port of its metrics
    "script.py": ("send_invoices", "TASKSCOPE_PORT"),
    "asyncio_app.py": ("fetch_rates", "TASKSCOPE_PORT"),
    "own_registry.py": ("clean_up", "PORT"),
    "logging_filter.py": ("reorder", "TASKSCOPE_PORT"),
    "web_app.py": ("newsletter", "TASKSCOPE_PORT"),
    "prefork.py": ("expire_sessions", "TASKSCOPE_PORT"),
    "forwarding.py": ("restock", "TASKSCOPE_PORT"),
    "collector": ("invoice_reminders", "TASKSCOPE_PORT"),
    "cron/run.py": ("beat", "TASKSCOPE_PORT"),
}


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def successes(port: str, job: str) -> float:
    """Of this job, by the page of metrics on this port."""
    try:
        page = str(urlopen(f"http://127.0.0.1:{port}/metrics").read().decode())
    except URLError:
        return 0
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    wanted = {"job_name": job, "status": "success"}
    return sum(sample.value for sample in samples if wanted.items() <= sample.labels.items())


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


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_example_runs_counts_its_job_and_ends_on_ctrl_c(name: str, tmp_path: Path):
    job, variable = PROGRAMS[name]
    ports = {"TASKSCOPE_PORT": free_port(), "PORT": free_port()}
    is_program = name.endswith(".py")
    process = subprocess.Popen(
        [sys.executable, "-W", "error", *([EXAMPLES / name] if is_program else ["-m", "taskscope", "serve"])],
        cwd=tmp_path if is_program else EXAMPLES / name,
        env=os.environ | ports | {"TASKSCOPE_HOME": str(tmp_path)},
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
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=PATIENCE)
    assert found, output
    if job != "send_invoices":  # which fails on purpose
        assert "Traceback" not in output
    assert process.returncode == 0, output
