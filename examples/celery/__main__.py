"""A worker, a beat and a publisher, each a process of its own, until Ctrl-C. Needs a Redis.

python examples/celery          # another broker: BROKER=amqp://guest@localhost// python examples/celery
curl http://127.0.0.1:9750/metrics
curl http://127.0.0.1:9750/api/task/
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

PUBLISHER = """
import itertools, time, shop
for order in itertools.count(1):
    shop.charge.delay(order)
    shop.pack.apply_async((order,), countdown=1)
    if order % 5 == 0:
        shop.render_catalogue.delay()
    time.sleep(0.5)
"""


def main() -> int:
    """Start all, wait for Ctrl-C, end all."""
    stop = threading.Event()
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, lambda *_: stop.set())
    here = Path(__file__).parent
    celery = [sys.executable, "-m", "celery", "-A", "shop"]
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("TASKSCOPE_HOME", folder)  # the history is gone with the example
        commands = [
            [*celery, "worker", "--concurrency", "2", "--loglevel", "warning"],
            [*celery, "beat", "--schedule", f"{folder}/schedule"],
            [sys.executable, "-c", PUBLISHER],
        ]
        processes = [subprocess.Popen(command, cwd=here, start_new_session=True) for command in commands]
        stop.wait()
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
