"""Where events come in: a bounded queue that never keeps anybody waiting, and the door behind it."""

import logging
import threading
from collections import deque

from taskscope.admission import Admission, Surplus
from taskscope.contracts import Told, made
from taskscope.errors import BadEvent
from taskscope.events import Event

logger = logging.getLogger("taskscope")


class Inlet:
    """Takes events from any thread and hands them to one, admitted and in order; counts what it had to drop."""

    def __init__(self, limit: int, admission: Admission) -> None:
        self._queue: deque[Told] = deque()
        self._limit, self._admission = limit, admission
        self._lock = threading.Lock()
        self._dropped: dict[str, int] = {}
        self._warned = False
        self.accepting = True
        """False while this process is not the owner of its history: events are dropped and counted."""

    def __len__(self) -> int:
        return len(self._queue)

    def emit(self, event: Told) -> None:
        """Take one event. Never blocks, never raises, never grows beyond its bound."""
        if not self.accepting:
            self.drop("member")
        elif len(self._queue) < self._limit:
            self._queue.append(event)
        else:
            self.drop("overflow")

    def take(self, most: int, now: float) -> tuple[int, list[Event]]:
        """How many events were taken from the queue, at most `most`, and those of them that are admitted."""
        count, admit = min(len(self._queue), most), self._admission.admit
        admitted = []
        for _ in range(count):
            told = self._queue.popleft()
            try:
                event = made(told)
                event = admit(event, now) if event is not None else None
            except Surplus:
                self.drop("surplus")
            except BadEvent as error:
                self.refuse(str(error))
            except Exception as error:  # noqa: BLE001 - isolation: an event that cannot be made hurts itself only
                self.refuse(f"{type(error).__name__}: {error}")
            else:
                if event is not None:
                    admitted.append(event)
        return count, admitted

    def drop(self, reason: str, count: int = 1) -> None:
        """Count events that are counted nowhere else."""
        with self._lock:
            self._dropped[reason] = self._dropped.get(reason, 0) + count

    def refuse(self, why: str) -> None:
        """Drop an event that cannot be true; the first one is told."""
        self.drop("bad")
        if not self._warned:
            self._warned = True
            logger.warning("taskscope refused an event: %s (further ones are only counted)", why)

    @property
    def dropped(self) -> dict[str, int]:
        """Events that were dropped, by reason."""
        with self._lock:
            return dict(self._dropped)

    def abandon(self) -> None:
        """In a forked child: what waits belongs to the parent, and a lock may be held by a thread that is not here."""
        self.accepting = False
        self._queue, self._lock = deque(), threading.Lock()
