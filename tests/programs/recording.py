"""A program that records runs as fast as it is told to, and writes down which ones were reported committed.

Usage: recording.py HISTORY PORT TRUTH. For each line `record` or `idle` of standard input it forks a child that
does so, which costs less than to import everything anew; prints the child's pid when that is ready, and its exit code
when it has ended. `TRUTH` gets one line per report: run id, job, status, and the bits that were new; it is a plain
file, so that what was written before a SIGKILL stays.
"""

import itertools
import os
import random
import signal
import sys
import time
from uuid import uuid4

import taskscope.sinks.history.queries
import taskscope.sinks.history.sql  # noqa: F401 - as the children need them
from taskscope import Exporter
from taskscope.events import Fact
from taskscope.facts import fresh
from taskscope.identity import text
from taskscope.instance import instance
from taskscope.testing import Recorder

JOBS = ("steady", "flaky", "nightly")


def main(history: str, port: str, truth: str, what: str) -> None:
    written = os.open(truth, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(changes):
        lines = (
            f"{text(change.row.id)} {change.row.job} {change.row.status} {fresh(change.row.facts, change.added)}\n"
            for change in changes
        )
        os.write(written, "".join(lines).encode())

    exporter = Exporter(
        history=history, port=int(port), sinks=[Recorder(on_commit=write)], heartbeat=0.2, lost_after=1.0
    )
    with exporter:
        print(os.getpid(), flush=True)
        if what == "idle":
            signal.pause()
        for number in itertools.count():
            run(exporter.pipeline.emit, number)


def run(emit, number: int) -> None:
    """One run, told in two or three facts; every tenth never ends."""
    now = time.time()
    known = {
        "scheduler": "s",
        "native": uuid4().hex,
        "job": JOBS[number % 3],
        "anchor": now,
        "due": now,
        "instance": instance(),
    }
    emit(Fact(status="queued", at=now, enqueued=now, **known))
    emit(Fact(status="started", at=now, enqueued=now, started=now, **known))
    time.sleep(random.uniform(0, 0.002))
    if number % 10:
        status = "failed" if known["job"] == "flaky" else "success"
        emit(
            Fact(
                status=status, at=time.time(), enqueued=now, started=now, duration=time.time() - now, **known
            )
        )


def child(what: str) -> None:
    """Never returns: what belongs to the parent is left alone."""
    random.seed()
    code = 1
    try:
        main(*sys.argv[1:], what)
    except KeyboardInterrupt:
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    for line in sys.stdin:
        if (pid := os.fork()) == 0:
            child(line.strip())
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
