"""Wires everything together; holds no logic of its own."""

import asyncio
import atexit
import logging
import os
import time
from collections.abc import Collection, Iterable, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, Self, cast
from weakref import WeakMethod

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from taskscope import bridges
from taskscope.api.backend import Backend, Component, Writer
from taskscope.api.server import Listener, Server
from taskscope.checks import Own
from taskscope.configure import load
from taskscope.contracts import Bridge, Sink
from taskscope.errors import BadArgument, NotOwner, TaskscopeError
from taskscope.health import Health, show_health
from taskscope.instance import new_instance
from taskscope.live import Live
from taskscope.pipeline import Pipeline
from taskscope.poller import Poller
from taskscope.settings import Settings
from taskscope.sinks.history import MemoryStore, queries_for, store_for
from taskscope.sinks.history.store import Store
from taskscope.sinks.metrics import Metrics

if TYPE_CHECKING:
    from taskscope.census import Census
    from taskscope.inspection.rounds import Rounds
    from taskscope.sinks.history.sql import SqlStore
    from taskscope.upkeep import Upkeep

logger = logging.getLogger("taskscope")

_PATIENCE = 10.0  # seconds that `start` waits for the store; a long migration goes on behind it


class Exporter:
    """Watches schedulers and serves what it saw.

    `schedulers` are the objects to watch (each recognised by its class), `names` their names in the same order
    (default: the setting `service`, else the kind of scheduler). Everything calls them by these names, so each program
    needs its own: what one Prometheus finds under one name, rules and pages take for replicas of one scheduler.

    Everything else is a setting (`taskscope.Settings`), given here, in `taskscope.yaml` or as `TASKSCOPE_…`. Raises
    `BadArgument` for a wrong argument; with `strict=True` also whatever keeps it from working fully. Otherwise the
    program goes on, and `degraded` says what is missing.
    """

    def __init__(
        self,
        *schedulers: Any,
        names: Sequence[str] = (),
        settings: Settings | None = None,
        sinks: Sequence[Sink] = (),
        **overrides: Any,
    ) -> None:
        self.settings = load(settings, **overrides)
        self._instance = new_instance()  # of an Exporter that ended in this process, open runs are lost
        self.live = Live(self.settings.job_ttl, self.settings.reading_ttl)
        self.metrics = Metrics(self.settings)
        self.store = store_for(self.settings)
        self.queries = queries_for(self.settings)
        self.health = Health(self.settings, self.live, self._own, self.metrics.usual)
        upkeep = _upkeep(self.store, self.metrics, self.settings)
        self.pipeline = Pipeline(
            self.store,
            self.live,
            self.metrics,
            self.settings,
            self._instance,
            sinks=[*sinks, self.health, *upkeep],
            upkeep=[one.step for one in upkeep],
            on_open=self._serve,
            on_tick=self.health.scores,
        )
        self._rounds = _rounds(self)
        self.url: str | None = None
        """Where it serves; None before the start, after the end, and without a port."""
        self._bridges = _named(schedulers, names, self.settings.service)
        self._pollers = [
            Poller(bridge, name, self.pipeline.emit, self.settings.poll_interval)
            for name, bridge in self._bridges.items()
        ]
        self._failures: dict[str, str] = {}
        self._told: set[str] = set()
        """Reasons that the metrics have been told of, and must be told of again when they are over."""
        self._server: Server | None = None
        self._listener: Listener | None = None
        self._state = "new"

    def start(self) -> Self:
        """Begin to watch and to serve. Raises only with `strict=True`, and when it was started before."""
        self._watch()
        self._serve()
        return self

    def close(self) -> None:
        """Stop watching, carry what was seen, stop serving. Leaves no thread, listener or hook behind."""
        if self._end() and self._server is not None:
            self._server.stop()

    @property
    def degraded(self) -> dict[str, str]:
        """What does not work, by reason, each with a sentence."""
        away = self.pipeline.failure
        store = {} if away is None else {"member" if isinstance(away, NotOwner) else "store": str(away)}
        return self._failures | store | (self._rounds.failures if self._rounds else {})

    def refresh(self) -> None:
        """Bring the metrics up to what is true now. No I/O, and no waiting for the store."""
        self.pipeline.report()
        degraded = self.degraded
        for reason in self._told | degraded.keys():
            self.metrics.set("degraded", reason in degraded, reason)
            self._told.add(reason)
        self.metrics.sync(self.live, time.time())
        show_health(self.health.scores(), self.metrics)

    def _own(self, now: float) -> Own:
        away = (
            "" if self.pipeline.opened and self.pipeline.failure is None else str(self.pipeline.failure or "")
        )
        return Own(now=now, store=away, lag=self.pipeline.lag, degraded=self._failures)

    def collector(self) -> Collector:
        """The same series for a `prometheus_client` registry of your own; begins to watch if that has not begun."""
        if self._state == "new":
            self.start()
        return _Collector(self)

    def ready(self) -> list[Component]:
        """Each part and whether it does its work."""
        away = self.pipeline.failure
        store = Component(name="history", kind="store", ready=away is None, message=str(away or ""))
        return [store, *(_component(poller, self.settings) for poller in self._pollers)]

    def __repr__(self) -> str:
        where = self.url or "no port"
        return f"<taskscope.Exporter of {', '.join(self._bridges) or 'nothing'}, {self._state}, {where}>"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._watch)
        if self._serves:
            self._listener = Listener(self._backend())
            try:
                self._serving(await self._listener.open(self.settings.host, self.settings.port or 0))
            except TaskscopeError as error:
                await asyncio.to_thread(self._fail, "port", error)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)
        if self._listener is not None:
            await self._listener.close()

    @property
    def _serves(self) -> bool:
        """The owner of the history serves; other processes with the same history do not."""
        return self.settings.port is not None and not isinstance(self.pipeline.failure, NotOwner)

    def _watch(self) -> None:
        if self._state != "new":
            raise BadArgument(f"this Exporter is {self._state}; make a new one")
        self._state = "running"
        atexit.register(self.close)
        os.register_at_fork(after_in_child=_Forked(self))
        self.pipeline.start()
        for poller, bridge in zip(self._pollers, self._bridges.values(), strict=True):
            bridge.on_change, bridge.instance = poller.wake, self._instance
            self._attach(bridge)
            poller.start()
        if self._rounds is not None:
            self._rounds.start()
        self.pipeline.tried.wait(_PATIENCE)
        if self.pipeline.failure is not None and self.settings.strict:
            self._fail("store", self.pipeline.failure)

    def _serve(self) -> None:
        """Open the port. Also called when the history becomes ours later."""
        if not self._serves or self.url is not None:
            return
        self._server = Server(self._backend())
        try:
            self._serving(self._server.start(self.settings.host, self.settings.port or 0))
        except TaskscopeError as error:
            self._fail("port", error)

    def _serving(self, port: int) -> None:
        scheme = "https" if self.settings.tls_certificate else "http"
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        self.url = f"{scheme}://{host}:{port}"
        self._failures.pop("port", None)
        watched = ", ".join(self._bridges) or "no scheduler"
        logger.info("taskscope watches %s and serves on %s", watched, self.url)

    def _attach(self, bridge: Bridge) -> None:
        try:
            bridge.attach(self.pipeline.emit)
        except TaskscopeError as error:
            self._fail(bridge.system, error)

    def _fail(self, reason: str, error: TaskscopeError) -> None:
        """Go on without it and say so; with `strict` do not."""
        if self.settings.strict or isinstance(error, BadArgument):
            self.close()
            raise error
        self._failures[reason] = str(error)
        logger.warning("taskscope: %s", error)

    def _end(self) -> bool:
        if self._state != "running":
            return False
        self._state = "closed"
        atexit.unregister(self.close)
        for bridge in self._bridges.values():
            bridge.detach()
        for poller in self._pollers:
            poller.stop()
        if self._rounds is not None:
            self._rounds.stop()
        self.pipeline.stop()
        if self.queries is not None:
            self.queries.close()
        self.url = None
        return True

    def _forked(self) -> None:
        """In a forked child: the parent watches and serves, nothing of it may happen twice."""
        self._state, self.url = "forked", None
        atexit.unregister(self.close)
        self.pipeline.abandon()
        for bridge in self._bridges.values():
            bridge.abandon()
        if self._server is not None:
            self._server.abandon()

    def _backend(self) -> Backend:
        return Backend(
            settings=self.settings,
            live=self.live,
            metrics=self.metrics,
            queries=self.queries,
            ready=self.ready,
            refresh=self.refresh,
            alerts=self.store.alert_log if isinstance(self.store, MemoryStore) else None,
            health=self.health,
            writer=Writer(self.store, self.pipeline.do),
        )


