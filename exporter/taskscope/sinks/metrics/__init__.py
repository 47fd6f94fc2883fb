"""The numbers that Prometheus scrapes: declared once, rendered from memory."""

from taskscope.sinks.metrics.render import Rendered
from taskscope.sinks.metrics.sink import Metrics

__all__ = ["Metrics", "Rendered"]
