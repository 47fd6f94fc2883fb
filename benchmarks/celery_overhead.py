"""What watching costs a real Celery worker: no-op tasks on Redis, unobserved, with `-E`, with taskscope.

`-E` switches on the events that celery-exporter and Flower live on. Each kind runs in turn, several times, in a worker
of its own; medians and differences to the unobserved worker count: tasks a second, and CPU of all its processes,
which a busy machine disturbs less. Beside it: what a task pays in the thread that executes it.
"""

import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import timeit
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from benchmarks.show import finish
from celery import Celery, signals
from celery.app.trace import build_tracer

from taskscope import bridges

TASKS, WARM, ROUNDS = 4000, 1000, 3
KINDS: dict[str, tuple[list[str], dict[str, str]]] = {
    "unobserved": ([], {}),
    "events": (["-E"], {}),
    "taskscope": ([], {"WATCH": "history"}),
    "taskscope_forward": ([], {"WATCH": "forward"}),
}
UNSET = ("shadow", "eta", "expires", "group", "parent_id", "callbacks", "errbacks", "chain", "chord")
POOLS = {"solo": ["-P", "solo"], "prefork": ["-P", "prefork", "-c", "2"]}
APP = """
import os, struct, time
from celery import Celery
app = Celery("bench", broker=os.environ["BROKER"])
app.conf.update(task_ignore_result=True, worker_hijack_root_logger=False, broker_connection_retry_on_startup=True)
if os.environ.get("WATCH") == "history":
    import taskscope
    taskscope.watch(app, port=None, history=os.environ["HISTORY"])
if os.environ.get("WATCH") == "forward":
    import taskscope
    taskscope.watch(app, forward=os.environ["COLLECTOR"])
times = os.open(os.environ["TIMES"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

@app.task(name="nothing")
def nothing():
    os.write(times, struct.pack("d", time.time()))
"""


def main() -> dict[str, Any]:
    """µs on the task's path; tasks a second by pool and kind, and what a task costs more than unobserved."""
    with tempfile.TemporaryDirectory() as folder, redis(Path(folder)) as broker, collector() as url:
        Path(folder, "bench.py").write_text(APP)
        figures: dict[str, Any] = {"path": path()}
        for pool in POOLS:
            rounds: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
            for number in range(ROUNDS):
                for kind in KINDS:
                    rounds[kind].append(measured(Path(folder), broker, url, pool, kind, number))
            figures[pool] = compared(rounds)
    return figures


def compared(rounds: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    """Medians by kind, and what a task costs more than unobserved."""
    rate = {kind: statistics.median(found for found, _ in pairs) for kind, pairs in rounds.items()}
    cpu = {kind: statistics.median(found for _, found in pairs) for kind, pairs in rounds.items()}
    return {
        kind: {
            "tasks_per_second": rate[kind],
            "cpu_us_per_task": cpu[kind],
            "costs_us": 1e6 / rate[kind] - 1e6 / rate["unobserved"],
            "costs_cpu_us": cpu[kind] - cpu["unobserved"],
        }
        for kind in rounds
    }


def measured(
    folder: Path, broker: str, collector: str, pool: str, kind: str, number: int
) -> tuple[float, float]:
    """Tasks a second, and µs of CPU a task, of a worker that finds TASKS tasks in its queue; without the first WARM."""
    app = Celery("customer", broker=broker, set_as_current=False)
    with app.pool.acquire(block=True) as connection, app.amqp.Producer(connection) as producer:
        for _ in range(TASKS):
            app.send_task("nothing", producer=producer)
    app.close()
    arguments, environment = KINDS[kind]
    times = folder / f"{pool}-{kind}-{number}"
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "bench", "worker", "-l", "error", *POOLS[pool], *arguments],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ
        | environment
        | {"BROKER": broker, "TIMES": str(times), "HISTORY": f"sqlite:///{times}.db", "COLLECTOR": collector},
    )
    try:
        warm, begun = executed(times, WARM, worker)
        total, ended = executed(times, TASKS, worker)
    finally:
        worker.terminate()
        worker.wait()
    ends = sorted(moment for (moment,) in struct.iter_unpack("d", times.read_bytes()))
    return (TASKS - WARM) / (ends[-1] - ends[WARM - 1]), (ended - begun) / (total - warm) * 1e6


