"""All metrics: written by the pipeline, read by scrapes, neither waiting long for the other."""

import platform
import time
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from operator import itemgetter
from threading import Lock

from taskscope.counts import OTHER, Bounds, Counts, Exemplar
from taskscope.errors import BadArgument
from taskscope.events import JobKey
from taskscope.live import Live
from taskscope.settings import Settings
from taskscope.sinks.metrics.catalog import CATALOG, Metric, metric
from taskscope.sinks.metrics.collector import SeriesCollector
from taskscope.sinks.metrics.deflate import Deflater
from taskscope.sinks.metrics.form import Labels
from taskscope.sinks.metrics.guard import Guard
from taskscope.sinks.metrics.jobs import CORE, JobSeries, view
from taskscope.sinks.metrics.process import Process, cpu_limit, memory_limit
from taskscope.sinks.metrics.readings import ReadingSeries, Snapshot, current
from taskscope.sinks.metrics.render import (
    END,
    OPENMETRICS,
    TEXT,
    Rendered,
    only,
    packed,
    parts,
    wants_openmetrics,
    without_unit,
)
from taskscope.sinks.metrics.series import Family


class Metrics:
    """Every metric of the catalog, and the page that shows them; may be called from any thread."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._families = {entry.name: Family(entry, _bounds(entry, settings.buckets)) for entry in CATALOG}
        self._lock = Lock()
        self._sync_lock = Lock()
        self._guard = Guard(settings.series_budget, settings.job_budget, CORE)
        self._jobs = JobSeries(self._families, self._guard, settings)
        self._readings = ReadingSeries(self._families)
        self._process = Process()
        self._process.refresh(clock())
        self._totals: dict[JobKey, Counts] = {}
        self._exemplars: dict[tuple[JobKey, str, int], Exemplar] = {}
        self._published = False
        self._seen = (-1, -1)
        self._deflaters = {False: Deflater(), True: Deflater()}
        self._bear()

    def adopt(self, settings: Settings) -> None:
        """Describe jobs as these settings do, from when they are shown again. Buckets and budgets stay."""
        with self._lock:
            self._jobs.adopt(settings)

    def label(self, key: JobKey) -> JobKey:
        """The name under which a job is counted: its own, or `_other` when the budget is used up."""
        if self._guard.admit(key):
            return key
        with self._lock:
            if self._jobs.admit(key):
                return key
        self.add("series_limited_total", 1, "runs_total")
        return (key[0], OTHER)

    def restore(self, totals: Mapping[JobKey, Counts]) -> None:
        """Take up what was committed before this process; until then no counter of a job is exported."""
        self.publish(totals, {})

    def publish(
        self, totals: Mapping[JobKey, Counts], exemplars: Mapping[tuple[JobKey, str, int], Exemplar]
    ) -> None:
        """Export these committed counts, which are absolute; no exported number falls.

        An exemplar is given by job, name of the histogram, and index of the bucket.
        """
        with self._lock:
            self._published = True
            self._totals.update(totals)
            self._exemplars.update(exemplars)

    def sync(self, live: Live, now: float) -> None:
        """Export what is true now: the jobs that changed, and the readings that are fresh."""
        with self._sync_lock:
            with live.lock:
                changed = live.changed()
                views = {key: view(job) for key, job in changed.items() if job}
                gone = self._gone(live)
                definitions = {key: current(live.jobs.get(key)) for key in changed.keys() | gone}
                readings = Snapshot(live, now - self._settings.reading_ttl)
            with self._lock:
                self._jobs.follow(live)
                for key in gone:  # first: they make room
                    self._jobs.leave(key)
            self._settle()
            for key, seen in sorted(views.items(), key=itemgetter(0)):
                with self._lock:
                    self._jobs.show(key, seen)
            with self._lock:
                for key, definition in definitions.items():
                    self._readings.define(key, definition)
                for scheduler in readings.known():
                    self._jobs.known(scheduler)
                self._readings.show(readings)
            self.set("series", sum(len(family) for family in self._families.values() if family.metric.job))
            self._process.refresh(now)

    def _gone(self, live: Live) -> set[JobKey]:
        """The jobs that left; looked for only when some did, or others were given series."""
        seen = (live.departures, self._guard.admissions)
        if seen == self._seen:
            return set()
        self._seen = seen
        return (self._guard.jobs() | self._readings.jobs()) - live.jobs.keys()

    def _settle(self) -> None:
        """Write what was published into the series: once a page, not once a transaction, of which there are many."""
        with self._lock:
            totals, self._totals = self._totals, {}
            exemplars, self._exemplars = self._exemplars, {}
            published, self._published = self._published, False
        for key in sorted(totals, key=self._jobs.rank):
            with self._lock:
                self._jobs.count(key, totals[key])
        with self._lock:
            if published:
                self._jobs.begin()
            for (key, histogram, bucket), exemplar in exemplars.items():
                self._jobs.point(key, histogram, bucket, exemplar)

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set a metric about taskscope itself; a counter never falls.

        Raises `BadArgument` for a name or a number of labels that is not in the catalog.
        """
        family = self._own(name, labels)
        with self._lock:
            (family.raise_to if family.metric.kind == "counter" else family.put)(labels, value)

    def add(self, name: str, amount: float, *labels: str) -> None:
        """Add to a metric about taskscope itself. Raises `BadArgument` as `set` does."""
        family = self._own(name, labels)
        with self._lock:
            old = family.get(labels)
            family.put(labels, old[0] + amount if old else amount)

    def observe(self, name: str, value: float, *labels: str) -> None:
        """Observe a value in a histogram about taskscope itself. Raises `BadArgument` as `set` does."""
        family = self._own(name, labels, histogram=True)
        first = bisect_left(family.bounds, value)
        with self._lock:
            *buckets, count, total = family.get(labels) or [0.0] * family.width
            buckets[first:] = [bucket + 1 for bucket in buckets[first:]]
            family.put(labels, *buckets, count + 1, total + value)

    def render(self, accept: str = "", names: Collection[str] = (), compress: bool = False) -> Rendered:
        """The page in the format that `accept` prefers; with `names` only the samples of these names.

        What names leave is what `restricted_registry` of the standard client leaves.
        """
        self._settle()
        openmetrics = wants_openmetrics(accept)
        page = self._named(openmetrics, frozenset(names)) if names else self._all(openmetrics)
        content_type = OPENMETRICS if openmetrics else TEXT
        blocks = packed(page)
        if not compress:
            return Rendered(content_type, "", blocks)
        deflater = Deflater() if names else self._deflaters[openmetrics]
        return Rendered(content_type, "gzip", packed(deflater.page(blocks)))

    def collector(self) -> SeriesCollector:
        """All `taskscope_` families, for a registry of prometheus_client."""
        return SeriesCollector(self._families, self._lock, self._settle)

    def _all(self, openmetrics: bool) -> Iterator[bytes]:
        for family in self._families.values():
            yield from parts(family, self._lock, openmetrics)
        yield self._process.part(openmetrics)
        if openmetrics:
            yield END

    def _named(self, openmetrics: bool, names: frozenset[str]) -> Iterator[bytes]:
        for family in self._families.values():
            samples = {family.metric.sample + suffix for suffix, _ in family.form.endings}
            if names & samples:
                lines = without_unit(parts(family, self._lock, openmetrics))
                yield from lines if names >= samples else only(lines, names)
        yield self._process.only(openmetrics, names)
        if openmetrics:
            yield END

    def _own(self, name: str, labels: Labels, histogram: bool = False) -> Family:
        entry = metric(name)
        if entry.job or entry.split or (entry.kind == "histogram") is not histogram:
            raise BadArgument(f"{name!r} is a {entry.kind} that cannot be changed this way")
        if len(labels) != len(entry.labels):
            wanted = ", ".join(entry.labels) or "no labels"
            raise BadArgument(f"{name!r} wants {wanted}, and {len(labels)} labels were given")
        return self._families[name]

    def _bear(self) -> None:
        """What is exported from the start."""
        for family in self._families.values():
            for labels in family.metric.born:
                family.put(labels, *(0.0 for _ in family.form.endings))
        self.set("build_info", 1, _version(), platform.python_version())
        self.set("series_budget", self._settings.series_budget)
        limits = {"process_memory_limit_bytes": memory_limit(), "process_cpu_limit_cores": cpu_limit()}
        for name, limit in limits.items():
            if limit is not None:
                self.set(name, limit)


def _bounds(entry: Metric, buckets: Bounds) -> tuple[float, ...]:
    found = getattr(buckets, entry.bounds) if isinstance(entry.bounds, str) else entry.bounds
    return tuple(found)


def _version() -> str:
    try:
        return version("taskscope")
    except PackageNotFoundError:
        return "unknown"
