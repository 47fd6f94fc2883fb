"""The same series for a program that has a registry of the standard client."""

from collections.abc import Callable, Iterable, Mapping
from threading import Lock

from prometheus_client import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from taskscope.sinks.metrics.series import Family, Pointer


class SeriesCollector(Collector):
    """Register it with any registry. Process metrics are left to the registry's own collectors."""

    def __init__(self, families: Mapping[str, Family], lock: Lock, settle: Callable[[], None]) -> None:
        """`settle` brings the families up to what has been published."""
        self._families, self._lock, self._settle = families, lock, settle

    def describe(self) -> Iterable[Metric]:
        """All families, without samples."""
        return map(_metric, self._families.values())

    def collect(self) -> Iterable[Metric]:
        """The families that have samples, in the order of the page."""
        self._settle()
        for family in self._families.values():
            metric = _metric(family)
            with self._lock:
                samples = list(family.samples())
            for name, labels, value, pointer in samples:
                metric.add_sample(name, labels, value, exemplar=_exemplar(pointer))
            if samples:
                yield metric


def _metric(family: Family) -> Metric:
    metric = family.metric
    return Metric(metric.family, metric.help, metric.kind, metric.unit)


def _exemplar(pointer: Pointer | None) -> Exemplar | None:
    return Exemplar(pointer.labels(), pointer.exemplar.value, pointer.exemplar.at) if pointer else None
