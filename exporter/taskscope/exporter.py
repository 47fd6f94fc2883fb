"""Wires everything together; holds no logic of its own."""

import asyncio
import atexit
import logging
import os
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, Self
from weakref import WeakMethod

from prometheus_client.registry import Collector

from taskscope import bridges
from taskscope.api.backend import Backend, Component, Writer
from taskscope.api.server import Listener, Server
from taskscope.checks import Own
from taskscope.child import Child
from taskscope.chores import rounds_of, upkeep_of
from taskscope.configure import load
from taskscope.contracts import Bridge, Sink
from taskscope.errors import BadArgument, NotOwner, TaskscopeError
from taskscope.events import Departure
from taskscope.forwarding import Copy, Forwarding
from taskscope.health import Health, show_health
from taskscope.instance import new_instance
from taskscope.live import Live
from taskscope.members import Members
from taskscope.pipeline import Pipeline
from taskscope.registered import Registered
from taskscope.roster import Roster, named
from taskscope.settings import Settings
from taskscope.sinks.history import MemoryStore, queries_for, store_for
from taskscope.sinks.metrics import Metrics
from taskscope.supervisor import Supervisor

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
        upkeep = upkeep_of(self.store, self.metrics)
        made = named(schedulers, names, self.settings.service)
        self._members = Members(self.settings, any(bridge.forks for bridge in made.values()))
        forwards, kept = self.settings.forward is not None, (self.settings.history, self.settings.port)
        self._keeps = not forwards or kept != (None, None)
        self._copy = self._forwarding(self.settings.forward)
        self.pipeline = Pipeline(
            self.store,
            self.live,
            self.metrics,
            self.settings,
            self._instance,
            sinks=[*sinks, self.health, *upkeep, *([Copy(self._copy)] if self._copy and self._keeps else [])],
            upkeep=[one.step for one in upkeep],
            on_open=lambda late: self._serve() if late else self._meet(),
            on_tick=self.health.scores,
            relay=self._forwarding(self._members.url) if self._members.shared else None,
            hosted=lambda: self._roster.hosted,
        )
        self._carrier: Pipeline | Forwarding = self._copy if self._copy and not self._keeps else self.pipeline
        self._rounds = rounds_of(self.settings, self.store, self.pipeline, self.metrics, self.live)
        self.url: str | None = None
        """Where it serves; None before the start, after the end, and without a port."""
        self._roster = Roster(made, self._supervisor, self._instance)
        self._failures: dict[str, str] = {}
        self._told: set[str] = set()
        """Reasons that the metrics have been told of, and must be told of again when they are over."""
        self._opening = threading.Lock()
        self._server: Server | None = None
        self._listener: Listener | None = None
        self._backend = self._endpoints()
        self._state = "new"
        self._child: Child | None = None
        """In a forked child that watches on."""

    def start(self) -> Self:
        """Begin to watch and to serve. Raises only with `strict=True`, and when it was started before."""
        self._watch()
        self._serve()
        return self

    def start_when_needed(self) -> Self:
        """Begin as soon as there is something to see: at once, unless all schedulers say that they will tell."""
        deferred = [bridge.defer(self._start_late) for bridge in self._roster.bridges]
        return self if deferred and all(deferred) else self.start()

    def close(self) -> None:
        """Stop watching, carry what was seen, stop serving. Leaves no thread, listener or hook behind."""
        if self._state == "new":
            for bridge in self._roster.bridges:
                bridge.detach()
        elif self._child is not None:
            self._child.close()
        elif self._end() and self._server is not None:
            self._server.stop()

    @property
    def degraded(self) -> dict[str, str]:
        """What does not work, by reason, each with a sentence."""
        found = self._failures | (self._rounds.failures if self._rounds else {})
        if self._carrier is self.pipeline and (away := self.pipeline.trouble) is not None:
            found["member" if isinstance(away, NotOwner) else "store"] = str(away)
        if self._copy is not None and self._copy.failure is not None:
            found["forward"] = str(self._copy.failure)
        return found

    def refresh(self) -> None:
        """Bring the metrics up to what is true now. No I/O, and no waiting for the store."""
        self._carrier.report()
        degraded = self.degraded
        for reason in self._told | degraded.keys():
            self.metrics.set("degraded", reason in degraded, reason)
            self._told.add(reason)
        self.metrics.sync(self.live, time.time())
        show_health(self.health.scores(), self.metrics)

    def _refreshed(self) -> bool:
        """Brought up to now; not in a forked child, where a lock of ours may be held by nobody for ever."""
        if self._state == "forked":
            return False
        self.refresh()
        return True

    def _own(self, now: float) -> Own:
        away = str(self._carrier.trouble or "")
        others = {reason: why for reason, why in self.degraded.items() if why != away}  # told once
        return Own(now=now, store=away, lag=self._carrier.lag, degraded=others)

    def collector(self) -> Collector:
        """The same series for a `prometheus_client` registry of your own; begins to watch if that has not begun."""
        if self._state == "new":
            self.start()
        return Registered(self._refreshed, self.metrics.collector())

    def adopt(
        self, settings: Settings, gone: Collection[str] = (), come: Mapping[str, Any] | None = None
    ) -> None:
        """Go on by these settings, without the schedulers `gone` and with those that `come`, by name.

        Of the settings only those take effect that `taskscope.reload` says can. Raises `BadArgument` before anything
        is changed.
        """
        made = {name: bridges.made(scheduler, name) for name, scheduler in (come or {}).items()}
        if self._server is not None:
            self._server.renew()
        for bridge in made.values():
            self._failures.pop(bridge.system, None)  # it has another try
        self.settings = self._backend.settings = settings
        for one in (self._carrier, self._copy, self._rounds, self.metrics, self.health):
            if one is not None:
                one.adopt(settings)
        self.live.recall()
        self._roster.exchange(gone, made, self._note)
        for name in gone:
            self.pipeline.emit(Departure(scheduler=name, at=time.time()))

    def ready(self) -> list[Component]:
        """Each part and whether it does its work."""
        away = self._carrier.trouble
        what = "history" if self._carrier is self.pipeline else "forward"
        store = Component(name=what, kind="store", ready=away is None, message=str(away or ""))
        return [store, *map(_component, self._roster)]

    def flush(self, deadline: float = 2.0) -> bool:
        """Wait until what was told in this process is durable, at most `deadline` seconds; True if it is.

        For a process that ends without exit handlers; any other does it at its end. Never raises.
        """
        inert = self._state == "forked" and self._child is None  # nothing is told there
        return inert or self._carrier.flush(deadline)

    def resume_in_child(self) -> bool:
        """In a forked child: watch on here, and hand what is seen to the owner of the history, or the collector.

        For a child that executes runs of the schedulers that its parent watches, and polls; one that has schedulers of
        its own calls `watch`. False where there is nobody to send to. Never raises; in the parent it changes nothing.
        """
        resumed = [self._resume(bridge) for bridge in self._roster.bridges]  # also after one that cannot
        return all(resumed)

    def __repr__(self) -> str:
        where = self.url or (f"to {self.settings.forward}" if self._copy else "no port")
        return f"<taskscope.Exporter of {str(self._roster) or 'nothing'}, {self._state}, {where}>"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._watch)
        if self._serves:
            self._listener = Listener(self._backend)
            try:
                self._serving(await self._listener.open(self.settings.host, self.settings.port or 0))
            except TaskscopeError as error:
                await asyncio.to_thread(self._fail, "port", error)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)
        if self._listener is not None:
            await self._listener.close()

    def _start_late(self) -> None:
        """What `watch` put off; the program is not to be kept from its work by what it would have been told then."""
        if self._state == "new":
            try:
                self.start()
            except TaskscopeError as error:
                logger.error("taskscope does not watch: %s", error)

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
        self._carrier.start()
        self._roster.start(self._fail)
        if self._rounds is not None:
            self._rounds.start()
        self._carrier.tried.wait(_PATIENCE)
        if self._carrier.failure is not None and self.settings.strict:
            self._fail("store", self._carrier.failure)
        self._meet()

    def _serve(self) -> None:
        """Open the port. Also called when the history becomes ours later."""
        if self._state != "running":
            return
        self._meet()
        try:
            with self._opening:
                if self._serves and self.url is None:
                    self._server = Server(self._backend)
                    self._serving(self._server.start(self.settings.host, self.settings.port or 0))
        except TaskscopeError as error:
            self._fail("port", error)

    def _meet(self) -> None:
        """Where this process owns the history, take what others tell."""
        if self._carrier is self.pipeline and (self.pipeline.opened or not self._members.shared):
            self._members.open(self._backend)

    def _serving(self, port: int) -> None:
        scheme = "https" if self.settings.tls_certificate else "http"
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        self.url = f"{scheme}://{host}:{port}"
        self._failures.pop("port", None)
        watched = str(self._roster) or "no scheduler"
        logger.info("taskscope watches %s and serves on %s", watched, self.url)

    def _supervisor(self, bridge: Bridge, name: str) -> Supervisor:
        bridge.resume, bridge.flush = partial(self._resume, bridge), self.flush
        return Supervisor(bridge, name, self._carrier.emit, self.settings)

    def _fail(self, reason: str, error: TaskscopeError) -> None:
        """Go on without it and say so; with `strict` do not."""
        if self.settings.strict or isinstance(error, BadArgument):
            self.close()
            raise error
        self._note(reason, error)

    def _note(self, reason: str, error: TaskscopeError) -> None:
        self._failures[reason] = str(error)
        goes_on = "; the jobs are watched all the same" if reason == "port" else ""
        logger.warning("taskscope: %s%s", error, goes_on)

    def _end(self) -> bool:
        if self._state != "running":
            return False
        self._state = "closed"
        atexit.unregister(self.close)
        self._roster.stop()
        if self._rounds is not None:
            self._rounds.stop()
        self._members.close()
        self._carrier.stop()
        if self.queries is not None:
            self.queries.close()
        self.url = None
        return True

    def _forked(self) -> None:
        """In a forked child: the parent watches and serves, nothing of it may happen twice."""
        self._state, self.url = "forked", None
        atexit.unregister(self.close)
        self._child = None
        self._carrier.abandon()
        self._members.abandon()
        self._roster.abandon()
        for serving in (self._server, self._listener):
            if serving is not None:
                serving.abandon()

    def _resume(self, bridge: Bridge) -> bool:
        """In a forked child: attach the bridge again, to a way of the child's own."""
        url = (self._members.url if self._keeps else None) or self.settings.forward
        if self._state == "forked" and self._child is None and url is not None:
            self._child = Child(url, self.settings)
            self._carrier = self._child.carrier
            atexit.register(self.close)
        return self._child.attach(bridge) if self._child is not None else self._state == "running"

    def _forwarding(self, url: str | None) -> Forwarding | None:
        """The way to another taskscope."""
        return Forwarding(url, self.settings, self._instance, self.metrics, self._keeps) if url else None

    def _endpoints(self) -> Backend:
        return Backend(
            settings=self.settings,
            live=self.live,
            metrics=self.metrics,
            queries=self.queries,
            ready=self.ready,
            refresh=self.refresh,
            alerts=self.store.alert_log if isinstance(self.store, MemoryStore) else None,
            health=self.health,
            writer=Writer(self.store, self.pipeline.do, self.pipeline.deliver, self.pipeline.refuse),
        )


def watch(*schedulers: Any, **settings: Any) -> Exporter:
    """Watch these schedulers from now on; takes what `Exporter` takes, and returns it, started.

    Where all of them are apps which programs of many kinds import (Celery's), it starts in those that execute or
    schedule runs; in the others nothing is started.
    """
    return Exporter(*schedulers, **settings).start_when_needed()


class _Forked:
    """Tells an exporter that it woke up in a child; weakly, because a fork hook cannot be taken back."""

    def __init__(self, exporter: Exporter) -> None:
        self._method = WeakMethod(exporter._forked)

    def __call__(self) -> None:
        if method := self._method():
            method()


def _component(post: Supervisor) -> Component:
    trouble = post.trouble
    return Component(
        name=post.name, kind="bridge", ready=not trouble, at=post.seen_at or None, message=trouble
    )
