"""Sends events to another taskscope from a thread of ours; whoever tells them never waits.

    emit ─▶ queue ─▶ encode ─▶ outbox ─▶ POST, one batch at a time ─▶ forgotten once it is taken
                                  └─▶ spool, while the other one is away

What is sent twice does no harm there, so a batch is kept until its answer has come. Only sockets and threads of the
standard library: they are looked up when they are used, so that gevent may have replaced them.
"""

import gzip
import json
import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias
from weakref import WeakMethod

from taskscope.backoff import Backoff
from taskscope.errors import BadEvent, Refused, TaskscopeError, Unavailable
from taskscope.sinks.forward.address import Address
from taskscope.sinks.forward.outbox import Line, Outbox
from taskscope.sinks.forward.spool import Spool

logger = logging.getLogger("taskscope")

PATH = "/api/ingest/events"
NDJSON = "application/x-ndjson"

_BATCH = 512 * 1024  # bytes; far below what a taskscope takes in one request
_LINES = 5_000  # in one batch
_WORTH_PACKING = 1_024  # bytes
_MEMORY = 64 * 2**20  # bytes of encoded events that may wait
_LAST_RETRY = 10.0  # seconds between attempts to reach the other one
_TELL = (
    1.0  # seconds until it is worth a sentence that it is away: one that has just been started is soon there
)
_SAVE = 2.0  # seconds; while it is away, what was told goes to the spool as often
_LOOK = 30.0  # seconds after which the spool is looked at again: another process may have left something

Encode: TypeAlias = Callable[[Any], Line | None]
"""An event, or what makes it, as a line; None for what is not worth sending. Raises for what cannot be sent."""


