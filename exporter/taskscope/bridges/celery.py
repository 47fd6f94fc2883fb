"""Watches Celery: in the processes of an app by its signals, or from outside, at its broker's URL, by its events."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec

from taskscope.contracts import Bridge, Emit
from taskscope.events import Reading


class CeleryOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What may be said of a Celery that is watched from outside."""


class Way(Protocol):
    """One of the two ways of watching; the bridge's methods are its."""

    def attach(self, emit: Emit) -> None:
        """Begin to watch."""

    def poll(self) -> Iterable[Reading]:
        """What is true right now."""

    def detach(self) -> None:
        """Stop watching."""

    def abandon(self) -> None:
        """In a forked child: let go without touching what was the parent's."""


class CeleryBridge(Bridge):
    """Given an app, it hears the app's signals; given a broker's URL, its events."""

    system = "celery"
    targets = ("celery.app.base.Celery",)
    schemes = ("redis", "rediss", "sentinel", "amqp", "amqps", "pyamqp")
    forks = True
    Options = CeleryOptions
    options: CeleryOptions

    def __init__(self, target: Any, name: str) -> None:
        self.target, self.name = target, name
        self._way: Way | None = None

    def defer(self, start: Callable[[], None]) -> bool:
        """An app lives in programs that publish, too: there its messages are stamped, and nothing else happens."""
        if isinstance(self.target, str):
            return False
        from taskscope.bridges._celery_signals import Signals

        signals = Signals(self)
        signals.defer(start)
        self._way = signals
        return True

    def attach(self, emit: Emit) -> None:
        """Begin to watch."""
        if self._way is None:
            self._way = self._chosen()
        self._way.attach(emit)

    def poll(self) -> Iterable[Reading]:
        """What is true right now."""
        return self._way.poll() if self._way is not None else ()

    def detach(self) -> None:
        """Stop watching."""
        way, self._way = self._way, None
        if way is not None:
            way.detach()

    def abandon(self) -> None:
        """In a forked child: let go; an app's signals still say whether it is a child of a worker's pool."""
        way, self.on_change = self._way, None
        if way is not None:
            way.abandon()
        if isinstance(self.target, str):
            self._way = None

    def changed(self) -> None:
        """Ask to be polled soon."""
        if self.on_change is not None:
            self.on_change()

    def _chosen(self) -> Way:
        """The way that fits the target. Both are given the bridge: its target, name, options, instance, `changed`."""
        if isinstance(self.target, str):
            from taskscope.bridges._celery_stream import Stream

            return Stream(self)
        from taskscope.bridges._celery_signals import Signals

        return Signals(self)
