"""Watches Celery: in the processes of an app by its signals, or from outside, at its broker's URL, by its events."""

from collections.abc import Callable, Iterable
from threading import Event as Flag
from typing import Annotated, Any, Protocol

import msgspec
from msgspec import Meta

from taskscope.contracts import Bridge, Emit
from taskscope.events import Reading
from taskscope.settings import Count, Seconds


class CeleryOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What may be said of a Celery that is watched from outside."""

    queues: Annotated[
        tuple[str, ...],
        Meta(
            description="Queues to read; none: those that workers consume from, or that are otherwise heard of."
        ),
    ] = ()
    enable_events: Annotated[
        bool,
        Meta(description="Have workers send the events of their tasks, as `-E` does; that costs them time."),
    ] = False
    inspect: Annotated[
        bool,
        Meta(description="Ask workers for pool, queues and tasks; their answers hold arguments of tasks."),
    ] = True
    inspect_interval: Annotated[Seconds, Meta(description="How often they are asked.")] = 30.0
    inspect_timeout: Annotated[Seconds, Meta(description="How long each question waits for answers.")] = 1.0
    worker_silence: Annotated[
        Seconds, Meta(description="Without a heartbeat for so long a worker is down, and its runs are lost.")
    ] = 30.0
    worker_memory: Annotated[
        Seconds,
        Meta(
            description="How long a worker that fell silent is shown as down; always while no other is there."
        ),
    ] = 900.0
    tasks: Annotated[
        Count, Meta(description="Tasks not over that are remembered; beyond, the oldest are forgotten.")
    ] = 100_000
    event_exchange: Annotated[str, Meta(description="Celery's setting of this name.")] = "celeryev"
    control_exchange: Annotated[str, Meta(description="Celery's setting of this name.")] = "celery"
    transport_options: Annotated[
        dict[str, Any],
        Meta(
            description="Celery's `broker_transport_options`: `global_keyprefix`, `priority_steps`, `master_name` …"
        ),
    ] = {}


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

    def listen(self, stop: Flag, heard: Callable[[], None]) -> None:
        """Hear the events that come over the broker."""
        from taskscope.bridges._celery_stream import Stream

        if isinstance(self._way, Stream):
            self._way.listen(stop, heard)

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
