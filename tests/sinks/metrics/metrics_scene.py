"""Metrics with something in them, and ways to read a page."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families
from prometheus_client.samples import Sample

from taskscope.counts import Counts, Histogram, JobState
from taskscope.events import JobKey
from taskscope.live import Live
from taskscope.settings import Settings
from taskscope.sinks.metrics import Metrics

NOW = 1_763_750_000.123
OPENMETRICS = "application/openmetrics-text"


class Scene:
    """Metrics beside what is live."""

    def __init__(self, **settings: object) -> None:
        self.settings = Settings(**settings)  # type: ignore[arg-type]
        self.metrics = Metrics(self.settings)
        self.live = Live(self.settings.job_ttl, self.settings.reading_ttl)

    def know(self, *jobs: str, scheduler: str = "main") -> None:
        """These jobs were seen before."""
        self.live.restore({(scheduler, job): JobState(first_seen=NOW) for job in jobs})
        self.sync()

    def lose(self, *jobs: str) -> None:
        """These left."""
        for job in jobs:
            self.live.jobs["main", job].state.removed = 1.0
            self.live.jobs["main", job].running.clear()
        self.live.expire(NOW)

    def sync(self, now: float = NOW) -> None:
        """Take over what is live."""
        self.metrics.sync(self.live, now)

    def publish(self, *jobs: str, counts: Counts | None = None, scheduler: str = "main") -> None:
        """These were committed."""
        self.metrics.publish({(scheduler, job): counts or counted() for job in jobs}, {})

    def page(self, accept: str = "", names: tuple[str, ...] = ()) -> str:
        """The page as text."""
        return b"".join(self.metrics.render(accept, names).blocks).decode()

    def ours(self, accept: str = "") -> bytes:
        """The page without the process metrics."""
        page = b"".join(self.metrics.render(accept).blocks)
        return page.replace(self.metrics._process.part(bool(accept)), b"")

    def samples(self, openmetrics: bool = False) -> dict[tuple[str, tuple[tuple[str, str], ...]], Sample]:
        """All samples of the page by name and labels, as the standard client's parser reads them."""
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample
            for sample in self._parsed(openmetrics)
        }

    def value(self, name: str, **labels: str) -> float | None:
        """One number of the page; None where there is none."""
        sample = self.samples().get((f"taskscope_{name}", tuple(sorted(labels.items()))))
        return sample.value if sample else None

    def names(self, **labels: str) -> set[str]:
        """The names of all samples with these labels."""
        return {name for name, found in self.samples() if labels.items() <= dict(found).items()}

    def registry(self) -> CollectorRegistry:
        """A registry of the standard client with our collector."""
        registry = CollectorRegistry()
        registry.register(self.metrics.collector())
        return registry

    def _parsed(self, openmetrics: bool) -> Iterator[Sample]:
        parse = openmetrics_families if openmetrics else text_families
        for family in parse(self.page(OPENMETRICS if openmetrics else "")):
            yield from family.samples


def counted(success: int = 5, failed: int = 1, duration: float = 1.5) -> Counts:
    """Counts with something of everything."""
    return Counts(
        statuses={"success": success, "failed": failed, "skipped": 2},
        reasons={"misfire": 2},
        exceptions={"ValueError": failed},
        triggers={"fired": success + failed, "completed": success + failed, "misfired": 2},
        histograms={
            "duration": Histogram(buckets=[0, 1, success + failed - 1, *[0] * 11], sum=duration),
            "delay": Histogram(buckets=[success + failed, *[0] * 8], sum=0.00005),
        },
    )


def job(name: str) -> JobKey:
    """The key of a job of the scheduler `main`."""
    return ("main", name)
