"""Runs that wait for the store: facts of one run made one row, bounded, and kept until they are committed."""

from collections.abc import Iterable
from itertools import islice

from taskscope.events import Fact
from taskscope.facts import Row, merge, row_of
from taskscope.identity import run_id

_REMEMBERED = 50_000  # run ids: a run's facts mostly come close together, and hashing is the dearest part of a fact


class Waiting:
    """Rows on their way to the store. Used by one thread."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rows: dict[bytes, Row] = {}
        self._ids: dict[tuple[str, str, int], bytes] = {}
        self.since = 0.0
        """When the oldest row came; 0 while nothing waits."""

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, fact: Fact, now: float) -> bool:
        """Take in a fact; False when there is no room for one more run. Raises `BadEvent`."""
        return self.add_row(row_of(fact, self._id(fact)), now)

    def add_row(self, row: Row, now: float) -> bool:
        """Take in a row; False when there is no room for one more run."""
        old = self._rows.get(row.id)
        if old is not None:
            self._rows[row.id] = merge(old, row)
            return True
        if len(self._rows) >= self._limit:
            return False
        self._rows[row.id] = row
        self.since = self.since or now
        return True

    def batch(self, size: int) -> list[Row]:
        """The rows that came first, ascending by id. They stay until they are `done`."""
        return sorted(islice(self._rows.values(), size), key=_by_id)

    def done(self, rows: Iterable[Row], now: float) -> None:
        """Forget rows that are committed."""
        for row in rows:
            self._rows.pop(row.id, None)
        self.since = now if self._rows else 0.0

    def _id(self, fact: Fact) -> bytes:
        key = (fact.scheduler, fact.native, fact.attempt)
        run = self._ids.get(key)
        if run is None:
            if len(self._ids) >= _REMEMBERED:
                self._ids.clear()
            anchor = fact.at if fact.anchor is None else fact.anchor
            run = self._ids[key] = run_id(*key, anchor_ms=round(anchor * 1000))
        return run


def _by_id(row: Row) -> bytes:
    return row.id
