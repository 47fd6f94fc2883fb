"""Keeps a bridge at work: asks it for readings, and holds its connection, each on a thread of ours.

Both are one thing: something is done again and again, isolated, its failure said once and its end once, and tried
later and later while it fails.
"""

import logging
import threading
import time
from collections.abc import Callable

from taskscope.backoff import LAST, Backoff
from taskscope.contracts import Bridge, Emit, Told
from taskscope.events import Reading, SchedulerState
from taskscope.settings import Settings
from taskscope.unreachable import sentence

logger = logging.getLogger("taskscope")

_SETTLE = 0.2  # seconds; many jobs are added at once: read them once
_REST = 20  # times as long as it took: jobs that come and go must not keep us reading a large store
PATIENCE = 5.0
"""Seconds that all bridges together get to end."""


class Duty:
    """Something that a bridge does again and again, and how that goes."""

    def __init__(self, scheduler: str, verb: str, last: float, clock: Callable[[], float]) -> None:
        """`verb` completes "taskscope cannot … scheduler"; pauses between tries grow to `last` seconds."""
        self._scheduler, self._verb, self._clock = scheduler, verb, clock
        self._backoff = Backoff(last)
        self._well_since = 0.0
        self.failure = ""
        """Why it failed last; empty if it did not."""
        self.at = 0.0
        """When it last went well; 0 if it never did."""
        self.tried = threading.Event()
        """It has gone well, or failed, or need not be waited for."""

    def went_well(self) -> bool:
        """Take note; True where that is news."""
        self.at = self._clock()
        if self._well_since:
            return False
        self._well_since = self.at
        if self.failure:
            self._log(logging.INFO, "taskscope %ss scheduler %s again", self._verb, self._scheduler)
        self.failure = ""
        self.tried.set()
        return True

    def failed(self, why: str) -> float:
        """Take note; returns the seconds until it is tried again. What worked only for a moment is no new start."""
        if self._well_since and self._clock() - self._well_since >= LAST:
            self._backoff.reset()
        if not self.failure:
            text = "taskscope cannot %s scheduler %s (%s); it shows as down until that works"
            self._log(logging.WARNING, text, self._verb, self._scheduler, why)
        self._well_since, self.failure = 0.0, why
        self.tried.set()
        return self._backoff.next()

    def _log(self, level: int, text: str, *arguments: str) -> None:
        logger.log(level, text, *arguments, extra={"scheduler": self._scheduler})


class Supervisor:
    """One bridge at work."""

    def __init__(
        self,
        bridge: Bridge,
        name: str,
        emit: Emit,
        settings: Settings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.bridge, self.name = bridge, name
        self._emit, self._settings, self._clock = emit, settings, clock
        self._wake, self._stop = threading.Event(), threading.Event()
        self._detached = False
        longest = min(max(LAST, settings.poll_interval), settings.reading_ttl / 2)  # down is a reading, too
        self._asking = Duty(name, "read", longest, clock)
        self._listening = Duty(name, "hear", LAST, clock)
        self._listens = bridge.listens
        self._asked_at = 0.0  # when the question that is still open was asked; 0 when none is
        loops = [(self._ask, "poll"), (self._listen, "listen")][: 2 if self._listens else 1]
        self._threads = [
            threading.Thread(target=loop, name=f"taskscope-{what}-{name}", daemon=True)
            for loop, what in loops
        ]

    def attach(self, instance: str) -> None:
        """Have the bridge hook in. Raises what it raises."""
        self.bridge.on_change, self.bridge.instance = self.wake, instance
        self.bridge.attach(self._tell if self._listens else self._emit)

    def start(self) -> None:
        """Begin to ask and to listen."""
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Ask soon: something changed. Never blocks, and costs little when said again and again."""
        if not self._wake.is_set():
            self._wake.set()

    def end(self) -> None:
        """Let it come to its end; does not wait. Hooks of a bridge that only hooks in are out afterwards."""
        self._stop.set()
        self._wake.set()
        self._listening.tried.set()
        if not self._listens:
            self.bridge.detach()

    def join(self, deadline: float) -> None:
        """Wait for the end, until `deadline` on the monotonic clock; then everything is out."""
        for thread in reversed(self._threads):  # what was received is told before the bridge is detached
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        if self._listens and self._threads[1].is_alive():
            self._warn("taskscope leaves the connection of scheduler %s behind: it does not end")
        self.bridge.detach()
        self._detached = True

    @property
    def seen_at(self) -> float:
        """When it last showed a sign of life, of all that it does; 0 for never."""
        return min(self._asking.at, self._listening.at) if self._listens else self._asking.at

    @property
    def trouble(self) -> str:
        """Why it is not at work, in a sentence; empty if it is."""
        now, patience = self._clock(), self._settings.poll_timeout
        if self._asked_at and now - self._asked_at > patience:
            return f"it does not answer since {patience:g} s"
        if failure := self._listening.failure or self._asking.failure:
            return failure
        if not self.seen_at:
            return "it has not answered yet"
        if self._listens and not self._hears(now):
            return f"nothing was heard of it for {self._settings.reading_ttl:g} s"
        return ""

    def poll(self) -> float:
        """Ask once and tell what it says; a bridge that raises is a scheduler that is down.

        Returns the seconds until it is asked again.
        """
        pause = self._settings.poll_interval
        self._asked_at = self._clock()
        try:
            readings = [self._seen(reading) for reading in self.bridge.poll()]
        except Exception as error:  # noqa: BLE001 - isolation: a bridge must not end its supervisor
            readings = [self._state(up=False)]
            pause = self._asking.failed(sentence(error, self.bridge.url))
        else:
            self._asking.went_well()
            if self._listens and not any(isinstance(reading, SchedulerState) for reading in readings):
                readings.append(self._state(up=self._hears(self._clock())))
        for reading in readings:
            self._tell(reading)
        self._asked_at = 0.0
        return pause

    def _ask(self) -> None:
        if self._listens:  # else it would be down for the moment that connecting takes
            self._listening.tried.wait(self._settings.poll_timeout)
        while not self._stop.is_set():
            self._wake.clear()
            begun = time.monotonic()
            pause = self.poll()
            took = time.monotonic() - begun
            if self._wake.wait(pause):
                self._stop.wait(min(self._settings.poll_interval, max(_SETTLE, took * _REST)))

    def _listen(self) -> None:
        while not self._stop.is_set():
            try:
                self.bridge.listen(self._stop, self._heard)
                why = "its connection ended"
            except Exception as error:  # noqa: BLE001 - isolation: as above
                why = sentence(error, self.bridge.url)
            if not self._stop.is_set():
                pause = self._listening.failed(why)
                self.wake()
                self._stop.wait(pause)

    def _heard(self) -> None:
        if self._listening.went_well():
            self.wake()

    def _hears(self, now: float) -> bool:
        duty = self._listening
        return not self._listens or (not duty.failure and now - duty.at <= self._settings.reading_ttl)

    def _tell(self, told: Told) -> None:
        if not self._detached:
            self._emit(told)

    def _seen(self, reading: Reading) -> Reading:
        """What the bridge says; of a scheduler whose events do not come it cannot say that it is up."""
        if isinstance(reading, SchedulerState) and reading.up and not self._hears(self._clock()):
            return self._state(up=False)
        return reading

    def _state(self, up: bool) -> SchedulerState:
        return SchedulerState(
            scheduler=self.name, system=self.bridge.system, at=self._clock(), up=up, running=up
        )

    def _warn(self, text: str) -> None:
        logger.warning(text, self.name, extra={"scheduler": self.name})
