"""What a page of metrics costs: ours beside prometheus_client's, the same families with the same numbers in one run.

    python -m benchmarks.render [--json FILE] [samples ...]

Speed and memory are measured in processes of their own, one for each size. "full" means that every block of lines is
written anew; "1 % changed" that one job in a hundred had a run since the page before. Both pages must be equal, byte
for byte. What it costs to write the new numbers into the series is shown beside it, as `publish`.
"""

import argparse
import gc
import gzip
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from taskscope.counts import Bounds, Counts
from taskscope.counts import Histogram as Observed
from taskscope.events import Fact, Job, JobKey, Jobs, Trigger
from taskscope.live import Live
from taskscope.settings import Settings
from taskscope.sinks.metrics import Metrics
from taskscope.sinks.metrics.catalog import CATALOG, STATUSES, Metric
from taskscope.sinks.metrics.jobs import CORE

Work = Callable[[], object]
SIZES = (1_000, 10_000, 100_000, 1_000_000)
NOW = 1_763_750_000.123
OBSERVED = {"run_duration_seconds": "duration", "run_start_delay_seconds": "delay"}
FAMILIES = [metric for metric in CATALOG if metric.core or metric.name in OBSERVED]
LINES = CORE + sum(
    len(getattr(Bounds(), str(metric.bounds))) + 3 for metric in FAMILIES if metric.name in OBSERVED
)
"""Of each job: beside its core the buckets of its histograms, `+Inf`, count and sum."""
OPENMETRICS = "application/openmetrics-text"
REPEAT = {1_000: 15, 10_000: 9, 100_000: 3, 1_000_000: 1}


def main(sizes: tuple[int, ...] = SIZES) -> dict[str, Any]:
    """CPU milliseconds, MiB and ratios by number of samples."""
    figures = {}
    for size in sizes:
        speed, ours, peer = (child(part, size) for part in ("speed", "ours", "peer"))
        held = {"peer": peer["mib"], "ours": ours["mib"], "share": round(ours["mib"] / peer["mib"], 2)}
        figures[f"{size}"] = speed | {"memory_mib": held}
    return figures


