"""Watches Celery from outside, at its broker's URL: its events, its queues, its workers. No app is imported."""

import time
from collections.abc import Callable, Iterator
from threading import Event as Flag
from typing import TYPE_CHECKING

from taskscope.bridges._celery_broker import check, connected, listening
from taskscope.bridges._celery_events import CeleryEvent
from taskscope.bridges._celery_join import SETTLE
from taskscope.bridges._celery_readings import Readings
from taskscope.bridges._celery_state import State
from taskscope.contracts import Emit
from taskscope.events import Reading

if TYPE_CHECKING:
    from taskscope.bridges.celery import CeleryBridge

_TOGETHER = 0.1  # seconds of events that are taken in at once: what begins and ends within them is one fact


class Stream:
    """One broker, watched."""

    def __init__(self, bridge: "CeleryBridge") -> None:
        options = self._options = bridge.options
        self._url, self._bridge = str(bridge.target), bridge
        self._state = State(bridge.name, options.worker_silence, options.worker_memory, options.tasks)
        self._readings = Readings(self._url, bridge.name, options, self._state)
        self._emit: Emit | None = None

    def attach(self, emit: Emit) -> None:
        """Nothing is asked of the broker yet. Raises `BadArgument` for a URL that can be none."""
        check(self._url, self._bridge.name)
        self._emit = emit

    def listen(self, stop: Flag, heard: Callable[[], None]) -> None:
        """Take in events until `stop` is set. Raises what the broker's library raises."""
        with connected(self._url, self._options.transport_options) as connection:
            source = listening(connection, self._options.event_exchange, self._state.decoder)
            self._state.resume()
            heard()
            pulse = source.pulse
            while not stop.is_set():
                self._carry(source.receive(_TOGETHER), time.time())
                if source.pulse != pulse:
                    pulse = source.pulse
                    heard()
        self._carry([], time.time() + SETTLE)

    def _carry(self, events: list[CeleryEvent], now: float) -> None:
        facts, new = self._state.take(events, now)
        if (emit := self._emit) is not None:
            for fact in facts:
                emit(fact)
        if new:
            self._bridge.changed()

    def poll(self) -> Iterator[Reading]:
        """Queues and workers. Raises what the broker's library raises."""
        return self._readings.take()

    def detach(self) -> None:
        """Let go of the broker."""
        self._emit = None
        self._readings.close()

    def abandon(self) -> None:
        """In a forked child: leave what is the parent's alone."""
        self._emit = None
