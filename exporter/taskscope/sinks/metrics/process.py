"""Process, garbage collection and platform metrics of the standard client, never renamed; control group limits."""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    Metric,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.openmetrics import exposition
from prometheus_client.registry import Collector

from taskscope.sinks.metrics.render import END

_FRESH = 1.0  # seconds between two looks at /proc


class Process(Collector):
    """What the standard collectors said when they were last asked: a page asks nobody."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)
        self._asked_at = -_FRESH
        self._families: list[Metric] = []
        self._pages: dict[bool, bytes] = {}

    def refresh(self, now: float) -> None:
        """Ask them again, at most once a second."""
        if not 0 <= now - self._asked_at < _FRESH:
            self._asked_at, self._families, self._pages = now, list(self._registry.collect()), {}

    def collect(self) -> Iterable[Metric]:
        """The latest answer."""
        return self._families

    def part(self, openmetrics: bool) -> bytes:
        """The latest answer as lines."""
        part = self._pages.get(openmetrics)
        if part is None:
            part = self._pages[openmetrics] = _lines(self, openmetrics)
        return part

    def only(self, openmetrics: bool, names: Collection[str]) -> bytes:
        """The samples of these names."""
        return _lines(_Only(self._families, names), openmetrics)


class _Only(Collector):
    def __init__(self, families: Iterable[Metric], names: Collection[str]) -> None:
        self._families, self._names = families, names

    def collect(self) -> Iterable[Metric]:
        for family in self._families:
            samples = [sample for sample in family.samples if sample.name in self._names]
            if samples:
                restricted = Metric(family.name, family.documentation, family.type)
                restricted.samples = samples
                yield restricted


def _lines(collector: Collector, openmetrics: bool) -> bytes:
    if not openmetrics:
        return generate_latest(collector)
    page: bytes = exposition.generate_latest(collector)
    return page.removesuffix(END)


def memory_limit(root: Path = Path("/sys/fs/cgroup"), told: Path = Path("/proc/self/cgroup")) -> float | None:
    """Bytes that the control group (version 2 or 1) allows; None where there is no limit."""
    limits = _numbers(root, told, "", "memory.max") + _numbers(root, told, "memory", "memory.limit_in_bytes")
    none = 2**60  # version 1 says about 2**63
    return min((limit[0] for limit in limits if limit[0] < none), default=None)


def cpu_limit(root: Path = Path("/sys/fs/cgroup"), told: Path = Path("/proc/self/cgroup")) -> float | None:
    """Cores that the control group (version 2 or 1) allows; None where there is no limit."""
    shares = [limit[0] / limit[1] for limit in _numbers(root, told, "", "cpu.max")]
    quotas = _numbers(root, told, "cpu", "cpu.cfs_quota_us")
    periods = _numbers(root, told, "cpu", "cpu.cfs_period_us")
    shares += [quota[0] / period[0] for quota, period in zip(quotas, periods, strict=False) if quota[0] > 0]
    return min(shares, default=None)


def _numbers(root: Path, told: Path, controller: str, file: str) -> list[list[float]]:
    """The numbers of this file for our control group and those above it; one that says `max` is left out."""
    found = []
    for directory in _directories(root, told, controller):
        try:
            found.append([float(word) for word in (directory / file).read_text().split()])
        except (OSError, ValueError):
            continue
    return found


def _directories(root: Path, told: Path, controller: str) -> Iterator[Path]:
    """Our control group's directory and those above it; all there is in a container is the top."""
    try:
        lines = [line.split(":", 2) for line in told.read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in lines:
        if controller in controllers.split(","):
            top = root / controllers if controllers else root
            here = top / path.lstrip("/")
            yield here
            yield from (above for above in here.parents if above.is_relative_to(top))
