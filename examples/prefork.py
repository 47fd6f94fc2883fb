"""A web application with several worker processes, each with a scheduler: one owns the history and serves.

The others hand what they see on to the owner, and one of them takes over when it ends.

    python examples/prefork.py
    curl http://127.0.0.1:9750/metrics
"""

import os
import queue
import signal
import sys
import time

from apscheduler.schedulers.background import BackgroundScheduler

import taskscope


def expire_sessions() -> None:
    """A job that every worker has."""
    time.sleep(0.1)


def work() -> None:
    """What a worker does: serve requests (left out here), with a scheduler beside it."""
    asked: queue.SimpleQueue[int] = queue.SimpleQueue()
    signal.signal(signal.SIGINT, lambda number, _: asked.put(number))
    scheduler = BackgroundScheduler()
    scheduler.add_job(expire_sessions, "interval", seconds=1, id="expire_sessions")
    with taskscope.Exporter(scheduler, service="prefork"):
        scheduler.start()
        asked.get()
        scheduler.shutdown()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the workers too
    workers = []
    for _ in range(2):
        workers.append(os.fork())
        if workers[-1] == 0:
            work()
            sys.exit()
    for worker in workers:
        os.waitpid(worker, 0)
