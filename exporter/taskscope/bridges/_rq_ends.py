"""Finds the jobs that ended since the last look, in registries that hold up to a year of them.

A member's score says when it goes: its end plus a time to live, of which there are few different ones. So it is read
while it is young, by the times to live that were seen so far. Whatever its own is, it is also read before it goes, and
when its page comes: every now and then a page of the registry is read, and in turn all of it.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from msgspec import Struct

from taskscope.bridges._rq_layout import STOPPED, failure_text, is_abandoned, number, reason_of, text, whole
from taskscope.bridges._rq_survey import Batch
from taskscope.events import Status

TTLS = {"finished": 500, "failed": 365 * 86_400}
"""What RQ takes where nobody says how long a job is kept."""
SLACK = 10.0  # seconds by which clocks of workers may differ from that of Redis
DEEP = 20.0  # seconds between looks at what does not show while it is young
LAST_CHANCE = 60.0  # seconds before it goes in which a member is looked at in any case
PAGE, PAGES = 1_000, 20  # members of an answer, and answers of one registry in one look
_KINDS = 8  # times to live of one registry that are remembered
_ALL = ("-inf", "+inf")
_REMEMBERED = 100_000
_LONGEST = 2**40  # seconds; what stays for longer stays for ever

_STATUSES: dict[int, Status] = {1: "success", 2: "failed", 3: "failed", 4: "retried", 5: "failed"}
_MAX_RETRIES_EXCEEDED, _STOPPED = 5, 3


class Told:
    """What was told lately, within bounds: it would do no harm to tell it again, but cost time."""

    def __init__(self, most: int = _REMEMBERED) -> None:
        self._most = most
        self._now: set[int] = set()
        self._before: set[int] = set()

    def is_new(self, *what: object) -> bool:
        """Was this not told? From now on it was."""
        key = hash(what)
        if key in self._now or key in self._before:
            return False
        self._now.add(key)
        if len(self._now) > self._most // 2:
            self._now, self._before = set(), self._now
        return True


class Ended(Struct, frozen=True, gc=False):
    """A member of a registry that was not seen before."""

    registry: "Registry"
    job: str
    score: float


class Registry:
    """The jobs of one queue that ended one way."""

    def __init__(self, kind: str, key: str) -> None:
        self.key = key
        self._ttls = [TTLS[kind]]
        self._since = self._deep = 0.0
        self._offset = 0

    def ask(self, batch: Batch, at: float, horizon: float, take: Callable[["Window", Any], None]) -> None:
        """Ask for the members that ended since the last look, but not before `horizon`."""
        since = max(self._since, horizon)
        windows = [(since + ttl - SLACK, at + ttl + SLACK, 0) for ttl in self._ttls]
        if at - self._deep >= DEEP:
            self._deep = at
            windows += self._depths(at)
        for low, high, offset in windows:
            Window(self, low, high, offset).ask(batch, take)

    def _depths(self, at: float) -> Iterator[tuple[Any, Any, int]]:
        """What goes soon, and a page of all: the next one each time."""
        yield at, at + LAST_CHANCE, 0
        yield *_ALL, self._offset
        self._offset += PAGE

    def looked(self, at: float) -> None:
        """All that the last question was for has been read."""
        self._since = at

    def begin_again(self) -> None:
        """The last page of all was read."""
        self._offset = 0

    def learn(self, score: float, ended: float) -> None:
        """A member that ended then goes at `score`."""
        ttl = int(min(score - ended, _LONGEST))
        if 0 < ttl < _LONGEST and all(not -SLACK / 2 <= ttl - known <= SLACK / 2 for known in self._ttls):
            self._ttls = [*self._ttls[-_KINDS + 1 :], ttl]


class Window(Struct, frozen=True):
    """Members of a registry with scores from `low` to `high`, read page by page."""

    registry: Registry
    low: Any
    high: Any
    offset: int
    pages: int = 1

    def ask(self, batch: Batch, take: Callable[["Window", Any], None]) -> None:
        """Ask for the page."""
        batch.ask(
            lambda found: take(self, found),
            "zrangebyscore",
            self.registry.key,
            self.low,
            self.high,
            start=self.offset,
            num=PAGE,
            withscores=True,
        )

    @property
    def is_of_all(self) -> bool:
        """Is it a page of all members? Of these a look reads one alone."""
        return (self.low, self.high) == _ALL

    def next(self) -> "Window":
        """The page after it."""
        return Window(self.registry, self.low, self.high, self.offset + PAGE, self.pages + 1)


class Ends:
    """The registries of all queues."""

    def __init__(self) -> None:
        self.told = Told()
        self._registries: dict[tuple[str, str], Registry] = {}
        self._fresh: list[Ended] = []
        self._full: list[Window] = []
        self._complete: list[Registry] = []

    def ask(self, batch: Batch, keys: Iterable[tuple[str, str, str]], at: float, horizon: float) -> None:
        """Ask all registries, given as (kind, queue, key); forgets those of queues that are gone."""
        registries = {}
        for kind, queue, key in keys:
            registry = self._registries.get((kind, queue)) or Registry(kind, key)
            registries[kind, queue] = registry
            registry.ask(batch, at, horizon, self._take)
        self._registries = registries

    def fresh(self, batch: Batch) -> list[Ended]:
        """The members that were not seen before, after the first answers came; `batch` serves for further pages."""
        behind: set[int] = set()
        while self._full:
            windows, self._full = self._full, []
            for window in windows:
                if window.pages < PAGES:
                    window.next().ask(batch, self._take)
                else:
                    behind.add(id(window.registry))
            batch.go()
        self._complete = [one for one in self._registries.values() if id(one) not in behind]
        fresh, self._fresh = self._fresh, []
        return fresh

    def done(self, at: float) -> None:
        """Everything that was asked for at this moment has been told."""
        for registry in self._complete:
            registry.looked(at)

    def again(self) -> None:
        """Something went wrong on the way: what was found is found once more."""
        self.told = Told()
        self._fresh, self._full, self._complete = [], [], []

    def _take(self, window: Window, found: Any) -> None:
        for member, score in found:
            if self.told.is_new(window.registry.key, member, float(score)):
                self._fresh.append(Ended(window.registry, text(member), float(score)))
        if window.is_of_all:
            if len(found) < PAGE:
                window.registry.begin_again()
        elif len(found) >= PAGE:
            self._full.append(window)


class Entry(Struct, frozen=True, gc=False):
    """How one attempt ended, as the stream of its job's results says."""

    id: str
    kind: int
    execution: str
    started: float | None
    ended: float
    worker: str
    why: str

    @property
    def status(self) -> Status:
        """Its status."""
        return _STATUSES.get(self.kind, "unknown")

    @property
    def reason(self) -> str:
        """Why, where it did not succeed."""
        if self.kind in (1, 4):
            return ""
        if self.kind == _MAX_RETRIES_EXCEEDED:
            return "error"
        return reason_of(self.why or (STOPPED if self.kind == _STOPPED else ""))

    @property
    def is_verdict(self) -> bool:
        """Is it about an attempt of which nobody knew the end?"""
        return not self.execution and is_abandoned(self.why)


def entry_of(entry_id: Any, values: Any) -> Entry:
    """What an entry says; its return value, which is a pickle, is left alone."""
    said = {text(name): value for name, value in values.items()}
    name = text(entry_id)
    return Entry(
        name,
        whole(said.get("type")) or 0,
        text(said.get("execution_id")),
        number(said.get("execution_started_at")),
        number(said.get("execution_ended_at")) or int(name.partition("-")[0]) / 1000,
        text(said.get("worker_name")),
        failure_text(said.get("exc_string")),
    )
