"""What happened in an hour or a day, small enough to keep for years, and percentiles from it."""

import operator
from collections import defaultdict
from collections.abc import Iterable
from math import ceil, exp, log

import msgspec

from taskscope.events import JobKey, Status
from taskscope.facts import BIT_OF, RANK, RANKED, Bit, Change, Row
from taskscope.identity import anchor_ms, first_id

_HOUR = 3_600_000  # ms
_GROWTH = log(1.05 / 0.95)  # from one bucket to the next; the middle is within 5 % of everything in a bucket


class Rollup(msgspec.Struct, array_like=True):
    """Runs by their present status, and how long they took. Addition is the only change."""

    ranks: list[int] = msgspec.field(default_factory=lambda: [0] * len(RANKED))
    """Runs by status, in the order of `facts.RANKED`; the share of one replica may be negative."""
    durations: int = 0
    """How many durations were observed; `sum` and `max` are of these, in µs."""
    sum: int = 0
    max: int = 0
    sketch: dict[int, int] = msgspec.field(default_factory=lambda: defaultdict(int))
    """Durations by logarithmic bucket (`bucket_of`); of a decoded rollup a plain dict: it is added, not added to."""

    @property
    def statuses(self) -> dict[Status, int]:
        """How many runs have which status; none of them negative or zero."""
        return {status: count for status, count in zip(RANKED, self.ranks, strict=True) if count > 0}

    def observe(self, duration: int) -> None:
        """Take in a duration in µs."""
        self.durations += 1
        self.sum += duration
        self.max = max(self.max, duration)
        self.sketch[bucket_of(duration)] += 1

    def add(self, other: "Rollup") -> None:
        """Take in another hour, replica or job."""
        self.ranks = list(map(operator.add, self.ranks, other.ranks))
        self.durations += other.durations
        self.sum += other.sum
        self.max = max(self.max, other.max)
        sketch = self.sketch
        for bucket, count in other.sketch.items():
            sketch[bucket] += count

    def percentile(self, percent: float) -> float | None:
        """The duration in µs that `percent` % of the runs did not exceed, within 5 %; None without any."""
        wanted = max(1, ceil(self.durations * percent / 100))
        for bucket in sorted(self.sketch):
            wanted -= self.sketch[bucket]
            if wanted <= 0:
                return self.duration_of(bucket)
        return None

    def duration_of(self, bucket: int) -> float:
        """A duration in µs within 5 % of all that are in the bucket; none took longer than the longest."""
        return min(exp((bucket - 1) * _GROWTH) * 0.95, float(self.max)) if bucket else 0.0


def bucket_of(duration: int) -> int:
    """The bucket of a duration in µs; 0 holds everything below 1 µs."""
    return ceil(log(duration) / _GROWTH) + 1 if duration > 0 else 0


Place = tuple[int, int, JobKey]
"""(hours it spans: 1 or 24, its begin in hours since the epoch, job)"""


def fold_rollups(changes: Iterable[Change]) -> dict[Place, Rollup]:
    """What these changes add to the rollups: every named run counts once, under its present status."""
    deltas: dict[Place, Rollup] = {}
    jobs: dict[JobKey, Rollup] = {}  # those of one hour, which mostly is that of all
    hour, begin, end = 0, b"", b""
    for change in changes:
        row = change.row
        if row.facts & _NAMED:
            if not begin <= row.id < end:
                hour, jobs = anchor_ms(row.id) // _HOUR, {}
                begin, end = first_id(hour * _HOUR), first_id((hour + 1) * _HOUR)
            key = (row.scheduler, row.job)
            delta = jobs.get(key)
            if delta is None:
                delta = jobs[key] = deltas.setdefault((1, hour, key), Rollup())
            _count(delta, row, change.added)
    return deltas | _days(deltas)


def _count(delta: Rollup, row: Row, added: int) -> None:
    delta.ranks[row.rank] += 1
    before = row.facts & ~added
    if before & _NAMED:
        delta.ranks[rank_of(before)] -= 1
    if row.facts & _HAS_DURATION and added & (_HAS_DURATION | _NAMED):
        delta.observe(row.duration)


def _days(hours: dict[Place, Rollup]) -> dict[Place, Rollup]:
    days: dict[Place, Rollup] = {}
    for (_, at, job), delta in hours.items():
        days.setdefault((24, at - at % 24, job), Rollup()).add(delta)
    return days


def rank_of(facts: int) -> int:
    """The place in `facts.RANKED` of the status that these facts make."""
    return max(rank for bit, rank in _RANK_OF_BIT if facts & bit)


_NAMED, _HAS_DURATION = Bit.NAMED, Bit.HAS_DURATION
_RANK_OF_BIT = [(bit, RANK[status]) for status, bit in BIT_OF.items()]
decode = msgspec.msgpack.Decoder(Rollup).decode
"""The rollup that was packed into these bytes."""
