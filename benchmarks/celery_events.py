"""Celery's events through Redis into `taskscope serve` with its SQLite history, beside celery-exporter, which has none.

Events are replayed in Celery's own wire format, for so many pairs of task and worker: how many a second are taken in,
the CPU time of each, and the time of a scrape afterwards. `--peer` is a checkout of danihodovic/celery-exporter,
`--peer-python` the Python that has what it needs; without them ours is measured alone.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.request import urlopen
from uuid import UUID

from benchmarks.show import finish

from taskscope.bridges._celery_events import Decoder
from taskscope.bridges._celery_join import Join

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from services.process import answers, free_port, until
from services.redis import Redis

BATCH = 24  # events that a prefork worker puts into one message
TASKS, JOINED, SCRAPES = 120_000, 20_000, 3
CASES = {
    "100 pairs": (100, BATCH),
    "1 000 pairs": (1_000, BATCH),
    "10 000 pairs": (10_000, BATCH),
    "unbatched": (1_000, 1),
}


def main(peer: str = "", peer_python: str = sys.executable) -> dict[str, Any]:
    """Figures by case, and the ratios."""
    figures: dict[str, Any] = {
        "decode and join alone": {f"batches of {size}": joined(size) for size in (BATCH, 1)}
    }
    for case, (pairs, batch) in CASES.items():
        ours = run(serving, "taskscope_runs_total", 'status="success"', pairs, TASKS, batch)
        figures[case] = {"taskscope": ours}
        if peer:
            serve = partial(exporting, peer, peer_python)
            theirs = run(serve, "celery_task_succeeded_total", "", pairs, TASKS // 4, batch)
            ratio = {
                "events": ours["events_per_second"] / theirs["events_per_second"],
                "cpu": theirs["cpu_us_per_event"] / ours["cpu_us_per_event"],
                "scrape": theirs["scrape_ms"] / ours["scrape_ms"],
            }
            figures[case] |= {"celery-exporter": theirs, "ratio": ratio}
    return figures


def joined(batch: int) -> dict[str, float]:
    """Events a second from the wire to facts about runs, without broker and store: the best of some rounds."""
    messages, rounds = wire(events(1_000, JOINED), batch), []
    for _ in range(5):
        decoder, tasks = Decoder(), Join("bench", 100_000, lambda worker: "")
        begin = time.perf_counter()
        for number, message in enumerate(messages):
            for event in decoder.enveloped(message):
                tasks.take(event, begin)
            if number % 100 == 0:
                tasks.told(begin)
        tasks.told(begin)
        rounds.append(time.perf_counter() - begin)
    return {"events_per_second": 3 * JOINED / min(rounds), "us_per_event": min(rounds) / JOINED / 3 * 1e6}


def run(
    serve: Callable[[Redis, int], Any], metric: str, label: str, pairs: int, tasks: int, batch: int
) -> dict[str, float]:
    """One exporter in a process of its own, told of so many tasks as fast as Redis delivers."""
    messages = wire(events(pairs, tasks), batch)
    with private_redis() as redis, serve(redis, port := free_port()) as process:
        until(lambda: subscribers(redis), what="a subscription")
        time.sleep(1)  # what it does at start is not what is measured
        cpu, begin = cpu_seconds(process.pid), time.perf_counter()
        publish(redis, messages)
        published = time.perf_counter() - begin
        took = counted_all(process.pid, port, metric, label, tasks) - begin
        used = cpu_seconds(process.pid) - cpu
        scrapes = [scrape(port) for _ in range(SCRAPES)]
        counted = total(scrapes[-1][1], metric, label)
        return {
            "tasks": tasks,
            "counted": counted,
            "events_per_second": 3 * tasks / took,
            "published_per_second": 3 * tasks / published,
            "cpu_us_per_event": used / tasks / 3 * 1e6,
            "scrape_ms": statistics.median(seconds for seconds, _ in scrapes) * 1e3,
            "samples": sum(not line.startswith("#") for line in scrapes[-1][1].splitlines()),
            "resident_mib": resident(process.pid),
        }


def counted_all(pid: int, port: int, metric: str, label: str, tasks: int) -> float:
    """When the process last worked hard before all tasks were counted, on the clock of `perf_counter`.

    Ours counts what is durable. It is asked only when it rests: a scrape of the peer takes seconds.
    """
    for _ in range(60):
        last, seen = time.perf_counter(), cpu_seconds(pid)
        while time.perf_counter() - last < 0.5:
            time.sleep(0.05)
            used = cpu_seconds(pid)
            if used - seen >= 0.02:  # timers and heartbeats use less
                last = time.perf_counter()
            seen = used
        if total(scrape(port)[1], metric, label) >= tasks:
            return last
    raise RuntimeError(f"not all of {tasks} tasks were counted")


@contextmanager
def serving(redis: Redis, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """Ours, as anybody would run it, with a budget of series for so many tasks."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "history": f"sqlite:///{folder}/runs.db",
            "port": port,
            "job_budget": 20_000,
            "series_budget": 1_000_000,
            "schedulers": {"bench": {"system": "celery", "target": f"redis://127.0.0.1:{redis.port}/0"}},
        }
        file = Path(folder) / "taskscope.yaml"
        file.write_text(json.dumps(settings))
        command = [sys.executable, "-m", "taskscope", "serve", "--config", str(file)]
        with process(command, Path(folder)) as ours:
            until(lambda: answers(f"http://127.0.0.1:{port}/-/healthy"), what="an answer of taskscope")
            yield ours


