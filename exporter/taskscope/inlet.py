"""Where events come in: a bounded queue that never keeps anybody waiting, and the door behind it.

As long as another process owns the history they are handed on to that one.
"""

import logging
import threading
from collections import Counter, OrderedDict, deque

from taskscope.admission import Admission, Surplus
from taskscope.contracts import Emit, Told, made
from taskscope.errors import BadEvent, NotOwner, TaskscopeError
from taskscope.events import Event, Heartbeat
from taskscope.forwarding import Forwarding
from taskscope.settings import Settings

logger = logging.getLogger("taskscope")

_HEARD = 10_000  # processes of which is remembered what they told


class Inlet:
    """Takes events from any thread and hands them to one, admitted and in order; counts what it had to drop."""

    def __init__(self, limit: int, admission: Admission, relay: Forwarding | None = None) -> None:
        """At most `limit` events wait; `relay` leads to the process that owns the history."""
        self._relay = relay
        self._queue: deque[Told] = deque()
        self._limit, self.admission = limit, admission
        self._lock = threading.Lock()
        self._dropped: dict[str, int] = {}
        self._heard: OrderedDict[str, float] = OrderedDict()
        """By process, when it last told what it dropped."""
        self._warned = False
        self._elsewhere: Emit | None = None
        self._why: NotOwner | None = None

    @property
    def here(self) -> int:
        """Events that wait for this process."""
        return len(self._queue)

    @property
    def backlog(self) -> int:
        """Events that wait, also for another process to take them."""
        return self.here + (self._relay.backlog if self._relay else 0)

    def adopt(self, settings: Settings) -> None:
        """Admit by these settings, here and what is handed on."""
        self.admission = Admission(settings)
        if self._relay is not None:
            self._relay.adopt(settings)

    def emit(self, event: Told) -> None:
        """Take one event. Never blocks, never raises, never grows beyond its bound."""
        if self._elsewhere is not None:
            self._elsewhere(event)
        elif len(self._queue) < self._limit:
            self._queue.append(event)
        else:
            self.drop("overflow")

    @property
    def lag(self) -> float:
        """Seconds for which something has waited for another process to take it."""
        return self._relay.lag if self._relay else 0.0

    def hand_on(self, why: NotOwner) -> bool:
        """Another process owns the history: what waits, and what comes, goes there; False: it is lost, and counted."""
        if self._elsewhere is None and self._relay is not None:
            logger.info("taskscope: %s, which takes what happens here", _owned(why))
        self._elsewhere, self._why = self._relay.emit if self._relay else lambda _: self.drop("member"), why
        self._pass_on(self._elsewhere)
        return self._relay is not None

    def _pass_on(self, elsewhere: Emit) -> None:
        for _ in range(len(self._queue)):
            elsewhere(self._queue.popleft())

    def take_back(self, again: bool = True) -> None:
        """The history is ours, perhaps again: what comes stays here, and so does what nobody has taken."""
        self._elsewhere = self._why = None
        if self._relay is not None and (self._relay.used if again else self._relay.backlog):
            for event in self._relay.withdraw():
                self.emit(event)

    def drain(self) -> None:
        """What others left on disk when nobody owned the history comes in by the way of all others."""
        if self._relay is not None and self._elsewhere is None:
            self._relay.drain()

    @property
    def trouble(self) -> TaskscopeError | None:
        """Why what happens here is not taken elsewhere."""
        if self._why is None or self._relay is None:
            return self._why
        return self._relay.failure and NotOwner(f"{_owned(self._why)}, and {self._relay.failure}")

    @property
    def way(self) -> Forwarding | None:
        """By which events are handed on; None while they are not."""
        return self._relay if self._elsewhere is not None else None

    def take(self, most: int, now: float) -> tuple[int, list[Event]]:
        """How many events were taken from the queue, at most `most`, and those of them that are admitted."""
        if self._elsewhere is not None:  # what somebody was about to tell when the history became another's
            self._pass_on(self._elsewhere)
        count, admit = min(len(self._queue), most), self.admission.admit
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

    def hear(self, beat: Heartbeat) -> None:
        """Count what another process dropped: once, also where it tells it again, perhaps late, as an answer was lost.

        Told again to another replica, or after a restart of ours, it counts again.
        """
        last = self._heard.pop(beat.instance, -1.0)
        if beat.at > last:
            for reason, count in beat.dropped.items():
                self.drop(reason, count)
        self._heard[beat.instance] = max(beat.at, last)
        if len(self._heard) > _HEARD:
            self._heard.popitem(last=False)

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
            dropped = Counter(self._dropped)
        return dict(dropped + Counter(self._relay.dropped) if self._relay else dropped)

    def close(self) -> None:
        """The last call: what waits is lost, or comes from elsewhere another time."""
        if self._relay is not None and self._relay.used:
            self._relay.withdraw()

    def abandon(self) -> None:
        """In a forked child: what waits belongs to the parent, and a lock may be held by a thread that is not here."""
        self._queue, self._lock = deque(), threading.Lock()
        self._elsewhere = lambda _: None


def _owned(why: NotOwner) -> str:
    """Whose a history is, without what one could do about it."""
    return str(why).partition(";")[0]
