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

EXAMPLES = Path(__file__).parent.parent / "examples"
PATIENCE = 30.0

PROGRAMS = {  # file, a job of it, and which variable names the port of its metrics
    "script.py": ("send_invoices", "TASKSCOPE_PORT"),
    "asyncio_app.py": ("fetch_rates", "TASKSCOPE_PORT"),
    "own_registry.py": ("clean_up", "PORT"),
    "logging_filter.py": ("reorder", "TASKSCOPE_PORT"),
    "web_app.py": ("newsletter", "TASKSCOPE_PORT"),
    "collector": ("invoice_reminders", "TASKSCOPE_PORT"),
}


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def metrics(port: str) -> str:
    try:
        return str(urlopen(f"http://127.0.0.1:{port}/metrics").read().decode())
    except URLError:
        return ""


def ask_for_a_newsletter(port: str) -> None:
    try:
        urlopen(Request(f"http://127.0.0.1:{port}/newsletter", method="POST"))
    except URLError:
        return


def test_every_example_is_tried():
    assert set(PROGRAMS) == {
        path.name for path in EXAMPLES.iterdir() if path.name not in ("stack", "__pycache__")
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
    )
    counted = f'job_name="{job}",status="success"}} '
    deadline, found = time.monotonic() + PATIENCE, False
    while not found and time.monotonic() < deadline and process.poll() is None:
        if job == "newsletter":
            ask_for_a_newsletter(ports["PORT"])
        page = metrics(ports[variable])
        found = any(counted in line and not line.endswith(" 0") for line in page.splitlines())
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=PATIENCE)
    assert found, output
    assert "Traceback" not in output or job == "send_invoices", output
    assert process.returncode == 0, output
