"""A program that tells of numbered runs, when it is told to.

Usage: telling.py NAME SETTINGS, these as JSON. Each line of standard input is a command, each is answered by a line:
`ready` at the start; `tell N`: tell of N more runs that succeeded, by the number of the last; `begin`: of one that only
began; `flush`: is all of it durable; `owns`: does it own its history. A run's number is its entity, NAME is its job.
"""

import json
import sys
import time

import taskscope
from taskscope.events import Fact
from taskscope.testing import FakeScheduler


def main(name: str, settings: str) -> None:
    number = 0
    with taskscope.Exporter(FakeScheduler(), names=["s"], **json.loads(settings)) as exporter:
        print("ready", flush=True)
        for line in sys.stdin:
            what, _, count = line.strip().partition(" ")
            if what == "tell":
                for _ in range(int(count)):
                    number += 1
                    exporter._carrier.emit(fact(exporter, name, number, "success", duration=0.01))
                print(number, flush=True)
            elif what == "begin":
                exporter._carrier.emit(fact(exporter, f"{name}-open", 0, "started"))
                print("begun", flush=True)
            elif what == "flush":
                print(exporter.flush(30), flush=True)
            elif what == "owns":
                print(exporter.pipeline.opened, flush=True)
    print("ended", flush=True)


def fact(exporter, name: str, number: int, status, **more) -> Fact:
    now = time.time()
    return Fact(
        scheduler="s",
        native=f"{name}-{number}",
        status=status,
        at=now,
        anchor=now,
        started=now,
        job=name,
        entity=str(number),
        instance=exporter._instance,
        **more,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
