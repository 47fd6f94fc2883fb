"""Carries every event: folds it into what is live, has the store merge it, and publishes what was committed.

    emit ─▶ queue ─▶ admission ─▶ live ─▶ waiting rows ─▶ store (one transaction) ─▶ metrics, sinks

One thread does all but `emit`. While the store is away the gauges go on from `live`, counters stand still, and rows
wait, bounded; what does not fit is dropped and counted.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from taskscope.admission import Admission
from taskscope.contracts import Sink
from taskscope.counts import JobState
from taskscope.errands import Errands
from taskscope.errors import NotOwner, TaskscopeError, Unavailable
from taskscope.events import Fact, JobKey
from taskscope.facts import Row
from taskscope.identity import text
from taskscope.inlet import Inlet
from taskscope.live import Live
from taskscope.settings import Settings
from taskscope.sinks.history.store import Applied, Store
from taskscope.sinks.metrics import Metrics
from taskscope.waiting import Waiting

logger = logging.getLogger("taskscope")

_FIRST_RETRY, _LAST_RETRY = 0.5, 30.0  # seconds between attempts to reach the store
_REST = 4.0  # while little waits, the pipeline rests that many times as long as a batch took
_POUR = 200  # events within a flush interval make a burst
_HOLD = 1.0  # seconds for which a burst is let through first
_SYNC = 60.0  # seconds; without a scrape, too, jobs that left must leave the metrics
_SLICE = 250  # events, carried in about a ms
_PAUSE = 0.0001  # seconds after each slice for which other threads have the program


class Pipeline:
    """Owns the queue, the transaction and the order in which things become visible."""

    def __init__(
        self,
        store: Store,
        live: Live,
        metrics: Metrics,
        settings: Settings,
        instance: str,
        sinks: Sequence[Sink] = (),
        upkeep: Sequence[Callable[[float], bool]] = (),
        on_open: Callable[[], None] = lambda: None,
        on_tick: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`upkeep` are short steps done between batches while the store is there; True asks to be called again.

        `on_open` is called when the store was opened after another process had owned it, `on_tick` every second.
        """
        self._store, self._live, self._metrics = store, live, metrics
        self._settings, self._instance, self._clock = settings, instance, clock
        self._sinks, self._upkeep, self._on_open = list(sinks), list(upkeep), on_open
        self._on_tick = on_tick
        self._inlet = Inlet(settings.queue_size, Admission(settings))
        self.emit = self._inlet.emit
        self._errands = Errands()
        self.do = self._errands.do
        self._waiting = Waiting(settings.queue_size, self._inlet.refuse)
        self._states: dict[JobKey, JobState] = {}
        self._broken: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="taskscope", daemon=True)
        self.tried = threading.Event()
        """Set after the first attempt to open the store, successful or not."""
        self.failure: TaskscopeError | None = None
        """Why the store is away; None while it is there."""
        self.opened = False
        self._retry_at, self._retry_after = 0.0, _FIRST_RETRY
        self._beat_at = self._expire_at = 0.0
        self._poured, self._pours_since, self._holding = 0, 0.0, False
        self._sync_at = clock() + _SYNC

    def start(self) -> None:
        """Begin to carry; the store is opened on the pipeline's own thread."""
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """Carry what has been emitted, then end. What the store does not take now is lost, counted and logged."""
        self._stop.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def abandon(self) -> None:
        """In a forked child: this pipeline's thread lives in the parent, nothing here may be carried twice."""
        self._inlet.abandon()
        self._errands.abandon()

    @property
    def lag(self) -> float:
        """Age of the oldest event that is not durable yet, in seconds."""
        return max(self._age(self._waiting.since), self._age(self._pours_since) if self._holding else 0.0)

    @property
    def backlog(self) -> int:
        """Events and runs that are not durable yet."""
        return len(self._inlet) + len(self._waiting)

    @property
    def dropped(self) -> dict[str, int]:
        """Events that were dropped, by reason."""
        return self._inlet.dropped

    def report(self) -> None:
        """Tell the metrics how it goes; called before a scrape, from any thread."""
        self._metrics.set("pipeline_lag_seconds", self.lag)
        self._metrics.set("store_up", self.opened and self.failure is None)
        for reason, count in self.dropped.items():
            self._metrics.set("events_dropped_total", count, reason)

    def _run(self) -> None:
        while not self._stop.is_set():
            begin = time.monotonic()
            more = not self._holds() and self._step()
            if not more:
                self._stop.wait(self._settings.flush_interval)
            elif self._polite:
                self._stop.wait(_REST * (time.monotonic() - begin))
        self._finish()

    def _holds(self) -> bool:
        """A burst goes first: the program has the processor, and many events at once cost less than as many few."""
        before, self._poured = self._poured, len(self._inlet)
        pours = self._poured - before >= _POUR and self._polite
        self._pours_since = (self._pours_since or self._clock()) if pours else 0.0
        self._holding = pours and self._age(self._pours_since) < _HOLD
        return self._holding

    @property
    def _polite(self) -> bool:
        """While little waits, and none of it for long, the program that is watched comes first, with rests for it."""
        return self.backlog < self._settings.queue_size // 20 and self._age(self._waiting.since) < _HOLD

    def _age(self, since: float) -> float:
        return max(0.0, self._clock() - since) if since else 0.0

    def _finish(self) -> None:
        """The last events: as many as the store takes, which is asked once more, however long it has been away."""
        self._retry_at = 0.0
        while (self.backlog or self._states) and self._step(last=True):
            pass
        if unsaved := self.backlog:
            self._inlet.drop("unsaved", unsaved)
            logger.warning("taskscope: %d events were not saved: %s", unsaved, self.failure)
        self._errands.suspend(Unavailable("taskscope is ending"))
        for sink in self._sinks:
            self._call(sink, "close", sink.close)
        self._store.close()

    def _step(self, last: bool = False) -> bool:
        """Carry one batch; True when there is more to do at once."""
        now = self._clock()
        try:
            arrived = self._arrive(now)
            if now >= self._expire_at:
                self._expire_at = now + 1.0
                self._live.expire(now)
                self._on_tick()
            if now >= self._sync_at:
                self._sync_at = now + _SYNC
                self._metrics.sync(self._live, now)
            stored = self._ready(now) and self._store_batch(now)
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
        return len(self._inlet) > 0

    def _carry(self, most: int, now: float) -> bool:
        count, events = self._inlet.take(most, now)
        if events:
            self._metrics.add("events_total", len(events), "accepted")
            self._live.fold(events)
            for event in events:
                if isinstance(event, Fact) and not self._waiting.add(event, now):
                    self._inlet.drop("overflow")
            for sink in self._sinks:
                self._call(sink, "arrived", partial(sink.arrived, events))
        return count == most

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
        self._live.restore(self._store.states())
        self._metrics.restore(self._store.totals())
        self._live.changed("store")
        self._metrics.sync(self._live, self._clock())
        late = self.failure is not None
        self.opened = self._inlet.accepting = True
        self._back()
        if late:
            self._on_open()

    def _store_batch(self, now: float) -> bool:
        self._states.update(
            (key, job.state) for key, job in self._live.changed("store").items() if job is not None
        )
        rows = self._waiting.batch(self._settings.batch_size)
        if not rows and not self._states:
            return True
        begin = time.perf_counter()
        try:
            applied = self._apply(rows)
        except Unavailable as error:
            self._away(error, now)
            return False
        self._metrics.observe("store_write_seconds", time.perf_counter() - begin)
        self._waiting.done(rows, now)
        self._states = {}
        self._back()
        self._publish(applied)
        return True

    def _apply(self, rows: list[Row]) -> Applied:
        """Have the store take the rows; one that it cannot hold is dropped alone."""
        try:
            return self._store.apply(rows, self._states, self._metrics.label)
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001 - isolation: what is wrong with one row must not stop the others
            if len(rows) <= 1:
                which = text(rows[0].id) if rows else "a job's state"
                self._inlet.refuse(f"{which}: {type(error).__name__}: {error}")
                return Applied(changes=[], totals={})
        half = len(rows) // 2
        first, second = self._apply(rows[:half]), self._apply(rows[half:])
        return Applied(
            changes=first.changes + second.changes,
            totals=first.totals | second.totals,
            exemplars=first.exemplars | second.exemplars,
            expired=first.expired + second.expired,
            limited={
                name: first.limited.get(name, 0) + second.limited.get(name, 0)
                for name in first.limited | second.limited
            },
        )

    def _publish(self, applied: Applied) -> None:
        self._metrics.publish(applied.totals, applied.exemplars)
        if applied.expired:
            self._inlet.drop("expired", applied.expired)
        for scheduler, errors in applied.limited.items():
            self._metrics.add("error_groups_limited_total", errors, scheduler)
        if applied.changes:
            for sink in self._sinks:
                self._call(sink, "committed", partial(sink.committed, applied.changes))

    def _maintain(self, now: float) -> bool:
        """Heartbeat, lost runs, errands, and short steps of upkeep; True when one of these has more to do."""
        try:
            if now >= self._beat_at:
                self._beat_at = now + self._settings.heartbeat
                self._store.beat(self._instance, now)
                self._lose(now)
            more = [step(now) for step in (self._errands.step, *self._upkeep)]
        except Unavailable as error:
            self._away(error, now)
            return False
        if self.failure is not None:
            self._back()
        return any(more)

    def _lose(self, now: float) -> None:
        """Runs whose process is gone end as unknown/lost."""
        for row in self._store.lost(now, self._settings.lost_after):
            self._waiting.add_row(row, now)
            if row.job:
                lost = Fact(  # dated by its start: a success since then is the newer truth
                    scheduler=row.scheduler,
                    native=text(row.id),
                    status="unknown",
                    at=(row.started or row.enqueued) / 1000 or now,
                    job=row.job,
                    reason="lost",
                )
                self._live.fold([lost])

    def _away(self, error: TaskscopeError, now: float) -> None:
        """The store cannot be reached: say so once, try again later and later."""
        self._inlet.accepting = not isinstance(error, NotOwner)
        if self.failure is None and (self.opened or not self._settings.strict):
            logger.warning(
                "taskscope: %s; it is tried again", error
            )  # else whoever started it hears an exception
        self.failure, self._beat_at = error, 0.0  # the heartbeat tells whether it is back when no events come
        self._errands.suspend(error)
        self._retry_at = now + self._retry_after * random.uniform(0.5, 1.0)
        self._retry_after = min(self._retry_after * 2, _LAST_RETRY)

    def _back(self) -> None:
        if self.failure is not None:
            whose = "is ours now" if isinstance(self.failure, NotOwner) else "is there again"
            logger.info("taskscope: the history %s", whose)
        self.failure, self._retry_after = None, _FIRST_RETRY
        self._errands.resume()

    def _call(self, sink: Sink, what: str, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:  # isolation: a sink must not hurt the pipeline
            name = f"{type(sink).__name__}.{what}"
            self._metrics.add("sink_errors_total", 1, type(sink).__name__)
            if name not in self._broken:
                self._broken.add(name)
                logger.exception("taskscope: %s failed (further failures are only counted)", name)
