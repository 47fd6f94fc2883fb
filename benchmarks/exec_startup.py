"""What `taskscope exec` costs a command: how much later it starts, and how much later its end is known.

    python -m benchmarks.exec_startup [--json FILE]

Bare and wrapped take turns in one run, so that what else the machine does falls on both; medians of pairs are compared.
The start is what the command itself says of it. Beside it is an empty program of the same Python, which no wrapper in
Python can beat.
"""

import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from benchmarks.show import finish

PAIRS = 41
EXEC = [sys.executable, "-m", "taskscope", "exec", "--job", "bench"]
NOWHERE = "http://127.0.0.1:9"


def main() -> dict[str, Any]:
    """Milliseconds."""
    with tempfile.TemporaryDirectory() as folder, collector(folder) as url:
        taking, away = environment(folder, url), environment(folder, NOWHERE)
        taken = [*EXEC, "--", "date", "+%s.%N"]
        starts = pairs(lambda: started(["date", "+%s.%N"], taking), lambda: started(taken, taking))
        python = pairs(lambda: whole(["true"], taking), lambda: whole([sys.executable, "-c", ""], taking))
        told = pairs(lambda: whole(["true"], taking), lambda: whole([*EXEC, "--", "true"], taking))
        silent = [*EXEC, "--to", "", "--", "true"]
        cpu = pairs(lambda: processor(["true"], away), lambda: processor(silent, away))
        python_cpu = pairs(
            lambda: processor(["true"], away), lambda: processor([sys.executable, "-c", ""], away)
        )
        kept = pairs(lambda: whole(["true"], away), lambda: whole([*EXEC, "--", "true"], away))
    return {
        "start of the command, later by": starts,
        "end of `true`, later by, told to a collector": told,
        "end of `true`, later by, collector away": kept,
        "an empty Python program, beside `true`": python,
        "CPU of the wrapper that tells nobody, beside `true`": cpu,
        "CPU of an empty Python program, beside `true`": python_cpu,
    }


def pairs(bare: Any, wrapped: Any) -> dict[str, float]:
    """Of each pair the difference in ms: median, the best and the worst tenth."""
    bare(), wrapped()  # the first compiles and fills caches
    differences = sorted(wrapped() - bare() for _ in range(PAIRS))
    tenth = PAIRS // 10
    return {
        "median ms": statistics.median(differences) * 1e3,
        "p10 ms": differences[tenth] * 1e3,
        "p90 ms": differences[-1 - tenth] * 1e3,
    }


def started(command: list[str], env: dict[str, str]) -> float:
    """Seconds from here to when the command says that it runs."""
    begin = time.time()
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True)
    return float(done.stdout) - begin


def whole(command: list[str], env: dict[str, str]) -> float:
    """Seconds from here to its end."""
    begin = time.perf_counter()
    subprocess.run(command, env=env, check=True)
    return time.perf_counter() - begin


def processor(command: list[str], env: dict[str, str]) -> float:
    """Seconds of the processor that it takes; a busy machine changes it less than the clock."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=env, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def environment(folder: str, url: str) -> dict[str, str]:
    """Ours, with compiled modules kept, as an installed package has them."""
    own = {"TASKSCOPE_FORWARD": url, "TASKSCOPE_HOME": folder, "PYTHONPYCACHEPREFIX": f"{folder}/compiled"}
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | own


@contextmanager
def collector(folder: str) -> Iterator[str]:
    """The address of one that runs."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    settings = {"port": port, "history": f"sqlite:///{folder}/runs.db"}
    Path(folder, "taskscope.yaml").write_text(json.dumps(settings))
    process = subprocess.Popen(
        [sys.executable, "-m", "taskscope", "serve"], cwd=folder, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(200):
            try:
                with urlopen(f"http://127.0.0.1:{port}/-/ready"):
                    break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    finish("exec_startup", main)
