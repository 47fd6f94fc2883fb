"""One look at an RQ with 1 000 workers and 100 queues: wall time, CPU, round trips to Redis, beside rq-exporter.

The peer wants other versions of RQ and redis-py: `--peer-python` is a Python that has `rq-exporter 'rq<3' 'redis<6'`.
"""

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from benchmarks.show import finish

WORKERS, QUEUES, JOBS, LOOKS = 1000, 100, 10, 7

OURS = """
from taskscope.bridges import made
from taskscope.settings import Source
bridge = made(Source(system="rq", target=url), "rq")
bridge.attach(lambda event: None)
def look():
    return len(list(bridge.poll()))
"""
PEER = """
import redis
from rq_exporter.collector import RQCollector
collector = RQCollector(redis.Redis.from_url(url))
def look():
    return len(list(collector.collect()))
"""
MEASURE = """
import json, statistics, sys, time
import redis
from redis.connection import AbstractConnection
url, looks, sent, send = sys.argv[1], int(sys.argv[2]), [], AbstractConnection.send_packed_command
{}
look()
wall, cpu = [], []
for _ in range(looks):
    begun, worked = time.perf_counter(), time.process_time()
    look()
    wall.append(time.perf_counter() - begun)
    cpu.append(time.process_time() - worked)
def counted(self, *args, **kwargs):
    sent.append(1)
    return send(self, *args, **kwargs)
AbstractConnection.send_packed_command = counted
commands = lambda: redis.Redis.from_url(url).info("stats")["total_commands_processed"]
before = commands()
sent.clear()
look()
trips = len(sent)
figures = {{"wall ms": statistics.median(wall) * 1e3, "CPU ms": statistics.median(cpu) * 1e3}}
print(json.dumps({{**figures, "round trips": trips, "commands": commands() - before - 1}}))
"""


def main(peer_python: str = "") -> dict[str, Any]:
    """The figures of both, and how many times as much the peer takes."""
    with server() as port:
        fill(redis.Redis(port=port))
        kinds = {"taskscope": (sys.executable, OURS)}
        if peer_python:
            kinds["rq-exporter"] = (peer_python, PEER)
        figures = {kind: run(port, *how) for kind, how in kinds.items()}
    ratios = (
        {name: figures["rq-exporter"][name] / ours for name, ours in figures["taskscope"].items()}
        if peer_python
        else {}
    )
    return {"workers": WORKERS, "queues": QUEUES, **figures, **({"times as much": ratios} if ratios else {})}


def run(port: int, python: str, code: str) -> dict[str, float]:
    """Measure in a process of its own."""
    command = [python, "-c", MEASURE.format(code), f"redis://127.0.0.1:{port}/0", str(LOOKS)]
    return dict(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))


def fill(client: "redis.Redis") -> None:
    """Workers, queues and jobs as RQ writes them."""
    now, pipe = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime()), client.pipeline(transaction=False)
    for number in range(WORKERS):
        queue, key = f"q{number % QUEUES}", f"rq:worker:w{number}"
        told: Any = {
            "birth": now,
            "last_heartbeat": now,
            "queues": queue,
            "pid": number,
            "hostname": "h",
            "version": "2.12",
        }
        counts: Any = {"successful_job_count": 5, "failed_job_count": 1, "total_working_time": 2.5}
        pipe.hset(
            key, mapping={**told, **counts, "ip_address": "127.0.0.1", "python_version": "3", "state": "idle"}
        )
        pipe.sadd("rq:workers", key)
        pipe.sadd(f"rq:workers:{queue}", key)
    for number in range(QUEUES):
        pipe.sadd("rq:queues", f"rq:queue:q{number}")
        for job in range(JOBS):
            told = {
                "origin": f"q{number}",
                "description": "shop.ship(1)",
                "enqueued_at": now,
                "status": "queued",
            }
            pipe.hset(f"rq:job:{number}-{job}", mapping={**told, "created_at": now})
            pipe.rpush(f"rq:queue:q{number}", f"{number}-{job}")
            pipe.zadd(f"rq:finished:q{number}", {f"{number}-{job}": time.time() + 500})
    pipe.execute()


@contextmanager
def server() -> Iterator[int]:
    """A private Redis."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        "redis-server",
        "--bind",
        "127.0.0.1",
        "--port",
        str(port),
        "--save",
        "",
        "--dir",
        tempfile.gettempdir(),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while not _answers(port):
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    try:
        return bool(redis.Redis(port=port).ping())
    except redis.ConnectionError:
        return False


if __name__ == "__main__":
    finish("rq_refresh", main, peer_python="a Python with rq-exporter, 'rq<3' and 'redis<6'")