def watch(*schedulers: Any, **settings: Any) -> Exporter:
    """Watch these schedulers from now on; takes what `Exporter` takes, and returns it, started."""
    return Exporter(*schedulers, **settings).start()


class _Collector(Collector):
    """An exporter as a collector of `prometheus_client`."""

    def __init__(self, exporter: Exporter) -> None:
        self._exporter, self._collector = exporter, exporter.metrics.collector()

    def describe(self) -> Iterable[Metric]:
        """The families without their samples: registering collects nothing."""
        return self._collector.describe()

    def collect(self) -> Iterable[Metric]:
        """What is true now; nothing in a forked child, where a lock of ours may be held by nobody for ever."""
        if self._exporter._state == "forked":
            return []
        self._exporter.refresh()
        return self._collector.collect()


class _Forked:
    """Tells an exporter that it woke up in a child; weakly, because a fork hook cannot be taken back."""

    def __init__(self, exporter: Exporter) -> None:
        self._method = WeakMethod(exporter._forked)

    def __call__(self) -> None:
        if method := self._method():
            method()


def _upkeep(store: Store, metrics: Metrics, settings: Settings) -> "list[Upkeep | Census]":
    """What keeps the store within its bounds, and counts what is in it: nothing where it is memory."""
    if isinstance(store, MemoryStore):
        return []
    from taskscope.census import Census
    from taskscope.upkeep import Upkeep  # a database library, which `history=None` does without

    kept = cast("SqlStore", store)
    return [Upkeep(kept, metrics, settings.retention.interval), Census(kept, metrics)]


