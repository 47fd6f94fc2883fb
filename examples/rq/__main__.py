"""An RQ with everything, watched: `python examples/rq`, with redis-server on PATH or REDIS_URL. Ctrl-C ends it.

It starts a Redis if none is named, a worker, `rq cron` and `taskscope serve`,
and enqueues a job every half second. Look at http://127.0.0.1:9750/.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory

from redis import Redis
from redis.exceptions import ConnectionError as NotThere
from rq import Queue, Retry

HERE = Path(__file__).parent
RQ = (sys.executable, "-m", "rq.cli")


@contextmanager
def program(*command: str, **environment: str) -> Iterator[None]:
    """Runs until the block ends."""
    process = subprocess.Popen(command, cwd=HERE, env={**os.environ, "PYTHONPATH": _path(), **environment})
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _path() -> str:
    return os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def main() -> None:
    """Start everything, and give it something to do."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it ends this as Ctrl-C does
    with ExitStack() as programs, suppress(KeyboardInterrupt):
        url = os.environ.get("REDIS_URL")
        if not url and which("redis-server") is None:
            sys.exit("There is no redis-server on PATH; install it, or name a Redis: REDIS_URL=redis://…")
        if not url:
            port = _free_port()
            programs.enter_context(
                program("redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "")
            )
            url = f"redis://127.0.0.1:{port}/0"
        connection = Redis.from_url(url)
        while not _answers(connection):
            time.sleep(0.1)
        folder = programs.enter_context(TemporaryDirectory())
        os.environ.setdefault("TASKSCOPE_HOME", folder)  # the history is gone with the example
        collector = {"TASKSCOPE_SCHEDULERS__SHOP__TARGET": url}
        programs.enter_context(program(sys.executable, "-m", "taskscope", "serve", **collector))
        programs.enter_context(program(*RQ, "cron", "schedule.py", "--url", url))
        worker = (*RQ, "worker", "--with-scheduler", "--quiet", "--url", url)
        programs.enter_context(program(*worker, "mail", "cards", "reports"))
        enqueue(connection)


def _answers(connection: "Redis") -> bool:
    try:
        return bool(connection.ping())
    except NotThere:
        return False


def enqueue(connection: "Redis") -> None:
    """A receipt and a card for every order."""
    for order in count(1):
        Queue("mail", connection=connection).enqueue("shop.send_receipt", order)
        Queue("cards", connection=connection).enqueue(
            "shop.charge_card", order, retry=Retry(max=2, interval=5)
        )
        time.sleep(0.5)


if __name__ == "__main__":
    main()
