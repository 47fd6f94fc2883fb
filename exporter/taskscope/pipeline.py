"""Carries every event: folds it into what is live, has the store merge it, and publishes what was committed.

    emit ─▶ queue ─▶ admission ─▶ live ─▶ waiting rows ─▶ store (one transaction) ─▶ metrics, sinks

One thread does all but `emit`. While the store is away the gauges go on from `live`, counters stand still, and rows
wait, bounded; what does not fit is dropped and counted. What other processes `deliver` goes the same way but does not
wait here: it is committed with the next batch, or its sender hears that it was not.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from math import inf

from taskscope.admission import Admission
from taskscope.audience import Audience
from taskscope.backoff import Backoff
from taskscope.burst import HOLD, Burst
from taskscope.contracts import Sink
from taskscope.counts import JobState
from taskscope.deliveries import Deliveries
from taskscope.errands import Errands
from taskscope.errors import NotOwner, TaskscopeError, Unavailable
from taskscope.events import Event, Fact, Heartbeat, JobKey
from taskscope.facts import Row, together
from taskscope.forwarding import Forwarding
from taskscope.identity import text
from taskscope.inlet import Inlet
from taskscope.live import Live
from taskscope.settings import Settings
from taskscope.sinks.history.store import Applied, Store
from taskscope.sinks.metrics import Metrics
from taskscope.waiting import Waiting, rows_of

logger = logging.getLogger("taskscope")

_LAST_LOOK = 2.0  # seconds between looks whether the owner of the history is gone
_AGAIN = 0.02  # seconds between looks whether what was emitted is durable
_FAREWELL = 5.0  # seconds at the end for another process to take what was told here
_REST = 4.0  # while little waits, the pipeline rests that many times as long as a batch took
_SYNC = 60.0  # seconds; without a scrape, too, jobs that left must leave the metrics
_SLICE = 250  # events, carried in about a ms
_PAUSE = 0.0001  # seconds after each slice for which other threads have the program


class Pipeline:
    """Owns the queue, the transaction and the order in which things become visible.

    As long as another process owns the history it hands what is told on to that one, and takes it back with it.
    """

    def __init__(
        self,
        store: Store,
        live: Live,
        metrics: Metrics,
        settings: Settings,
        instance: str,
        sinks: Sequence[Sink] = (),
        upkeep: Sequence[Callable[[float], bool]] = (),
        on_open: Callable[[bool], None] = lambda late: None,
        on_tick: Callable[[], object] = lambda: None,
        relay: Forwarding | None = None,
        hosted: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`upkeep` are short steps done between batches while the store is there; True asks to be called again.

        `on_open` is called when the store was opened, with True if it had been away, or another process had owned it;
        `relay` leads to that one, `on_tick` is called every second; `hosted` says whether this is the process of a
        program, which then comes first.
        """
        self._store, self._live, self._metrics = store, live, metrics
        self._settings, self._instance, self._clock = settings, instance, clock
        self._audience = Audience(sinks, partial(metrics.add, "sink_errors_total", 1))
        self._upkeep, self._on_open, self._on_tick, self._hosted = list(upkeep), on_open, on_tick, hosted
        admission = Admission(settings)
        self._inlet = Inlet(settings.queue_size, admission, relay)
        self.emit, self.refuse = self._inlet.emit, self._inlet.refuse
        self._awake = threading.Event()
        self._deliveries = Deliveries(settings.queue_size, admission, self._awake.set)
        self.deliver = self._deliveries.deliver
        self._errands = Errands()
        self.do = self._errands.do
        self._waiting = Waiting(settings.queue_size, self._refuse)
        self._states: dict[JobKey, JobState] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="taskscope", daemon=True)
        self.tried = threading.Event()
        """Set after the first attempt to open the store, successful or not."""
        self.failure: TaskscopeError | None = None
        """Why the store is away; None while it is there."""
        self.opened = False
        self._retry_at, self._backoff = 0.0, Backoff()
        self._beat_at = self._expire_at = self._heard_since = 0.0
        self._burst = Burst()
        self._sync_at = clock() + _SYNC

    def start(self) -> None:
        """Begin to carry; the store is opened on the pipeline's own thread."""
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """Carry what has been emitted, then end. What the store does not take now is lost, counted and logged."""
        self._stop.set()
        self._awake.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def adopt(self, settings: Settings) -> None:
        """Go on by these settings; from any thread. What the queue holds already is admitted by them, too."""
        self._settings = self._store.settings = settings
        self._inlet.adopt(settings)
        self._deliveries.admission = self._inlet.admission

    def abandon(self) -> None:
        """In a forked child: this pipeline's thread lives in the parent, nothing here may be carried twice."""
        self._inlet.abandon()
        self._errands.abandon()
        self._deliveries.abandon()

    def flush(self, deadline: float) -> bool:
        """Wait until what was emitted is durable, at most `deadline` seconds; True if it is."""
        until = time.monotonic() + deadline
        while not (durable := self._flushed(max(0.0, until - time.monotonic()))) and time.monotonic() < until:
            time.sleep(_AGAIN)  # the store may come back, or the history become ours
        return durable

    def _flushed(self, within: float) -> bool:
        if self._inlet.way is not None:
            return not self._inlet.here and self._inlet.way.flush(within)
        try:
            self.do(_nothing).result(within)  # between two batches: what was taken is stored, or waits
        except (TaskscopeError, TimeoutError):
            return False
        return not self.backlog

    @property
    def trouble(self) -> TaskscopeError | None:
        """Why what is told becomes durable neither here nor elsewhere now; None if it does."""
        return self._inlet.trouble if isinstance(self.failure, NotOwner) else self.failure

    @property
    def lag(self) -> float:
        """Age of the oldest event that is not durable yet, in seconds."""
        return max(self._age(self._waiting.since), self._age(self._burst.since), self._inlet.lag)

    @property
    def backlog(self) -> int:
        """Events and runs that are not durable yet."""
        return self._inlet.backlog + len(self._waiting)

    @property
    def dropped(self) -> dict[str, int]:
        """Events that were dropped, by reason."""
        return self._inlet.dropped

    def report(self) -> None:
        """Tell the metrics how it goes; called before a scrape, from any thread."""
        self._metrics.set("pipeline_lag_seconds", self.lag)
        self._metrics.set("store_up", self.tried.is_set() and self.trouble is None)
        for reason, count in self.dropped.items():
            self._metrics.set("events_dropped_total", count, reason)

    def _run(self) -> None:
        while not self._stop.is_set():
            begin = time.monotonic()
            more = not self._holds() and self._step()
            if not more:
                self._rest(self._settings.flush_interval)
            elif self._polite:
                self._rest(_REST * (time.monotonic() - begin))
        self._finish()

    def _rest(self, seconds: float) -> None:
        """Let others work; not while a sender waits for its answer."""
        self._awake.wait(seconds)
        self._awake.clear()

    def _holds(self) -> bool:
        """A burst goes first: the program has the processor, and many events at once cost less than as many few."""
        return self._burst.look(self._inlet.here, self._polite and not self._deliveries, self._clock())

    @property
    def _polite(self) -> bool:
        """While little waits, and none of it for long, the program that is watched comes first, with rests for it."""
        few = self.backlog < self._settings.queue_size // 20
        return few and self._age(self._waiting.since) < HOLD and self._hosted()

    def _age(self, since: float) -> float:
        return max(0.0, self._clock() - since) if since else 0.0

    def _finish(self) -> None:
        """The last events: as many as the store takes, which is asked once more, however long it has been away."""
        self._deliveries.finish()
        self._retry_at = 0.0
        if self._inlet.way is not None:
            self._inlet.way.flush(_FAREWELL)
        while (self.backlog or self._states) and self._step(last=True):
            pass
        if unsaved := self.backlog:
            self._inlet.drop("unsaved", unsaved)
            logger.warning("taskscope: %d events were not saved: %s", unsaved, self.failure)
        self._inlet.close()
        self._errands.finish()
        self._audience.close()
        self._store.close()

    def _step(self, last: bool = False) -> bool:
        """Carry one batch; True when there is more to do at once."""
        now = self._clock()
        try:
            ready = self._ready(now)
            arrived = self._arrive(now)
            if now >= self._expire_at:
                self._expire_at = now + 1.0
                if self.opened:  # somebody may have been about to hand it on when the history became ours
                    self._inlet.take_back(again=False)
                self._live.expire(now)
                self._on_tick()
            if now >= self._sync_at:
                self._sync_at = now + _SYNC
                self._metrics.sync(self._live, now)
            stored = ready and self._store_batch(now)
            more = stored and not last and self._maintain(now)
        except Exception:  # isolation: a fault of ours must not end the pipeline
            logger.exception("taskscope: a batch failed in an unexpected way; its events are tried again")
            return False
        return arrived or more or (stored and len(self._waiting) > 0)

    def _arrive(self, now: float) -> bool:
        """Take in what was told, slice by slice; True when more waits."""
        for _ in range(0, self._settings.batch_size, _SLICE):
            if not self._carry(_SLICE, now):
                break
            if self._polite:
                time.sleep(_PAUSE)
        return self._inlet.here > 0

    def _carry(self, most: int, now: float) -> bool:
        count, events = self._inlet.take(most, now)
        if events:
            self._show(events)
            for event in events:
                if isinstance(event, Fact) and not self._waiting.add(event, now):
                    self._inlet.drop("overflow")
        return count == most

    def _show(self, events: Sequence[Event]) -> None:
        """What need not be durable is visible at once."""
        self._metrics.add("events_total", len(events), "accepted")
        self._live.fold(events)
        self._audience.arrived(events)

    def _ready(self, now: float) -> bool:
        """Is the store open? Tries to open it when its time has come."""
        if self.opened:
            return self.failure is None or now >= self._retry_at
        if now < self._retry_at:
            return False
        try:
            self._store.open()
            self._take_up()
        except TaskscopeError as error:
            self._away(error, now)
        finally:
            self.tried.set()
        return self.opened

    def _take_up(self) -> None:
        """Go on from what the store remembers."""
        states, runs, totals = self._store.states(), self._store.in_progress(), self._store.totals()
        self._live.restore(states, runs)  # once: it adds what failed before to what has failed since
        self._metrics.restore(totals)
        self._live.changed("store")
        self._metrics.sync(self._live, self._clock())
        late = self.failure is not None
        self.opened = True
        self._inlet.take_back()
        self._back()
        self._on_open(late)

    def _store_batch(self, now: float) -> bool:
        """What waits and what was delivered, in one transaction; False where the store is away."""
        try:
            with self._deliveries.turn(self._settings.batch_size, now, self._inlet.refuse) as delivered:
                if delivered:
                    self._show(delivered)
                self._store_rows(rows_of(delivered, now, self._refuse), now)
                if alive := [event for event in delivered if isinstance(event, Heartbeat)]:
                    self._hear(alive, now)
        except Unavailable as error:
            self._away(error, now)
            return False
        return True

    def _hear(self, alive: Sequence[Heartbeat], now: float) -> None:
        """These processes live, and tell what they had to drop."""
        self._store.beat({event.instance for event in alive}, now)
        for event in alive:
            self._inlet.hear(event)

    def _store_rows(self, delivered: list[Row], now: float) -> None:
        self._states.update(
            (key, job.state) for key, job in self._live.changed("store").items() if job is not None
        )
        waiting = self._waiting.batch(self._settings.batch_size)
        if not waiting and not delivered and not self._states:
            return
        begin = time.perf_counter()
        applied = self._apply(together(waiting, delivered))
        self._metrics.observe("store_write_seconds", time.perf_counter() - begin)
        self._waiting.done(waiting, now)
        self._states = {}
        self._back()
        self._publish(applied)

    def _apply(self, rows: list[Row]) -> Applied:
        """Have the store take the rows; one that it cannot hold is dropped alone."""
        try:
            return self._store.apply(rows, self._states, self._metrics.label)
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001 - isolation: what is wrong with one row must not stop the others
            if len(rows) <= 1:
                run, which = (rows[0].id, text(rows[0].id)) if rows else (b"", "a job's state")
                self._refuse(run, f"{which}: {type(error).__name__}: {error}")
                return Applied(changes=[], totals={})
        half = len(rows) // 2
        return self._apply(rows[:half]).plus(self._apply(rows[half:]))

    def _refuse(self, run: bytes, why: str) -> None:
        """A run that the store cannot hold is dropped, and whoever sent it hears of it."""
        self._inlet.refuse(why)
        self._deliveries.refuse(run, why)

    def _publish(self, applied: Applied) -> None:
        self._metrics.publish(applied.totals, applied.exemplars)
        if applied.expired:
            self._inlet.drop("expired", applied.expired)
        for scheduler, errors in applied.limited.items():
            self._metrics.add("error_groups_limited_total", errors, scheduler)
        if applied.changes:
            self._audience.committed(applied.changes)

    def _maintain(self, now: float) -> bool:
        """Heartbeat, lost runs, errands, and short steps of upkeep; True when one of these has more to do."""
        try:
            if now >= self._beat_at:
                self._beat_at = now + self._settings.heartbeat
                self._store.beat([self._instance], now)
                self._lose(now)
                self._inlet.drain()
            more = [step(now) for step in (self._errands.step, *self._upkeep)]
        except Unavailable as error:
            self._away(error, now)
            return False
        if self.failure is not None:
            self._back()
        return any(more)

    def _lose(self, now: float) -> None:
        """Runs whose process is gone end as unknown/lost; silent is nobody whom we could not have heard."""
        listened = now - self._heard_since >= self._settings.lost_after
        rows = list(self._store.lost(now, self._settings.lost_after if listened else now))
        for row in rows:
            self._waiting.add_row(row, now)
        self._live.lose(rows, now)
        if inherited := self._live.inherited():
            self._live.disinherit(self._store.ended(inherited))

    def _away(self, error: TaskscopeError, now: float) -> None:
        """The store cannot be reached: say so once, try again later and later."""
        elsewhere = isinstance(error, NotOwner) and self._inlet.hand_on(error)
        heard = self._settings.strict and not self.opened  # by whoever started it, as an exception
        if self.failure is None and not elsewhere and not heard:
            logger.warning("taskscope: %s; it is tried again", error)
        self.failure, self._beat_at = error, 0.0  # the heartbeat tells whether it is back when no events come
        self._errands.suspend(error)
        self._deliveries.suspend(error)
        self._retry_at = now + min(self._backoff.next(), _LAST_LOOK if elsewhere else inf)

    def _back(self) -> None:
        if self.failure is not None or not self._heard_since:
            self._heard_since = self._clock()
        if self.failure is not None:
            whose = "is ours now" if isinstance(self.failure, NotOwner) else "is there again"
            logger.info("taskscope: the history %s", whose)
        self.failure = None
        self._backoff.reset()
        self._errands.resume()
        self._deliveries.resume()


def _nothing() -> None:
    """An errand whose end alone counts."""
