"""The sinks: each hears of everything, and none suffers from another that fails."""

import logging
from collections.abc import Callable, Sequence
from functools import partial

from taskscope.contracts import Sink
from taskscope.events import Event
from taskscope.facts import Change

logger = logging.getLogger("taskscope")


class Audience(Sink):
    """Tells all of them; what one of them raises is logged once, and counted by its name."""

    def __init__(self, sinks: Sequence[Sink], count: Callable[[str], None]) -> None:
        self._sinks, self._count = list(sinks), count
        self._broken: set[str] = set()

    def arrived(self, events: Sequence[Event]) -> None:
        """Tell what was told."""
        for sink in self._sinks:
            self._call(sink, "arrived", partial(sink.arrived, events))

    def committed(self, changes: Sequence[Change]) -> None:
        """Tell what is durable."""
        for sink in self._sinks:
            self._call(sink, "committed", partial(sink.committed, changes))

    def close(self) -> None:
        """The last call."""
        for sink in self._sinks:
            self._call(sink, "close", sink.close)

    def _call(self, sink: Sink, what: str, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:  # isolation: a sink must not hurt the pipeline
            name = f"{type(sink).__name__}.{what}"
            self._count(type(sink).__name__)
            if name not in self._broken:
                self._broken.add(name)
                logger.exception("taskscope: %s failed (further failures are only counted)", name)