def _rounds(exporter: Exporter) -> "Rounds | None":
    """What inspects the history: nothing where there is none, or nothing to look for."""
    settings = exporter.settings
    queries = queries_for(settings) if settings.inspections else None  # the API's own stay free
    if queries is None:
        return None
    from taskscope.inspection.rounds import rounds  # a database library, as above

    pipeline = exporter.pipeline
    return rounds(
        settings,
        queries,
        cast("SqlStore", exporter.store),
        pipeline.do,
        exporter.metrics,
        lambda: pipeline.opened and pipeline.failure is None,
    )


def _named(schedulers: Sequence[Any], names: Sequence[str], service: str) -> dict[str, Bridge]:
    """A bridge for each scheduler, by its name: as given, else after the service. Raises `BadArgument`."""
    if names and len(names) != len(schedulers):
        raise BadArgument(f"{len(schedulers)} schedulers and {len(names)} names: give each its name, or none")
    named: dict[str, Bridge] = {}
    for number, scheduler in enumerate(schedulers):
        name = names[number] if names else _unused(service or bridges.system_of(scheduler), named)
        if name in named:
            raise BadArgument(f"two schedulers are called {name!r}: give each a name of its own")
        named[name] = bridges.made(scheduler, name)
    return named


def _unused(name: str, named: Collection[str]) -> str:
    """`billing`, `billing-2`, …"""
    numbered = (f"{name}-{number}" for number in count(2))
    return name if name not in named else next(other for other in numbered if other not in named)


def _component(poller: Poller, settings: Settings) -> Component:
    hangs = poller.hangs(settings.poll_timeout)
    message = f"it does not answer since {settings.poll_timeout:g} s" if hangs else poller.failure
    return Component(
        name=poller.name, kind="bridge", ready=not message, at=poller.answered_at or None, message=message
    )