@contextmanager
def exporting(peer: str, python: str, redis: Redis, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """celery-exporter."""
    broker = f"--broker-url=redis://127.0.0.1:{redis.port}/0"
    command = [python, "cli.py", broker, "--host=127.0.0.1", f"--port={port}", "--log-level=ERROR"]
    with process(command, Path(peer)) as theirs:
        yield theirs


@contextmanager
def process(command: list[str], folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that is ended in the end."""
    quiet = subprocess.DEVNULL
    started = subprocess.Popen(command, cwd=folder, stdout=quiet, stderr=quiet, env=environment(command))
    try:
        yield started
    finally:
        started.send_signal(signal.SIGTERM)
        try:
            started.wait(15)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def environment(command: list[str]) -> dict[str, str]:
    """The peer has an environment of its own."""
    own = command[0] == sys.executable
    return {name: value for name, value in os.environ.items() if own or name != "PYTHONPATH"}


@contextmanager
def private_redis() -> Iterator[Redis]:
    """A Redis that does not end a subscription because it lags behind."""
    server = Redis()
    try:
        server.start()
        server.ask("CONFIG SET client-output-buffer-limit 'pubsub 0 0 0'")
        yield server
    finally:
        server.remove()


def events(pairs: int, tasks: int) -> Iterator[dict[str, Any]]:
    """Received, started and succeeded, for tasks spread over so many pairs of name and worker."""
    workers, now = max(1, int((pairs / 2) ** 0.5)), time.time()
    for number in range(tasks):
        pair, uuid = number % pairs, str(UUID(int=number * 0x9E3779B97F4A7C15 + 7))
        sender = {"hostname": f"celery@worker-{pair % workers}", "utcoffset": 0, "pid": 4242}
        common = {**sender, "clock": number, "uuid": uuid, "timestamp": now}
        name = f"app.tasks.task_{pair // workers}"
        message = {
            "args": "()",
            "kwargs": "{}",
            "root_id": uuid,
            "parent_id": None,
            "eta": None,
            "expires": None,
        }
        yield {**common, "type": "task-received", "name": name, "retries": 0, **message}
        yield {**common, "type": "task-started"}
        yield {**common, "type": "task-succeeded", "result": "None", "runtime": 0.0123}


def wire(told: Iterator[dict[str, Any]], batch: int) -> list[bytes]:
    """The messages that workers would publish."""
    together = iter(lambda: list(islice(told, batch)), [])
    return [enveloped(some[0] if batch == 1 else some) for some in together]


def enveloped(body: Any) -> bytes:
    """kombu's envelope around a body."""
    route = {"exchange": "celeryev", "routing_key": "task.multi"}
    return json.dumps(
        {
            "body": b64encode(json.dumps(body).encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"hostname": "celery@worker-0"},
            "properties": {
                "delivery_mode": 1,
                "delivery_info": route,
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": "0f5a6c1e-7d5b-4b55-8a43-0c8f6c9f3f3e",
            },
        }
    ).encode()


def publish(redis: Redis, messages: list[bytes]) -> None:
    """All of them, in one pipeline after the other."""
    with client(redis) as connection:
        for start in range(0, len(messages), 500):
            pipe = connection.pipeline(transaction=False)
            for message in messages[start : start + 500]:
                pipe.publish("/0.celeryev/task.multi", message)
            pipe.execute()


def subscribers(redis: Redis) -> bool:
    """Does anybody listen?"""
    with client(redis) as connection:
        return bool(connection.pubsub_numpat() or connection.pubsub_channels("*celeryev*"))


def client(redis: Redis) -> Any:
    """A client of the server."""
    from redis import Redis as Client

    return Client(port=redis.port)


def scrape(port: int) -> tuple[float, str]:
    """Seconds and page."""
    begin = time.perf_counter()
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=300) as answer:
        page = answer.read().decode()
    return time.perf_counter() - begin, page


def total(page: str, metric: str, label: str) -> float:
    """The sum of a counter."""
    lines = (line for line in page.splitlines() if line.startswith(f"{metric}{{") and label in line)
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    """Its resident memory in MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    finish("celery_events", main, peer="a checkout of celery-exporter", peer_python="the Python that runs it")
