"""How many events a second other processes get into SQLite and PostgreSQL over HTTP, committed before each answer.

Four senders, processes of their own, each with one kept connection and one request under way, send the starts and
successes of short runs, a batch at a time; the collector is a process of its own, too. Senders have their bodies ready
before the clock starts, so that what is measured is the collector. Its CPU and memory are what the kernel says.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from benchmarks.queries import server
from benchmarks.show import finish

SENDERS, JOBS, BATCH = 4, 20, 1_000
EVENTS = 100_000  # of each sender


def main() -> dict[str, Any]:
    """Figures of both stores; PostgreSQL is left out where none is installed."""
    with tempfile.TemporaryDirectory() as folder:
        figures = {"sqlite": measure(f"sqlite:///{folder}/runs.db")}
    with server(None) as url:
        return figures | ({"postgresql": measure(url)} if url else {})


def measure(history: str, senders: int = SENDERS, events: int = EVENTS) -> dict[str, float]:
    """Events a second from the first request to the last answer, and what that cost the collector."""
    with running("serve", history) as collector, running("send", f"{events}", senders=senders) as sending:
        url = said(collector[0])
        for sender in sending:
            said(sender)  # it is ready
        cpu, begin = cpu_seconds(collector[0].pid), time.perf_counter()
        for sender in sending:
            tell(sender, url)
        times = [float(answer) for sender in sending for answer in json.loads(said(sender))]
        took, total = time.perf_counter() - begin, senders * events
        cpu = cpu_seconds(collector[0].pid) - cpu
        tell(collector[0], "")
        counted, peak = json.loads(said(collector[0]))
    assert counted == total / 2, f"{total / 2:.0f} runs were sent and {counted:.0f} counted"
    return {
        "events_per_second": total / took,
        "cpu_us_per_event": cpu / total * 1e6,
        "cores": cpu / took,
        "answer_ms_median": sorted(times)[len(times) // 2] * 1e3,
        "peak_mib": peak / 1024,
    }


def serve(history: str) -> None:
    """A collector: says its URL, and when it is asked how many runs it counted and how large it was."""
    from taskscope import Exporter

    with Exporter(history=history, port=0) as exporter:
        print(exporter.url, flush=True)
        sys.stdin.readline()
        counted = sum(counts.statuses["success"] for counts in exporter.store.totals().values())
        print(json.dumps([counted, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]), flush=True)


def send(events: int) -> None:
    """A sender: makes its bodies, sends them to the URL it is told, says how many seconds each answer took."""
    bodies = [body(BATCH) for _ in range(events // BATCH)]
    print("ready", flush=True)
    connection, times = HTTPConnection(urlsplit(sys.stdin.readline().strip()).netloc), []
    for one in bodies:
        begin = time.perf_counter()
        connection.request("POST", "/api/ingest/events", one, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        told = json.loads(answer.read())
        assert (answer.status, told["accepted"]) == (200, BATCH), told
        times.append(time.perf_counter() - begin)
    print(json.dumps(times), flush=True)


def body(events: int) -> bytes:
    """Runs of a moment, each told by two events."""
    told = []
    for number in range(events // 2):
        now = time.time()
        run: dict[str, Any] = {"type": "fact", "scheduler": "shop", "job": f"job-{number % JOBS}"}
        run |= {"native": uuid4().hex, "anchor": now, "instance": f"host:{os.getpid()}:u"}
        run |= {"queue": "default", "worker": "worker-1"}
        told.append(run | {"status": "started", "at": now})
        told.append(run | {"status": "success", "at": now + 0.05, "started": now, "duration": 0.05})
    return json.dumps(told, separators=(",", ":")).encode()


@contextmanager
def running(*arguments: str, senders: int = 1) -> Iterator[list["subprocess.Popen[str]"]]:
    """So many processes of this module."""
    command = [sys.executable, "-m", "benchmarks.ingest", *arguments]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(senders)
    ]
    try:
        yield started
    finally:
        for process in started:
            process.communicate(timeout=60)


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def tell(process: "subprocess.Popen[str]", line: str) -> None:
    assert process.stdin
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", history]:
            serve(history)
        case ["send", events]:
            send(int(events))
        case _:
            finish("ingest", main)
