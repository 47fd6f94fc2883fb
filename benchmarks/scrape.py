"""A scrape over HTTP: our server beside prometheus_client's own, about as many samples, each in a process of its own.

Meanwhile ours goes on recording: ten times a second one job in a hundred has a run.
"""

import statistics
import subprocess
import sys
import time
from typing import Any
from urllib.request import Request, urlopen

from benchmarks.show import finish

SAMPLES, ROUNDS = (10_000, 100_000), 7


def main() -> dict[str, Any]:
    """Milliseconds of a scrape, plain and gzipped, and the ratios."""
    return {f"{samples} samples": compare(samples) for samples in SAMPLES}


def compare(samples: int) -> dict[str, Any]:
    """Both servers, one after the other."""
    ours, peer = times("ours", samples), times("peer", samples)
    ratios = {f"{name}_ratio": peer[name] / ours[name] for name in peer if name.endswith("_ms")}
    return {"taskscope": ours, "prometheus_client": peer, **ratios}


def times(who: str, samples: int) -> dict[str, float]:
    """Median ms of a scrape."""
    command = [sys.executable, "-m", "benchmarks.scrape", who, str(samples)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        url = server.stdout.readline().strip()
        try:
            lines = get(url, "identity").count(b"\n")
            return {"lines": lines, "plain_ms": median(url, "identity"), "gzip_ms": median(url, "gzip")}
        finally:
            server.kill()


def median(url: str, encoding: str) -> float:
    """Of some scrapes, after one that warms up."""
    seen = []
    for _ in range(ROUNDS + 1):
        begin = time.perf_counter()
        get(url, encoding)
        seen.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(seen[1:])


def get(url: str, encoding: str) -> bytes:
    """The page as it comes over the wire."""
    with urlopen(Request(url, headers={"Accept-Encoding": encoding}), timeout=120) as answer:
        return bytes(answer.read())


def serve_ours(samples: int) -> None:
    """An exporter with so many jobs that its page has about so many samples."""
    from taskscope import Exporter
    from taskscope.testing import FakeScheduler

    scheduler = FakeScheduler()
    jobs = samples // 63
    settings: dict[str, Any] = {
        "job_budget": jobs + 10,
        "series_budget": samples * 2,
        "queue_size": 1_000_000,
    }
    with Exporter(scheduler, history=None, port=0, **settings) as exporter:
        for number in range(jobs):
            scheduler.job(f"app.tasks.module_{number % 50}.task_{number}").run()
        while exporter.pipeline.backlog:
            time.sleep(0.05)
        print(f"{exporter.url}/metrics", flush=True)
        for number in range(6000):
            for job in list(scheduler.jobs.values())[number % 100 :: 100]:
                job.run()
            time.sleep(0.1)


def serve_peer(samples: int) -> None:
    """A registry with so many samples on prometheus_client's own server."""
    from prometheus_client import CollectorRegistry, Histogram, start_http_server

    registry = CollectorRegistry()
    seen = Histogram("run_duration_seconds", "Duration.", ["job_name", "scheduler"], registry=registry)
    for number in range(samples // 18):
        seen.labels(f"app.tasks.module_{number % 50}.task_{number}", "fake").observe(0.1)
    server, _ = start_http_server(0, "127.0.0.1", registry)
    print(f"http://127.0.0.1:{server.server_port}/metrics", flush=True)
    time.sleep(600)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["ours", samples]:
            serve_ours(int(samples))
        case ["peer", samples]:
            serve_peer(int(samples))
        case _:
            finish("scrape", main)