class Forwarder:
    """One way to one taskscope. A forked child begins anew: with an empty queue, its own thread and connection."""

    def __init__(
        self,
        address: Address,
        encode: Encode,
        *,
        spool: Spool | None = None,
        beat: Callable[[dict[str, int]], Line] | None = None,
        beat_every: float = 10.0,
        limit: int = 200_000,
        interval: float = 0.05,
    ) -> None:
        """At most `limit` events wait; what was told is sent every `interval` seconds.

        Every `beat_every` seconds `beat` says that this process lives, and what was dropped, by reason, since it was
        heard for the last time.
        """
        self._address, self._encode, self._spool = address, encode, spool
        self._beat, self._beat_every, self._limit, self._interval = beat, beat_every, limit, interval
        self._begin()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_in_child(WeakMethod(self._begin_in_child)))

    def _begin(self) -> None:
        self._queue: deque[Any] = deque()
        self._outbox = Outbox(self._limit, _MEMORY)
        self._packing = threading.RLock()
        self._counting = threading.RLock()  # may be taken by a signal handler that interrupts its holder
        self._dropped: Counter[str] = Counter()
        self._heard = Counter[str]()
        """What of it is known elsewhere."""
        self._beating: tuple[Line, Counter[str]] | None = None
        """The sign of life that nobody has taken yet, and what will be known once it is."""
        self._thread: threading.Thread | None = None
        self._wake, self._closed = threading.Event(), False
        self._answers = threading.Condition()
        self._asked = self._answered = 0
        self._retry_at, self._backoff = 0.0, Backoff(_LAST_RETRY)
        self._beat_at = self._look_at = self._saved_at = 0.0
        self._told: set[str] = set()
        self._since = self._away_since = 0.0
        self.failure: TaskscopeError | None = None
        """Why nothing is taken now; None while it is, or nothing was sent yet."""

    def _begin_in_child(self) -> None:
        """In a forked child: what waits is the parent's, and so is the connection."""
        self._address.abandon()
        self._begin()

    def emit(self, told: Any) -> None:
        """Take one event. Never blocks, never raises, never grows beyond its bound."""
        if len(self._queue) < self._limit:
            self._queue.append(told)
        else:
            self.drop("overflow")
        if self._thread is None:
            self.start()

    def start(self) -> None:
        """Begin to send; done by the first event, too. After `close` what is told is forgotten."""
        with self._counting:
            if self._closed:
                self._queue.clear()
            elif self._thread is None:
                self._thread = threading.Thread(target=self._run, name="taskscope-forward", daemon=True)
                try:
                    self._thread.start()
                except (
                    RuntimeError
                ):  # the interpreter ends, or the system has no thread left: the next one tries
                    self._thread = None

    def flush(self, deadline: float) -> bool:
        """Wait at most `deadline` seconds until all that was told is taken, or safe on disk; True if it is.

        One that is known to be away is asked once more, which takes no longer than its refusal does.
        """
        if self._closed or (self._thread is None and not self.backlog):
            return not self.backlog
        self.start()
        with self._answers:
            self._asked += 1
            asked = self._asked
            self._wake.set()
            answered = self._answers.wait_for(lambda: self._answered >= asked, deadline)
        return (answered and self.failure is None) or self._save() or not self.backlog

    def close(self, deadline: float = 5.0) -> bool:
        """Send what waits, then end; what is neither taken nor on disk then is counted and logged."""
        safe = self.flush(deadline)
        self._closed = True
        self._end()
        self._pack()
        if lost := len(self._outbox):
            self.drop("unsaved", lost, str(self.failure or f"{self._address.url} took too long"))
        self._outbox.withdraw()
        return safe

    def pause(self) -> list[bytes]:
        """Send no more until the next event, or `start`; gives what nobody has taken yet, as lines."""
        self._end()
        self._pack()
        return self._outbox.withdraw()

    @property
    def spooled(self) -> bool:
        """Does something wait on disk?"""
        return self._spool is not None and self._spool.size() > 0

    @property
    def runs(self) -> bool:
        """Does it send?"""
        return self._thread is not None

    @property
    def lag(self) -> float:
        """Seconds for which something has been waiting; 0 while nothing is."""
        since = self._since
        return time.monotonic() - since if since and self.backlog else 0.0

    @property
    def backlog(self) -> int:
        """Events that nobody has taken yet."""
        return len(self._queue) + len(self._outbox)

    @property
    def dropped(self) -> dict[str, int]:
        """Events that were dropped, by reason."""
        with self._counting:
            return dict(self._dropped)

    def drop(self, reason: str, count: int = 1, why: str = "") -> None:
        """Count events that will not arrive; the first of a reason is told."""
        with self._counting:
            self._dropped[reason] += count
        what = why or f"{self._address.url} takes too little"
        self._tell(reason, f"events are dropped ({reason}): {what}; further ones are only counted")

    def _tell(self, what: str, sentence: str) -> None:
        if what not in self._told:
            self._told.add(what)
            logger.warning("taskscope: %s", sentence)

    def _run(self) -> None:
        while self._goes_on:
            asked = self._asked
            try:
                self._step(time.monotonic(), bool(asked > self._answered))
            except Exception as error:  # isolation: a fault of ours must not end the thread
                logger.exception("taskscope: forwarding failed in an unexpected way; it is tried again")
                self._away(Unavailable(f"forwarding fails ({type(error).__name__}: {error})"))
            with self._answers:
                self._answered = asked
                self._answers.notify_all()
            if asked == self._asked:
                self._wake.wait(self._pause(time.monotonic()))
            self._wake.clear()
        if self._thread is None:
            self._address.close()

    @property
    def _goes_on(self) -> bool:
        """Is the thread that asks the one that sends?"""
        return self._thread is threading.current_thread()

    def _step(self, now: float, asked: bool) -> None:
        self._since = (self._since or now) if self.backlog else 0.0
        self._pack()
        if self._beat is not None and now >= self._beat_at:
            self._beat_at = now + self._beat_every
            if (
                self._beating is None
            ):  # else it is the same again: it may have been counted, and only its answer lost
                dropped = Counter(self.dropped)
                self._beating = self._beat(dict(dropped - self._heard)), dropped
            self._outbox.put(self._beating[0])
        if asked or now >= self._retry_at:
            self._send(now)
        if self.failure is not None and now >= self._saved_at + _SAVE:
            self._saved_at = now
            self._save()

    def _pause(self, now: float) -> float:
        """Seconds until there may be something to do."""
        if self.failure is None:
            return self._interval
        return max(self._interval, min(self._retry_at - now, _SAVE))

    def _pack(self) -> None:
        """Make lines of what was told."""
        with self._packing:
            for _ in range(len(self._queue)):
                try:
                    line = self._encode(self._queue.popleft())
                except BadEvent as error:
                    self.drop("bad", why=str(error))
                except Exception as error:  # noqa: BLE001 - isolation: a bad event hurts itself only
                    self.drop("bad", why=f"{type(error).__name__}: {error}")
                else:
                    if line is not None and not self._outbox.put(line):
                        self.drop("overflow")

    def _send(self, now: float) -> None:
        """Send what waits on disk, then what waits here, until nothing does or nobody takes it."""
        try:
            if self._spool is not None and now >= self._look_at:
                self._drain(self._spool)
                self._look_at = now + _LOOK
            upto, last = 0, self._outbox.last
            while (
                self._goes_on and upto <= last and (batch := self._outbox.batch(_BATCH, _LINES)) is not None
            ):
                self._post(batch.body, len(batch.lines) + len(batch.latest))
                self._outbox.done(batch)
                if self._beating is not None and self._beating[0].body in batch.latest.values():
                    self._heard, self._beating = self._beating[1], None
                self._since = now
                self._pack()
                upto = batch.upto
        except Unavailable as error:
            self._away(error)
        else:
            self._back()

    def _drain(self, spool: Spool) -> None:
        """Send what waits on disk; only that nobody takes it keeps the rest from being sent."""
        try:
            spool.drain(
                lambda body: self._post(body, body.count(b"\n") + 1),
                lambda sentence: self._tell(sentence, sentence),
            )
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001 - isolation: what has just been told is sent
            self._tell("drain", f"what waits on disk is not sent ({type(error).__name__}: {error})")

    def _post(self, body: bytes, count: int) -> None:
        """Have it taken. What will never be is dropped and counted. Raises `Unavailable`."""
        packed = len(body) > _WORTH_PACKING and not self._address.local
        sent = gzip.compress(body, 1) if packed else body
        try:
            answer = self._address.post(PATH, sent, NDJSON, "gzip" if packed else "")
        except Refused as error:
            self.drop("refused", count, str(error))
        else:
            self._read(answer)

    def _read(self, answer: bytes) -> None:
        """Tell once what was refused of a batch: it is counted by whoever refused it."""
        with suppress(ValueError, AttributeError):
            told = json.loads(answer)
            if told.get("refused"):
                what = str(told.get("errors"))[:300]
                self._tell(
                    "some",
                    f"{self._address.url} refused an event: {what}; further ones are only counted there",
                )

    def _save(self) -> bool:
        """Have the disk keep what waits; False where there is none for it, or it does not take it."""
        if self._spool is None:
            return False
        try:
            self._pack()
            while (batch := self._outbox.batch(_BATCH, _LINES, latest=False)) is not None:
                self._spool.put(batch.body)
                self._outbox.done(batch)
                self._look_at = 0.0
        except Unavailable as error:
            self._tell("spool", f"{error}; what is told waits in memory")
            return False
        return True

    def _away(self, error: Unavailable) -> None:
        now = time.monotonic()
        self._away_since = self._away_since or now
        if now - self._away_since >= _TELL:
            self._tell("away", f"{error}; what is told waits, and it is tried again")
        self.failure, self._retry_at = error, now + self._backoff.next()

    def _back(self) -> None:
        if "away" in self._told:
            self._told.discard("away")
            logger.info("taskscope: %s takes what is told again", self._address.url)
        self.failure, self._retry_at, self._away_since = None, 0.0, 0.0
        self._backoff.reset()

    def _end(self) -> None:
        """End the thread; one that waits for an answer ends with it, and does nothing more."""
        thread, self._thread = self._thread, None
        self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(0.5)


def _in_child(begin: "WeakMethod[Callable[[], None]]") -> Callable[[], None]:
    """What a forked child does; weakly, because a fork hook cannot be taken back."""

    def call() -> None:
        if method := begin():
            method()

    return call