def executed(times: Path, tasks: int, worker: subprocess.Popen[bytes]) -> tuple[int, float]:
    """Wait for so many tasks; how many there are then, and the seconds of CPU that the worker has used."""
    while not times.exists() or times.stat().st_size < tasks * 8:
        time.sleep(0.05)
        assert worker.poll() is None, "the worker ended"
    children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
    done = times.stat().st_size // 8
    return done, sum(map(cpu_seconds, [str(worker.pid), *children]))


def cpu_seconds(pid: str) -> float:
    """What a process has used, with all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def path() -> dict[str, float]:
    """µs of CPU of one task, and of one message, in the thread that executes or sends it; the events go nowhere.

    The lowest of many rounds is what the code costs, the median what it costs beside what else the machine does.
    """
    rounds = list(zip(*path_rounds(), strict=True))
    bare, dispatched, watched, bare_publish, stamped = map(min, rounds)
    return {
        "task_us": watched - bare,
        "of_which_celery_calls_receivers_us": dispatched - bare,
        "task_median_us": statistics.median(rounds[2]) - statistics.median(rounds[0]),
        "unobserved_us": bare,
        "message_us": stamped - bare_publish,
    }


def path_rounds() -> Iterator[tuple[float, float, float, float, float]]:
    """µs of a task: unobserved, with receivers that do nothing, watched; of a message: unobserved, stamped."""
    app = Celery("path", broker="memory://", set_as_current=False)
    app.conf.task_ignore_result = True
    app.task(nothing, name="nothing", shared=False)
    app.finalize()
    task = app.tasks["nothing"]  # as a worker has it, not the proxy that stands in the program
    trace = build_tracer("nothing", task, app=app)

    def run() -> None:
        task_id = str(uuid4())
        trace(task_id, (), {}, request_of(task_id))

    def publish() -> None:
        signals.before_task_publish.send(sender="nothing", headers={"id": "1", "retries": 0})

    for _ in range(101):
        bare, bare_publish = took(run), took(publish)
        signals.task_prerun.connect(nobody)
        signals.task_postrun.connect(nobody)
        dispatched = took(run)
        signals.task_prerun.disconnect(nobody)
        signals.task_postrun.disconnect(nobody)
        bridge = bridges.find(app)(app, "s")
        bridge.attach(deque[Any](maxlen=10).append)
        watched, stamped = took(run), took(publish)
        bridge.detach()
        yield bare, dispatched, watched, bare_publish, stamped


def request_of(task_id: str) -> dict[str, Any]:
    """What a worker knows of a task when it executes it."""
    return {
        "lang": "py",
        "task": "nothing",
        "id": task_id,
        "root_id": task_id,
        "correlation_id": task_id,
        "retries": 0,
        "timelimit": [None, None],
        "argsrepr": "()",
        "kwargsrepr": "{}",
        "origin": "gen1@here",
        "ignore_result": True,
        "replaced_task_nesting": 0,
        "stamps": {},
        "reply_to": "here",
        "hostname": "celery@here",
        "properties": {"correlation_id": task_id, "delivery_mode": 2},
        "delivery_info": {"exchange": "", "routing_key": "celery", "priority": 0, "redelivered": False},
        "taskscope_enqueued": 1_800_000_000.0,
        "args": [],
        "kwargs": {},
        **dict.fromkeys(UNSET),
    }


def nothing() -> None:
    """The task."""


def nobody(**_: Any) -> None:
    """A receiver that does nothing."""


def took(call: Callable[[], object]) -> float:
    """µs of CPU of one call."""
    return timeit.timeit(call, timer=time.thread_time, number=250) / 250 * 1e6


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """The URL of a Redis of our own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait()


@contextmanager
def collector() -> Iterator[str]:
    """The URL of a taskscope in a process of its own, which keeps a history."""
    code = (
        "import sys, time, tempfile, taskscope; "
        "e = taskscope.Exporter(port=0, history=f'sqlite:///{tempfile.mkdtemp()}/runs.db').start(); "
        "print(e.url, flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.communicate("")


if __name__ == "__main__":
    finish("celery_overhead", main)