def child(part: str, size: int) -> dict[str, Any]:
    """What this part of the benchmark measures in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--child", part, str(size)], check=True, stdout=subprocess.PIPE
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def samples_of(metric: Metric) -> tuple[str, ...]:
    """The names of its samples."""
    if metric.kind == "histogram":
        return tuple(f"{metric.sample}_{suffix}" for suffix in ("bucket", "count", "sum"))
    return (metric.sample,)


def speed(size: int) -> dict[str, Any]:
    """Both renderers side by side."""
    jobs, repeat = keys(size), REPEAT.get(size, 5)
    registry, ours = peer_registry(jobs), Ours(jobs)
    page, names = generate_latest(registry), [name for metric in FAMILIES for name in samples_of(metric)]
    assert joined(ours.metrics.render(names=names).blocks) == page, "the pages differ"
    openmetrics = generate_openmetrics(cast(CollectorRegistry, registry.restricted_registry(names)))
    named = joined(ours.metrics.render(OPENMETRICS, names).blocks)
    # the client gives restricted families in any order
    assert sorted(named.splitlines()) == sorted(openmetrics.splitlines()), "the OpenMetrics pages differ"
    render = ours.metrics.render
    text = beside(partial(generate_latest, registry), render, ours.all_changed, repeat)
    peer_ms, peer_gzip = text["peer_ms"], compressed(page, repeat)
    zipped, peer_zipped_ms = partial(render, compress=True), text["peer_ms"] + peer_gzip["ms"]
    return {
        "text": text,
        "text, 1 % changed": against(peer_ms, render, ours.one_percent, repeat),
        "text, nothing changed": against(peer_ms, render, lambda: None, repeat),
        "openmetrics": beside(
            partial(generate_openmetrics, registry), partial(render, OPENMETRICS), ours.all_changed, repeat
        ),
        "gzip": against(peer_zipped_ms, zipped, ours.all_changed, repeat),
        "gzip, 1 % changed": against(peer_zipped_ms, zipped, ours.one_percent, repeat),
        "publish": {"all_ms": took(ours.publish_all), "one_percent_ms": took(ours.one_percent)},
        "bytes": {
            "page": len(page),
            "gzip_peer": peer_gzip["bytes"],
            "gzip_ours": len(joined(zipped().blocks)),
        },
    }


def memory(part: str, size: int) -> dict[str, float]:
    """MiB that one side holds after a page has been rendered; the jobs themselves are there before."""
    jobs = keys(size)
    live = described(jobs)
    gc.collect()
    before = resident()
    if part == "ours":
        metrics = filled(jobs, live)
        metrics.render()
    else:
        registry = peer_registry(jobs)
        generate_latest(registry)
    gc.collect()
    return {"mib": round(resident() - before, 2)}


def described(jobs: list[JobKey]) -> Live:
    """These jobs, as their scheduler defines them."""
    live = Live()
    live.fold([Jobs(scheduler="main", at=NOW, jobs=tuple(map(definition, jobs)))])
    return live


def filled(jobs: list[JobKey], live: Live) -> Metrics:
    """Our metrics with these jobs in them."""
    metrics = Metrics(Settings(series_budget=10**9, job_budget=10**9))
    for number, job in enumerate(jobs):  # one by one, so that nothing is held but the series
        metrics.restore({job: counts(number, 0)})
    metrics.sync(live, NOW)
    return metrics


class Ours:
    """Our metrics with so many jobs in them."""

    def __init__(self, jobs: list[JobKey]) -> None:
        self.jobs, self.random, self.round = jobs, random.Random(2), 0
        self.live = described(jobs)
        self.metrics = filled(jobs, self.live)

    def all_changed(self) -> None:
        """Every line must be written anew, also of those whose number is the same."""
        self.publish_all()
        for family in self.metrics._families.values():
            for block in (block for group in family.groups for block in group.blocks):
                block.change()

    def publish_all(self) -> None:
        """Every job had a run; its numbers are in the series, as the peer's are after `inc`."""
        self.round += 1
        self.metrics.publish({job: counts(number, self.round) for number, job in enumerate(self.jobs)}, {})
        self.metrics.render(names=["none"])

    def one_percent(self) -> None:
        """One job in a hundred had a run."""
        self.round += 1
        chosen = self.random.sample(range(len(self.jobs)), max(1, len(self.jobs) // 100))
        at = NOW + self.round
        for number in chosen:
            scheduler, job = self.jobs[number]
            run: dict[str, Any] = {"scheduler": scheduler, "job": job, "native": f"{number}-{self.round}"}
            self.live.fold([Fact(status="success", at=at, started=at - 1.5, duration=1.5, **run)])
        self.metrics.publish({self.jobs[number]: counts(number, self.round) for number in chosen}, {})
        self.metrics.sync(self.live, NOW)


def keys(size: int) -> list[JobKey]:
    """So many jobs that they have about `size` samples."""
    return [("main", f"app.tasks.task_{n:06}.every_minute") for n in range(size // LINES)]


def definition(key: JobKey) -> Job:
    """How such a job is defined."""
    trigger = Trigger(key="trigger", state="WAITING", schedule="interval[0:01:00]", timezone="UTC")
    return Job(name=key[1], key=key[1], next_run=NOW + 60, interval=60.0, triggers=(trigger,))


def counts(number: int, more: int) -> Counts:
    """What was counted of job `number` after so many more rounds."""
    buckets = [(number * 31 + at * 7) % 20_000 + more for at in range(14)]
    delays = buckets[:9]
    return Counts(
        statuses={"success": sum(buckets), "failed": number % 1000 + more, "skipped": number % 7 + more},
        histograms={
            "duration": Observed(buckets=buckets, sum=sum(buckets) * 0.731),
            "delay": Observed(buckets=delays, sum=sum(delays) * 0.0173),
        },
    )


def peer_registry(jobs: list[JobKey]) -> CollectorRegistry:
    """The same families with the same numbers, as a program that uses prometheus_client holds them."""
    prometheus_client.disable_created_metrics()
    registry = CollectorRegistry()
    kinds = {"counter": Counter, "gauge": Gauge, "histogram": Histogram, "info": Info}
    for metric in FAMILIES:
        more = {"buckets": getattr(Bounds(), str(metric.bounds))} if metric.kind == "histogram" else {}
        labels = metric.every_label if metric.kind != "info" else metric.labels[:2]
        family = kinds[metric.kind](
            metric.family, metric.help, labels, unit=metric.unit, registry=registry, **more
        )
        for number, job in enumerate(jobs):
            fill(metric, family, job, counts(number, 0))
    return registry


def fill(metric: Metric, family: Any, job: JobKey, counted: Counts) -> None:
    """Give the children of a job their numbers."""
    if metric.name == "runs_total":
        for status in STATUSES:
            family.labels(*job, status).inc(counted.statuses.get(status, 0))
    elif metric.kind == "histogram":
        observed = counted.histograms["duration" if "duration" in metric.name else "delay"]
        child = family.labels(*job)
        child._sum.set(observed.sum)
        for bucket, count in zip(child._buckets, observed.buckets, strict=True):
            bucket.set(count)
    elif metric.kind == "info":
        schedule = {
            "schedule": "interval[0:01:00]",
            "timezone": "UTC",
            "queue": "",
            "team": "",
            "severity": "",
        }
        family.labels(*job).info(schedule)
    elif metric.kind == "counter":
        family.labels(*job)  # nothing of it was counted
    else:
        family.labels(*job).set(GAUGES.get(metric.name, 0))


GAUGES = {
    "job_next_run_timestamp_seconds": NOW + 60,
    "job_interval_seconds": 60.0,
    "job_first_seen_timestamp_seconds": NOW,
}


def beside(peer: Work, ours: Work, before: Work, repeat: int) -> dict[str, float]:
    """Medians of both, in turn, so that a busy machine is busy for both."""
    peers, own = [], []
    for _ in range(repeat):
        peers.append(took(peer))
        before()
        own.append(took(ours))
    return ratio(statistics.median(peers), statistics.median(own))


def against(peer_ms: float, ours: Work, before: Work, repeat: int) -> dict[str, float]:
    """Our median beside what the peer took in this run: it does the same whatever changed."""
    own = []
    for _ in range(repeat):
        before()
        own.append(took(ours))
    return ratio(peer_ms, statistics.median(own))


def ratio(peer_ms: float, ours_ms: float) -> dict[str, float]:
    """Both, and how many times faster ours is."""
    return {"peer_ms": round(peer_ms, 3), "ours_ms": round(ours_ms, 3), "ratio": round(peer_ms / ours_ms, 1)}


def took(work: Work) -> float:
    """CPU milliseconds: other programs on the machine disturb them least."""
    gc.collect()
    begin = time.process_time()
    work()
    return round((time.process_time() - begin) * 1e3, 3)


def compressed(page: bytes, repeat: int) -> dict[str, Any]:
    """What prometheus_client's server adds when gzip is asked for: level 9."""
    times = [took(lambda: gzip.compress(page)) for _ in range(repeat)]
    return {"ms": statistics.median(times), "bytes": len(gzip.compress(page))}


def joined(blocks: list[bytes]) -> bytes:
    """The whole page."""
    return b"".join(blocks)


def resident() -> float:
    """MiB of memory of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20


def table(figures: dict[str, Any]) -> None:
    """Print the figures for people."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(
        "samples", "what", "peer", "taskscope", "ratio", title="A page of metrics, beside prometheus_client"
    )
    for size, found in figures.items():
        for what, row in found.items():
            if "ratio" in row:
                both = (f"{row[side]:.2f} ms" for side in ("peer_ms", "ours_ms"))
                shown.add_row(size, what, *both, f"{row['ratio']:.0f}x")
        held, told = found["memory_mib"], found["publish"]
        shown.add_row(
            size, "memory held", f"{held['peer']:.1f} MiB", f"{held['ours']:.1f} MiB", f"{held['share']:.2f}"
        )
        shown.add_row(
            size, "publish all / 1 %", "", f"{told['all_ms']:.1f} / {told['one_percent_ms']:.2f} ms", ""
        )
    Console().print(shown)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        part, size = sys.argv[2], int(sys.argv[3])
        print(json.dumps(speed(size) if part == "speed" else memory(part, size)))
    else:
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("samples", nargs="*", type=int, default=SIZES)
        parser.add_argument("--json", type=Path, help="also write the figures to this file")
        arguments = parser.parse_args()
        result = main(tuple(arguments.samples))
        table(result)
        if arguments.json:
            arguments.json.write_text(json.dumps(result, indent=1) + "\n")
