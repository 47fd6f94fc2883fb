"""A program that keeps nothing itself: what its jobs do goes to a collector, here a `taskscope serve` beside it.

python examples/forwarding.py
curl http://127.0.0.1:9750/api/task/
"""

import os
import subprocess
import sys
import time

from apscheduler.schedulers.background import BackgroundScheduler

import taskscope

COLLECTOR = f"http://127.0.0.1:{os.environ.get('TASKSCOPE_PORT', '9750')}"


def restock() -> None:
    """A job of a program that may run on any number of hosts."""
    time.sleep(0.1)


if __name__ == "__main__":
    collector = subprocess.Popen([sys.executable, "-m", "taskscope", "serve"])  # usually elsewhere
    scheduler = BackgroundScheduler()
    scheduler.add_job(restock, "interval", seconds=1, id="restock")
    # The variables TASKSCOPE_… are the collector's here; usually `forward` alone is enough.
    taskscope.watch(scheduler, service="forwarding", forward=COLLECTOR, history=None, port=None)
    scheduler.start()
    try:
        collector.wait()
    except KeyboardInterrupt:
        scheduler.shutdown()
        collector.wait()
