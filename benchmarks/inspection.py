"""How long an inspection of a million runs takes, and what it costs whoever writes meanwhile.

    python -m benchmarks.inspection [--json FILE]

30 days of 50 jobs, 3 % failures in five errors a job, every other run about one of a hundred shops; every look, the
longest look-back. Writers store batches of 100 runs, alone at first and then while inspections go on one after the
other: the longest transaction of both is told.
"""

import tempfile
import threading
import time
from random import Random
from typing import Any

from benchmarks import show
from benchmarks.queries import DAYS, fill, row, server

from taskscope.inspection.inspector import Inspector
from taskscope.settings import Inspection, Settings
from taskscope.sinks.history.queries import Queries
from taskscope.sinks.history.sql import SqlStore

RUNS, ROUNDS, BATCH = 1_000_000, 5, 100
SETTINGS = Settings(inspections={"all": Inspection(rise=1.01, slower=1.01)})


def measure() -> dict[str, Any]:
    """Seconds of an inspection, and ms of a transaction with and without one."""
    results: dict[str, Any] = {"runs": RUNS, "days": DAYS}
    with tempfile.TemporaryDirectory() as folder:
        results["sqlite"] = inspect(f"sqlite:///{folder}/runs.db")
    with server(None) as url:
        if url:
            results["postgresql"] = inspect(url)
    return results


def inspect(url: str) -> dict[str, Any]:
    """One store."""
    now = fill(url, RUNS)
    queries = Queries(url, SETTINGS)
    inspector = Inspector(SETTINGS, queries)
    try:
        times = []
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            found = inspector.look("all", now)
            times.append(time.perf_counter() - begin)
        window = max(times) * ROUNDS
        alone = writing(url, now, window)
        stop = threading.Event()
        inspecting = threading.Thread(target=again_and_again, args=(inspector, now, stop))
        inspecting.start()
        meanwhile = writing(url, now + 1, window)
        stop.set()
        inspecting.join()
    finally:
        queries.close()
    return {
        "findings": len(found),
        "inspection, s": sorted(times)[len(times) // 2],
        "longest inspection, s": max(times),
        "transaction alone, ms": alone,
        "transaction meanwhile, ms": meanwhile,
    }


def again_and_again(inspector: Inspector, now: int, stop: threading.Event) -> None:
    """Inspect until it is enough."""
    while not stop.is_set():
        inspector.look("all", now)


def writing(url: str, now: int, seconds: float) -> dict[str, float]:
    """Store batches for so long: median and longest ms of one."""
    chance, times, number = Random(now), list[float](), RUNS + now % 2 * 10_000_000
    store = SqlStore(url, SETTINGS)
    store.open()
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        rows = [row(chance, number + n, now + n) for n in range(BATCH)]
        number += BATCH
        begin = time.perf_counter()
        store.apply(sorted(rows, key=lambda one: one.id))
        times.append((time.perf_counter() - begin) * 1000)
    store.close()
    times.sort()
    return {"median": times[len(times) // 2], "longest": times[-1], "batches": float(len(times))}


if __name__ == "__main__":
    show.finish("inspection", measure)
