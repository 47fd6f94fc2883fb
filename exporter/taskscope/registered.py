"""An exporter as a collector of `prometheus_client`, for a program that exposes a registry of its own."""

from collections.abc import Callable, Iterable

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from taskscope.sinks.metrics.collector import SeriesCollector


class Registered(Collector):
    """The same series as the page."""

    def __init__(self, refresh: Callable[[], bool], collector: SeriesCollector) -> None:
        """`refresh` brings the series up to now; False where nothing may be told."""
        self._refresh, self._collector = refresh, collector

    def describe(self) -> Iterable[Metric]:
        """The families without their samples: registering collects nothing."""
        return self._collector.describe()

    def collect(self) -> Iterable[Metric]:
        """What is true now."""
        return self._collector.collect() if self._refresh() else []
