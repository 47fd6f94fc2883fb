"""One taskscope whose time goes only when told to: the real pipeline, store, metrics and API around fake schedulers."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial

from taskscope.api.backend import Backend, Component, Writer
from taskscope.api.server import Server
from taskscope.bridges.fake import Clock, FakeBridge, FakeScheduler
from taskscope.census import Census
from taskscope.checks import Own
from taskscope.health import Health, show_health
from taskscope.inspection.rounds import rounds
from taskscope.instance import new_instance
from taskscope.live import Live
from taskscope.pipeline import Pipeline
from taskscope.settings import Settings
from taskscope.sinks.history.queries import Queries
from taskscope.sinks.history.sql import SqlStore
from taskscope.sinks.metrics import Metrics
from taskscope.supervisor import Supervisor
from taskscope.upkeep import Upkeep


class Replica:
    """Watches fake schedulers of these names; `name` is what Prometheus calls it."""

    def __init__(self, name: str, schedulers: Sequence[str], settings: Settings, clock: Clock) -> None:
        self.name, self.settings, self.clock = name, settings, clock
        self.schedulers = {each: FakeScheduler(clock) for each in schedulers}
        self.live = Live(settings.job_ttl, settings.reading_ttl)
        self.metrics = Metrics(settings, clock)
        self.queries = Queries(str(settings.history), settings)
        self.store = SqlStore(str(settings.history), settings)
        self.health = Health(settings, self.live, self._own, self.metrics.usual, clock)
        self.pipeline = self._pipeline()
        self._rounds = rounds(
            settings, self.queries, self.store, _at_once, self.metrics, lambda: True, self.live, clock
        )
        self._hour = 0.0
        self._supervisors = [self._supervisor(name) for name in self.schedulers]
        self._server: Server | None = None
        self.degraded: set[str] = set()
        """What it works without, by reason."""
        self.busy = False
        """Its store takes for ever."""
        self._told: set[str] = set()
        self._known: dict[bytes, bytes] = {}

    def page(self) -> bytes:
        """What a scrape finds now: samples with the labels and the time that Prometheus gives them."""
        self.carry()
        begun = time.perf_counter()
        lines = b"".join(self.metrics.render().blocks).splitlines()
        took = b"scrape_duration_seconds %.6f" % (time.perf_counter() - begun)
        return self._samples([b"up 1", took, *(line for line in lines if not line.startswith(b"#"))])

    def no_page(self) -> bytes:
        """What a scrape finds when this process is dead."""
        return self._samples([b"up 0"])

    def carry(self) -> None:
        """Bring history and metrics up to now."""
        for supervisor in self._supervisors:
            supervisor.poll()
        step = partial(self.pipeline._arrive, self.clock()) if self.busy else self.pipeline._step
        while step():  # its thread would go by the clock on the wall
            pass
        if self.settings.inspections and self.clock() // 3_600 > self._hour:
            self._hour = self.clock() // 3_600
            self._rounds.step(self.clock())
        self._refresh()

    def serve(self) -> str:
        """Serve the history and the metrics; returns the URL."""
        backend = Backend(
            settings=self.settings,
            live=self.live,
            metrics=self.metrics,
            queries=self.queries,
            ready=self._ready,
            refresh=self._refresh,
            health=self.health,
            writer=Writer(self.store, self.pipeline.do, self.pipeline.deliver, self.pipeline.refuse),
            clock=self.clock,
        )
        self._server = Server(backend)
        return f"http://127.0.0.1:{self._server.start('127.0.0.1', 0)}"

    def close(self) -> None:
        """Stop serving, let go of the history."""
        if self._server is not None:
            self._server.stop()
        self.pipeline._finish()
        self.queries.close()

    def _pipeline(self) -> Pipeline:
        upkeep = Upkeep(self.store, self.metrics)
        return Pipeline(
            self.store,
            self.live,
            self.metrics,
            self.settings,
            new_instance(),
            sinks=[self.health, upkeep],
            upkeep=[upkeep.step, Census(self.store, self.metrics).step],
            clock=self.clock,
        )

    def _supervisor(self, name: str) -> Supervisor:
        bridge = FakeBridge(self.schedulers[name], name)
        bridge.instance = self.pipeline._instance
        bridge.attach(self.pipeline.emit)
        return Supervisor(bridge, name, self.pipeline.emit, self.settings, self.clock)

    def _refresh(self) -> None:
        self.pipeline.report()
        self._told |= self.degraded
        for reason in self._told:
            self.metrics.set("degraded", reason in self.degraded, reason)
        self.metrics.sync(self.live, self.clock())
        show_health(self.health.scores(), self.metrics)

    def _own(self, now: float) -> Own:
        away = str(self.pipeline.failure or "")
        return Own(now=now, store=away, lag=self.pipeline.lag, degraded=dict.fromkeys(self.degraded, "away"))

    def _ready(self) -> list[Component]:
        return [
            Component(
                name=supervisor.name, kind="bridge", ready=not supervisor.trouble, message=supervisor.trouble
            )
            for supervisor in self._supervisors
        ]

    def _samples(self, lines: Sequence[bytes]) -> bytes:
        at = b" %.3f\n" % self.clock()
        parts = (line.rpartition(b" ") for line in lines)
        return b"".join(self._series(series) + value + at for series, _, value in parts)

    def _series(self, series: bytes) -> bytes:
        """The series with the labels of its target, and a space."""
        known = self._known.get(series)
        if known is None:
            name, _, labels = series.partition(b"{")
            own = f'job="taskscope",instance="{self.name}"'.encode()
            known = self._known[series] = name + b"{" + own + (b"," + labels if labels else b"}") + b" "
        return known


def _at_once(work: Callable[[], None]) -> Future[None]:
    """What a pipeline would do a moment later; the day has one thread."""
    done: Future[None] = Future()
    done.set_result(work())
    return done
