"""A program whose scheduler belongs to a framework's own loop: gevent (also patched), tornado or twisted.

Usage: looping.py KIND LEDGER HISTORY. Prints, as JSON, the runs that were committed, the page, and what is left.
"""

import sys

if "patched" in sys.argv[1]:  # before anything else is imported, as gevent wants it
    from gevent import monkey

    monkey.patch_all()

import importlib
import json
import logging
import threading
import time
from pathlib import Path
from urllib.request import urlopen

sys.path.insert(0, str(Path(__file__).parent.parent / "bridges"))

import recorded

import taskscope
from taskscope.identity import text
from taskscope.testing import Recorder

RUNS = 8
PATIENCE = 30.0


class Scene:
    """A scheduler that is watched, seven runs that overlap where their loop lets them, and one that fails."""

    def __init__(self, loop: str, ledger: str, history: str) -> None:
        self.seen, self.deadline = Recorder(), time.monotonic() + PATIENCE
        module = importlib.import_module(f"apscheduler.schedulers.{loop}")
        self.scheduler = getattr(module, f"{loop.capitalize()}Scheduler")(timezone="UTC")
        self.exporter = taskscope.watch(
            self.scheduler, sinks=[self.seen], history=history, port=0, strict=True
        )
        other = recorded.awaits if loop == "tornado" else recorded.work
        works = {f"plain-{number}": recorded.work for number in range(3)}
        works |= {f"other-{number}": other for number in range(4)}
        for job, work in works.items():
            self.scheduler.add_job(work, "date", [ledger, job, 0.1], id=job)
        self.scheduler.add_job(recorded.fail, "date", [ledger, "broken"], id="broken")
        self.scheduler.start()

    @property
    def over(self) -> bool:
        ended = {change.row.id for change in self.seen.changes if change.row.ended}
        return len(ended) == RUNS or time.monotonic() > self.deadline

    def end(self) -> None:
        self.scheduler.shutdown()
        runs = {text(row.id): row_of(row) for row in (change.row for change in self.seen.changes)}
        with urlopen(f"{self.exporter.url}/metrics", timeout=10) as answer:
            page = answer.read().decode()
        degraded = self.exporter.degraded
        self.exporter.close()
        left = [thread.name for thread in threading.enumerate() if thread.name.startswith("taskscope")]
        print(json.dumps({"runs": runs, "page": page, "degraded": degraded, "left": left}))


def row_of(row) -> dict[str, object]:
    return {
        "job": row.job,
        "status": row.status,
        "started": row.started / 1000,
        "duration": row.duration / 1e6,
        "exception": row.exception,
    }


def in_gevent(*arguments: str) -> None:
    import gevent

    scene = Scene("gevent", *arguments)
    while not scene.over:
        gevent.sleep(0.02)
    scene.end()


def in_tornado(*arguments: str) -> None:
    import asyncio

    async def play() -> None:
        scene = Scene("tornado", *arguments)
        while not scene.over:
            await asyncio.sleep(0.02)
        scene.end()

    asyncio.run(play())


def in_twisted(*arguments: str) -> None:
    from twisted.internet import reactor, task

    def look() -> None:
        if scene.over:
            scene.end()
            reactor.stop()

    scene = Scene("twisted", *arguments)
    task.LoopingCall(look).start(0.02)
    reactor.run()


if __name__ == "__main__":
    logging.disable()  # APScheduler tells of every failure
    play = {"gevent": in_gevent, "gevent-patched": in_gevent, "tornado": in_tornado, "twisted": in_twisted}
    play[sys.argv[1]](*sys.argv[2:])
