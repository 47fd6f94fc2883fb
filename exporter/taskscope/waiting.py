"""Runs that wait for the store: facts of one run made one row, bounded, and kept until they are committed."""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from operator import attrgetter
from typing import TypeAlias

from msgspec.structs import replace

from taskscope.events import Error, Event, Fact
from taskscope.facts import Detail, Row, merge, row_of
from taskscope.identity import run_id

RunKey: TypeAlias = tuple[str, str, int]
"""(scheduler, native id, attempt)"""

_TOLD_OFTEN = 64  # facts of one run that are kept apart; more are merged at once
_TEXT = (
    64 * 2**20
)  # characters of stacks and messages that may wait; beyond that errors keep only their class


class Waiting:
    """Facts and rows on their way to the store. Used by one thread; `refuse` hears of which run a fact cannot be."""

    def __init__(self, limit: int, refuse: Callable[[bytes, str], None]) -> None:
        self._limit, self._refuse = limit, refuse
        self._facts: dict[RunKey, tuple[Fact, ...]] = {}
        """Tuples, which Python's collector soon passes by: for as many lists it looks through the whole program."""
        self._rows: dict[bytes, Row] = {}
        self._text = 0
        self.since = 0.0
        """When the oldest of them came; 0 while nothing waits."""

    def __len__(self) -> int:
        return len(self._facts) + len(self._rows)

    def add(self, fact: Fact, now: float) -> bool:
        """Take in a fact; False when there is no room for one more run."""
        if fact.error is not None or fact.captured is not None:
            fact = self._weighed(fact)
        key = (fact.scheduler, fact.native, fact.attempt)
        facts = self._facts.get(key, ())
        if not facts and not self._room(now):
            return False
        self._facts[key] = (*facts, fact)
        if len(facts) >= _TOLD_OFTEN:
            self._merge(key)
        return True

    def add_row(self, row: Row, now: float) -> bool:
        """Take in a row; False when there is no room for one more run."""
        if row.id not in self._rows and not self._room(now):
            return False
        self._put(row)
        return True

    def batch(self, size: int) -> list[Row]:
        """The rows that came first, ascending by id. They stay until they are `done`."""
        for key in list(islice(self._facts, max(0, size - len(self._rows)))):
            self._merge(key)
        return sorted(islice(self._rows.values(), size), key=attrgetter("id"))

    def done(self, rows: Iterable[Row], now: float) -> None:
        """Forget rows that are committed."""
        for row in rows:
            del self._rows[row.id]
            if row.detail is not None:
                self._text -= _weight(row.detail) + sum(_weight(one.error) for one in row.detail.captured)
        self.since = now if len(self) else 0.0
        if not len(self):
            self._text = 0

    def _weighed(self, fact: Fact) -> Fact:
        """The fact, without the texts of its errors where too many wait already."""
        error, captured = fact.error, fact.captured
        weight = (_weight(error) if error else 0) + (_weight(captured.error) if captured else 0)
        if self._text + weight <= _TEXT:
            self._text += weight
            return fact
        return replace(
            fact,
            error=error and Error(kind=error.kind),
            captured=captured and replace(captured, error=Error(kind=captured.error.kind)),
        )

    def _room(self, now: float) -> bool:
        self.since = self.since or now
        return len(self) < self._limit

    def _merge(self, key: RunKey) -> None:
        """Make the facts of a run one row."""
        facts = self._facts.pop(key)
        anchor = facts[0].at if facts[0].anchor is None else facts[0].anchor
        run = run_id(*key, anchor_ms=round(anchor * 1000))
        try:
            row = row_of(facts[0], run)
            for fact in facts[1:]:
                row = merge(row, row_of(fact, run))
            self._put(row)
        except Exception:  # noqa: BLE001 - whatever is wrong with one fact, the others go on
            self._merge_good(facts, run)

    def _merge_good(self, facts: Iterable[Fact], run: bytes) -> None:
        """One of them is bad: it alone is refused."""
        for fact in facts:
            try:
                self._put(row_of(fact, run))
            except Exception as error:  # noqa: BLE001
                self._refuse(run, f"{fact.job or fact.native}: {error}")

    def _put(self, row: Row) -> None:
        old = self._rows.get(row.id)
        self._rows[row.id] = row if old is None else merge(old, row)


def rows_of(events: Sequence[Event], now: float, refuse: Callable[[bytes, str], None]) -> list[Row]:
    """The rows that these events make, one for each run, ascending by id; they need not wait."""
    waiting = Waiting(len(events) + 1, refuse)
    for event in events:
        if isinstance(event, Fact):
            waiting.add(event, now)
    return waiting.batch(len(events))


def _weight(told: Error | Detail) -> int:
    return len(told.stack) + len(told.message)
