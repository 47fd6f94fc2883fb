"""How many bytes a run takes in SQLite with its indexes, and how long the steps of retention keep a writer waiting."""

import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.show import finish

from taskscope.events import Fact, Status
from taskscope.facts import Row, merge, row_of
from taskscope.identity import run_id
from taskscope.settings import Retention, Settings
from taskscope.sinks.history.sql import SqlStore
from taskscope.sinks.metrics import Metrics
from taskscope.upkeep import Upkeep

RUNS, BATCH, JOBS = 200_000, 2_000, 50
REMOVED = 0.5  # of the runs


def measure(runs: int = RUNS) -> dict[str, float]:
    """Bytes a run, runs merged a second, CPU µs a run, and the longest step of retention in ms."""
    begin = time.time() - 40 * 86_400
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "runs.db"
        store = SqlStore(
            f"sqlite:///{file}", Settings(retention=Retention(max_runs=int(runs * REMOVED))), lambda: begin
        )
        store.open()
        took, cpu = _fill(store, begin, runs)
        store.close()  # moves the write-ahead log into the file
        size = file.stat().st_size
        store.open()
        steps = _prune(store)
        store.close()
    return {
        "bytes_per_run": size / runs,
        "runs_per_second": runs / took,
        "cpu_us_per_run": cpu / runs * 1e6,
        "retention_runs_per_second": runs * REMOVED / sum(steps),
        "longest_retention_step_ms": max(steps) * 1e3,
    }


def _fill(store: SqlStore, begin: float, runs: int) -> tuple[float, float]:
    """Seconds and CPU seconds that the store took for these runs."""
    took = cpu = 0.0
    for start in range(0, runs, BATCH):
        rows = sorted(_runs(range(start, start + BATCH), begin), key=lambda row: row.id)
        before, cpu_before = time.perf_counter(), time.process_time()
        store.apply(rows)
        took, cpu = took + time.perf_counter() - before, cpu + time.process_time() - cpu_before
    return took, cpu


def _runs(numbers: range, begin: float) -> Iterator[Row]:
    """Runs of jobs of very different popularity, 2 % of them failed; without error texts, which are stored apart."""
    for number in numbers:
        dice = random.Random(number)
        due = begin + number / 100
        started, duration = due + dice.expovariate(100), dice.expovariate(1)
        known: dict[str, Any] = {
            "scheduler": "billing",
            "native": f"{number:032x}",
            "job": f"app.tasks.module:task_{min(int(dice.expovariate(0.1)), JOBS - 1)}",
            "due": due,
            "anchor": due,
            "started": started,
            "queue": "default",
            "worker": "ThreadPoolExecutor",
            "instance": "host-1:4711:0190b2b4",
        }
        status: Status = "failed" if dice.random() < 0.02 else "success"
        start = Fact(status="started", at=started, **known)
        end = Fact(status=status, at=started + duration, duration=duration, **known)
        run = run_id("billing", known["native"], 0, int(due * 1000))
        yield merge(row_of(start, run), row_of(end, run))


def _prune(store: SqlStore) -> list[float]:
    """Seconds for which each step of one pass kept the pipeline's thread, on which events wait meanwhile."""
    upkeep, steps, more = Upkeep(store, Metrics(store.settings)), [], True
    while more:
        before = time.perf_counter()
        more = upkeep.step(time.time())
        steps.append(time.perf_counter() - before)
    return steps


if __name__ == "__main__":
    finish("history_size", measure)
