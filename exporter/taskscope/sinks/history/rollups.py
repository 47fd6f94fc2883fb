"""What happened in an hour or a day, small enough to keep for years, and percentiles from it."""

from math import ceil, exp, log

import msgspec

from taskscope.events import Status
from taskscope.facts import RANKED

_GROWTH = log(1.05 / 0.95)  # from one bucket to the next; the middle is within 5 % of everything in a bucket


class Rollup(msgspec.Struct, array_like=True):
    """Runs by their present status, and how long they took. Addition is the only change."""

    ranks: list[int] = msgspec.field(default_factory=lambda: [0] * len(RANKED))
    """Runs by status, in the order of `facts.RANKED`; the share of one replica may be negative."""
    durations: int = 0
    """How many durations were observed; `sum` and `max` are of these, in µs."""
    sum: int = 0
    max: int = 0
    sketch: dict[int, int] = {}
    """Durations by logarithmic bucket (`bucket_of`)."""

    @property
    def statuses(self) -> dict[Status, int]:
        """How many runs have which status; none of them negative or zero."""
        return {status: count for status, count in zip(RANKED, self.ranks, strict=True) if count > 0}

    def observe(self, duration: int) -> None:
        """Take in a duration in µs."""
        self.durations += 1
        self.sum += duration
        self.max = max(self.max, duration)
        bucket = bucket_of(duration)
        self.sketch[bucket] = self.sketch.get(bucket, 0) + 1

    def add(self, other: "Rollup") -> None:
        """Take in another hour, replica or job."""
        self.ranks = [a + b for a, b in zip(self.ranks, other.ranks, strict=True)]
        self.durations += other.durations
        self.sum += other.sum
        self.max = max(self.max, other.max)
        sketch = self.sketch
        for bucket, count in other.sketch.items():
            sketch[bucket] = sketch.get(bucket, 0) + count

    def percentile(self, percent: float) -> float | None:
        """The duration in µs that `percent` % of the runs did not exceed, within 5 %; None without any."""
        wanted = max(1, ceil(self.durations * percent / 100))
        for bucket in sorted(self.sketch):
            wanted -= self.sketch[bucket]
            if wanted <= 0:
                return min(duration_of(bucket), float(self.max))
        return None


def bucket_of(duration: int) -> int:
    """The bucket of a duration in µs; 0 holds everything below 1 µs."""
    return ceil(log(duration) / _GROWTH) + 1 if duration > 0 else 0


def duration_of(bucket: int) -> float:
    """A duration in µs within 5 % of all that are in the bucket."""
    return exp((bucket - 1) * _GROWTH) * 0.95 if bucket else 0.0


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Rollup).decode
