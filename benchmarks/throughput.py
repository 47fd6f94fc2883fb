"""How many runs a second go into SQLite, while Prometheus scrapes, somebody reads the API and retention works.

A scripted scheduler tells whole runs as fast as the pipeline takes them; nothing may be dropped.
"""

import resource
import tempfile
import threading
import time
from pathlib import Path
from urllib.request import urlopen

from benchmarks.show import finish

from taskscope import Exporter
from taskscope.settings import Retention
from taskscope.testing import FakeScheduler

SECONDS = 15.0
JOBS = 50
ROOM = 50_000  # events that may wait before the script pauses


def measure(seconds: float = SECONDS, history: str | None = None) -> dict[str, float]:
    """Runs a second, CPU µs a run, and what the readers saw meanwhile."""
    scheduler = FakeScheduler()
    with tempfile.TemporaryDirectory() as folder:
        exporter = Exporter(
            scheduler,
            history=history or f"sqlite:///{Path(folder)}/runs.db",
            port=0,
            retention=Retention(max_runs=20_000, interval=1.0),
            dedup_window=2.0,  # retention spares younger runs; by default those of the last hour
        )
        with exporter:
            reading = Readers(exporter.url or "")
            runs, took, cpu = feed(exporter, scheduler, seconds)
            reading.stop()
            dropped = sum(exporter.pipeline.dropped.values())
            counted = scraped(exporter.url or "", "runs_total{")
            deleted = scraped(exporter.url or "", "retention_deleted_total ")
    return {
        "runs_per_second": runs / took,
        "cpu_us_per_run": cpu / runs * 1e6,
        "runs": runs,
        "counted": counted,
        "deleted_by_retention": deleted,
        "dropped": dropped,
        **reading.times(),
    }


def feed(exporter: Exporter, scheduler: FakeScheduler, seconds: float) -> tuple[int, float, float]:
    """Tell runs until the time is over, then wait until all are durable: runs, seconds, CPU seconds."""
    runs, begin, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - begin < seconds:
        scheduler.burst(500, jobs=JOBS, fails_every=50)
        runs += 500
        while exporter.pipeline.backlog > ROOM:
            time.sleep(0.002)
    while exporter.pipeline.backlog:
        time.sleep(0.002)
    return runs, time.perf_counter() - begin, time.process_time() - cpu


def scraped(url: str, name: str) -> float:
    """The sum of all samples of this name on a page."""
    with urlopen(f"{url}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"taskscope_{name}"))


class Readers:
    """A scrape a second and a page of the newest runs four times a second, in threads of their own."""

    def __init__(self, url: str) -> None:
        self._stop = threading.Event()
        self._seen: dict[str, list[float]] = {"scrape": [], "newest_50": []}
        self._threads = [
            threading.Thread(target=self._read, args=("scrape", f"{url}/metrics", 1.0)),
            threading.Thread(target=self._read, args=("newest_50", f"{url}/api/task/?limit=50", 0.25)),
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Read no more."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def times(self) -> dict[str, float]:
        """The median time of each request in ms."""
        return {
            f"{what}_ms": sorted(times)[len(times) // 2] * 1e3 for what, times in self._seen.items() if times
        }

    def _read(self, what: str, url: str, every: float) -> None:
        while not self._stop.wait(every):
            begin = time.perf_counter()
            with urlopen(url, timeout=30) as answer:
                answer.read()
            self._seen[what].append(time.perf_counter() - begin)


def main() -> dict[str, float]:
    """The figures, with the peak memory of this process in MiB."""
    return measure() | {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


if __name__ == "__main__":
    finish("throughput", main)
