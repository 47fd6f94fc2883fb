"""Carries events to another taskscope: the collector, or the process that owns the history.

What leaves the program is bounded and redacted like what is stored.
"""

import time
from collections.abc import Sequence
from contextlib import closing
from threading import Event as Signal
from typing import cast

import msgspec

from taskscope.admission import Admission
from taskscope.contracts import Emit, Sink, Told, made
from taskscope.errors import TaskscopeError
from taskscope.events import Departure, DropReason, Event, Fact, Heartbeat, Removed
from taskscope.settings import Settings
from taskscope.sinks.forward.address import Address
from taskscope.sinks.forward.forwarder import PATH, Forwarder
from taskscope.sinks.forward.outbox import Line
from taskscope.sinks.forward.spool import Spool, spool_for
from taskscope.sinks.history import url_for
from taskscope.sinks.metrics import Metrics

_read = msgspec.json.Decoder(Event).decode
_write = msgspec.json.Encoder().encode


class Forwarding:
    """What `Pipeline` is where the history is in this process."""

    def __init__(
        self, url: str, settings: Settings, instance: str, metrics: Metrics | None = None, named: bool = False
    ) -> None:
        """At `url` somebody takes events. Raises `BadArgument`.

        To the owner of the history (`unix://…`) jobs go under the names that their schedulers gave them: it has the
        same rules about jobs, and applies them. To a collector they go as the settings of this program name them:
        of what was `named` already nothing is named again.
        """
        address = _address(url, settings)
        self._local, self._named = address.local, address.local or named
        self._admission = self._door(settings)
        self._url, self._settings, self._instance, self._metrics = url, settings, instance, metrics
        self._forwarder = Forwarder(
            address,
            self._line,
            spool=self._spool(),
            beat=self._beat,
            beat_every=settings.heartbeat,
            limit=settings.queue_size,
            interval=settings.flush_interval,
        )
        self.emit: Emit = self._forwarder.emit
        self.flush = self._forwarder.flush
        self._refused: TaskscopeError | None = None
        self.tried = Signal()
        """Set once `start` has returned."""

    def adopt(self, settings: Settings) -> None:
        """Redact, and name jobs, by these settings; from any thread."""
        self._admission = self._door(settings)

    def _spool(self) -> Spool | None:
        """What waits on disk: for the collector at this address; for a history, whoever owns it then."""
        settings = self._settings
        whom = str(url_for(settings)) if self._local else self._url
        return spool_for(settings.spool, whom, settings.spool_size) if settings.spool else None

    def _door(self, settings: Settings) -> Admission:
        return Admission(msgspec.structs.replace(settings, jobs=()) if self._named else settings)

    def start(self) -> None:
        """Begin to send; with `strict` it is asked before whether anything is taken."""
        if self._settings.strict:
            try:
                ask(self._url, self._settings)
            except TaskscopeError as error:
                self._refused = error
        self._forwarder.start()
        self.tried.set()

    def stop(self, timeout: float = 5.0) -> None:
        """Send what was told, then end; what nobody takes now is spooled, else lost, counted and logged."""
        self._forwarder.close(timeout)

    def abandon(self) -> None:
        """In a forked child: the queue, the thread and the connection are another's already."""

    def withdraw(self) -> Sequence[Event]:
        """What nobody has taken yet, to be carried by somebody else; sends no more until the next event."""
        return [_read(line) for line in self._forwarder.pause()]

    def report(self) -> None:
        """Tell the metrics how it goes."""
        if self._metrics is not None:
            self._metrics.set("store_up", self.failure is None)
            self._metrics.set("pipeline_lag_seconds", self.lag)
            for reason, count in self.dropped.items():
                self._metrics.set("events_dropped_total", count, reason)

    @property
    def failure(self) -> TaskscopeError | None:
        """Why nothing is taken now."""
        return self._refused if self._refused is not None else self._forwarder.failure

    @property
    def trouble(self) -> TaskscopeError | None:
        """The same."""
        return self.failure

    def drain(self) -> None:
        """Send what waits on disk, where there is something, and be idle again afterwards."""
        if self._forwarder.spooled:
            self._forwarder.start()
        elif self._forwarder.runs:
            self._forwarder.pause()

    @property
    def used(self) -> bool:
        """Is there anything to withdraw?"""
        return self._forwarder.runs or self._forwarder.backlog > 0

    @property
    def lag(self) -> float:
        """Seconds for which something has been waiting."""
        return self._forwarder.lag

    @property
    def backlog(self) -> int:
        """Events that nobody has taken yet."""
        return self._forwarder.backlog

    @property
    def dropped(self) -> dict[str, int]:
        """Events that were dropped, by reason."""
        return self._forwarder.dropped

    def _line(self, told: Told) -> Line | None:
        """On the sending thread: bounded, without secrets, as JSON."""
        event = made(told)
        if event is None or isinstance(event, Departure):  # others may watch that scheduler on
            return None
        event = self._admission.admit(event, time.time())
        return None if event is None else Line(_write(event), _key(event))

    def _beat(self, dropped: dict[str, int]) -> Line:
        event = Heartbeat(
            instance=self._instance, at=time.time(), dropped=cast(dict[DropReason, int], dropped)
        )
        return Line(_write(event), _key(event))


def ask(url: str, settings: Settings) -> None:
    """Is what is sent there taken? Raises `Unavailable`, `Refused`, or `BadArgument`."""
    with closing(_address(url, settings)) as address:
        address.post(PATH, b"[]")


def _address(url: str, settings: Settings) -> Address:
    token = "" if url.startswith("unix:") else settings.forward_token or ""
    return Address(url, token, settings.forward_certificates, timeout=_PATIENCE)


class Copy(Sink):
    """Sends to another taskscope what is also kept here."""

    def __init__(self, forwarding: Forwarding) -> None:
        self._forwarding = forwarding

    def arrived(self, events: Sequence[Event]) -> None:
        """Send these, too."""
        for event in events:
            self._forwarding.emit(event)

    def close(self) -> None:
        """Send the last ones."""
        self._forwarding.stop()


_PATIENCE = 15.0
"""Seconds to wait for an answer: longer than a taskscope tries to make a batch durable before it says `later`."""


def _key(event: Event) -> str:
    """Under which a newer reading takes the place of this one; empty for what happened."""
    if isinstance(event, Fact | Removed):
        return ""
    parts = (getattr(event, field, "") for field in ("scheduler", "queue", "worker", "instance"))
    return "\0".join((type(event).__name__, *parts, getattr(getattr(event, "job", None), "name", "")))
