"""A program whose job is watched and does what standard input says, line by line: `fails`, `succeeds`, `is due`.

Usage: scripted.py HISTORY PORT TOKEN JOB. The token may do everything, metrics need none. Prints `ready` when it does.
"""

import sys
import time
from hashlib import sha256

from taskscope import Exporter
from taskscope.settings import JobRule, Token
from taskscope.testing import FakeJob, FakeScheduler


def main(history: str, port: str, token: str, job: str) -> None:
    scheduler = FakeScheduler()
    exporter = Exporter(
        scheduler,
        names=["billing"],
        history=history,
        port=int(port),
        metrics_open=True,
        tokens=[
            Token(
                name="test", sha256=sha256(token.encode()).hexdigest(), scopes=("manage", "metrics", "ingest")
            )
        ],
        jobs=[JobRule(match=job, team="payments", grace=1.0)],
        poll_interval=0.5,
    )
    with exporter:
        for name in (job, "healthy"):
            scheduler.job(name).run(duration=0.1)
        print("ready", flush=True)
        for line in sys.stdin:
            do(scheduler.job(job), line.strip())


def do(job: FakeJob, what: str) -> None:
    if what == "is due":
        job.define(next_run=time.time() + 4)
    else:
        job.run(duration=0.1, fails=LookupError("no exchange rate for today") if what == "fails" else None)


if __name__ == "__main__":
    main(*sys.argv[1:])
