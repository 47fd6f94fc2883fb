"""Asks a bridge for readings, on time and on a thread of ours."""

import logging
import threading
import time
from collections.abc import Callable

from taskscope.contracts import Bridge, Emit
from taskscope.events import SchedulerState

logger = logging.getLogger("taskscope")

_SETTLE = 0.2  # many jobs are added at once: read them once
_REST = (
    20  # times as long as it took: jobs that come and go all the time must not keep us reading a large store
)


class Poller:
    """One bridge's readings, every `interval` seconds, and soon after something changed."""

    def __init__(
        self, bridge: Bridge, name: str, emit: Emit, interval: float, clock: Callable[[], float] = time.time
    ):
        self._bridge, self.name, self._emit = bridge, name, emit
        self._interval, self._clock = interval, clock
        self._wake = threading.Event()
        self._stop = threading.Event()
        self.failure = ""
        """Why the last question failed; empty if it did not."""
        self.asked_at = 0.0
        """When the question that is still open was asked; 0 when none is."""
        self.answered_at = 0.0
        self._thread = threading.Thread(target=self._run, name=f"taskscope-poll-{name}", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def wake(self) -> None:
        """Ask soon: something changed. Never blocks, and costs little when said again and again."""
        if not self._wake.is_set():
            self._wake.set()

    def stop(self, timeout: float = 5.0) -> None:
        """Ask no more; waits for an open question until `timeout`."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def hangs(self, after: float) -> bool:
        """Has a question been open for longer than `after` seconds?"""
        return self.asked_at != 0 and self._clock() - self.asked_at > after

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            begun = time.monotonic()
            self.poll()
            took = time.monotonic() - begun
            if self._wake.wait(self._interval):
                self._stop.wait(min(self._interval, max(_SETTLE, took * _REST)))

    def poll(self) -> None:
        """Ask once; a bridge that raises is a scheduler that is down."""
        self.asked_at = self._clock()
        try:
            readings = list(self._bridge.poll())
        except Exception as error:  # noqa: BLE001 - isolation: a bridge must not end its poller
            readings = [self._down()]
            self._report(f"{type(error).__name__}: {error}")
        else:
            self._report("")
        for reading in readings:
            self._emit(reading)
        self.asked_at, self.answered_at = 0.0, self._clock()

    def _down(self) -> SchedulerState:
        return SchedulerState(
            scheduler=self.name, system=self._bridge.system, at=self._clock(), up=False, running=False
        )

    def _report(self, failure: str) -> None:
        """Log a failure once, and its end once."""
        if failure and not self.failure:
            logger.warning(
                "taskscope cannot read scheduler %s (%s); it shows as down until that works",
                self.name,
                failure,
            )
        elif self.failure and not failure:
            logger.info("taskscope reads scheduler %s again", self.name)
        self.failure = failure
