"""A worker, a beat and a publisher, each a process of its own, until Ctrl-C; with redis-server on PATH, or BROKER.

python examples/celery          # on a Redis of its own, or BROKER=amqp://guest@localhost// python examples/celery
curl http://127.0.0.1:9750/metrics
curl http://127.0.0.1:9750/api/task/
"""

import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from shutil import which

HERE = Path(__file__).parent
PUBLISHER = """
import itertools, time, shop
for order in itertools.count(1):
    shop.charge.delay(order)
    shop.pack.apply_async((order,), countdown=1)
    if order % 5 == 0:
        shop.render_catalogue.delay()
    time.sleep(0.5)
"""


def start(*command: str) -> "subprocess.Popen[bytes]":
    """A process that Ctrl-C does not reach: it is ended in its turn."""
    return subprocess.Popen(command, cwd=HERE, start_new_session=True)


def start_redis() -> "subprocess.Popen[bytes]":
    """A Redis, which answers when this returns, as the broker of all that is started from now on."""
    if which("redis-server") is None:
        sys.exit(
            "There is no redis-server on PATH; install it, or name a broker: BROKER=redis://… or amqp://…"
        )
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    os.environ["BROKER"] = f"redis://127.0.0.1:{port}/0"
    process = start("redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "")
    while process.poll() is None and not answers(port):
        time.sleep(0.1)
    return process


def answers(port: int) -> bool:
    """Does anybody take connections there?"""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def main() -> int:
    """Start all, wait for Ctrl-C, end all."""
    asked: queue.SimpleQueue[int] = queue.SimpleQueue()
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, lambda number, _: asked.put(number))
    celery = (sys.executable, "-m", "celery", "-A", "shop")
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("TASKSCOPE_HOME", folder)  # the history is gone with the example
        processes = [] if "BROKER" in os.environ else [start_redis()]
        processes += [
            start(*celery, "worker", "--concurrency", "2", "--loglevel", "warning"),
            start(*celery, "beat", "--schedule", f"{folder}/schedule"),
            start(sys.executable, "-c", PUBLISHER),
        ]
        asked.get()
        for process in reversed(processes):  # what they need ends after them
            process.terminate()
            process.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
