"""A crontab whose jobs are watched, a collector, and a few lines in place of cron, so that none is needed.

python examples/cron
curl http://127.0.0.1:9750/api/task/

Each job of `crontab` is run at once, then when it says.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from taskscope import crontab
from taskscope.schedule import due_times

HERE = Path(__file__).parent
PORT = os.environ.get("TASKSCOPE_PORT", "9750")


def serve(folder: str) -> "subprocess.Popen[bytes]":
    """A collector that keeps its history in this folder."""
    settings = {"TASKSCOPE_HISTORY": f"sqlite:///{folder}/runs.db", "TASKSCOPE_PORT": PORT}
    return subprocess.Popen(
        [sys.executable, "-m", "taskscope", "serve"], cwd=folder, env=os.environ | settings
    )


def run_for_ever(folder: str, running: "list[subprocess.Popen[bytes]]") -> None:
    """What cron does, less its care for users and clocks."""
    lines = [line for line in crontab.lines((HERE / "crontab").read_text()) if line.schedule]
    due = dict.fromkeys(range(len(lines)), 0.0)
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # of cron itself it is /usr/bin:/bin
    of_cron = {"SHELL": "/bin/sh", "PATH": programs, "TASKSCOPE_FORWARD": f"http://127.0.0.1:{PORT}"}
    while True:
        for number, line in enumerate(lines):
            if due[number] <= time.time():
                due[number] = next(due_times(line.schedule, line.timezone, time.time()))
                environment = os.environ | of_cron | {"TASKSCOPE_HOME": folder}
                running.append(subprocess.Popen(["/bin/sh", "-c", line.command], env=environment))
        running[:] = [process for process in running if process.poll() is None]
        time.sleep(0.5)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it ends this as Ctrl-C does
    with tempfile.TemporaryDirectory() as folder:
        collector = serve(folder)
        running: list[subprocess.Popen[bytes]] = []
        print(f"http://127.0.0.1:{PORT}/api/task/ lists the runs, …/metrics counts them; Ctrl-C ends it")
        try:
            run_for_ever(folder, running)
        except KeyboardInterrupt:
            for process in running:
                process.terminate()  # Ctrl-C reached it, too; SIGTERM did not
                process.wait()
        collector.terminate()
        collector.wait()
