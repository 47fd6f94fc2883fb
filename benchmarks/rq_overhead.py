"""What it costs a job of RQ that its worker is watched from inside: no-op jobs, watched and not, in turn.

A worker that forks for each job, and one that does not; each round is a burst, the medians count.
"""

import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import redis
from benchmarks.rq_refresh import server
from benchmarks.show import finish
from rq import Queue, SimpleWorker, Worker

from taskscope import Exporter

ROUNDS, FIRST = 5, 20  # the first jobs of a burst do not count: they begin much that is done once
KINDS: dict[str, tuple[type[Any], int]] = {"in its process": (SimpleWorker, 300), "forks": (Worker, 60)}


def main() -> dict[str, Any]:
    """µs a job, by the clock and of CPU, not watched and watched, and what watching adds."""
    logging.disable(logging.CRITICAL)
    figures: dict[str, Any] = {}
    with server() as port:
        for kind, (worker, jobs) in KINDS.items():
            rounds: dict[str, list[tuple[float, float]]] = {"unobserved": [], "watched": []}
            for _ in range(ROUNDS):
                rounds["unobserved"].append(burst(port, worker, jobs, lambda worker: nullcontext()))
                rounds["watched"].append(burst(port, worker, jobs, watched))
            for number, clock in enumerate(("wall", "CPU")):
                medians = {
                    name: statistics.median(one[number] for one in took) for name, took in rounds.items()
                }
                figures[f"{kind}, {clock}"] = {**medians, "added": medians["watched"] - medians["unobserved"]}
    return {"µs a job": figures}


def watched(worker: Any) -> AbstractContextManager[Any]:
    """With everything, as a program has it, but on no port."""
    folder = tempfile.mkdtemp()
    return Exporter(worker, history=f"sqlite:///{folder}/runs.db", port=None)


def burst(
    port: int, kind: type[Any], jobs: int, watch: Callable[[Any], AbstractContextManager[Any]]
) -> tuple[float, float]:
    """µs that each of so many jobs takes, by the clock and of CPU, children and our own threads included."""
    connection = redis.Redis(port=port)
    connection.flushall()
    queue = Queue(connection=connection)
    for _ in range(jobs + FIRST):
        queue.enqueue("time.time")
    worker = kind([queue], connection=connection)
    with watch(worker):
        worker.work(burst=True, max_jobs=FIRST, logging_level="CRITICAL")
        begun, worked = time.perf_counter(), sum(os.times()[:4])
        worker.work(burst=True, logging_level="CRITICAL")
        took, used = time.perf_counter() - begun, sum(os.times()[:4]) - worked
    return took / jobs * 1e6, used / jobs * 1e6


if __name__ == "__main__":
    finish("rq_overhead", main)
