"""What has been counted of a job: the numbers behind its counters and histograms, added up exactly."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from zlib import crc32

import msgspec

from taskscope.events import JobKey, Status
from taskscope.facts import DELAY, DURATION, WAIT, Bit, Change, Row, fresh

OTHER = "_other"
"""Where names beyond a budget are counted together."""


_NONE: Mapping[JobKey, Mapping[str, int]] = {}


class Histogram(msgspec.Struct, kw_only=True, array_like=True):
    """Observations by bucket; not cumulative. `buckets` has one more entry than there are bounds (+Inf)."""

    buckets: list[int]
    sum: float = 0.0
    bounds: int = 0
    """Checksum of the bounds; 0 where they are not known, as in what older versions stored."""

    @property
    def count(self) -> int:
        """How many observations."""
        return sum(self.buckets)

    def plus(self, other: "Histogram") -> "Histogram":
        """Both together."""
        return Histogram(
            buckets=[a + b for a, b in zip(self.buckets, other.buckets, strict=True)],
            sum=self.sum + other.sum,
            bounds=other.bounds or self.bounds,
        )

    def matches(self, other: "Histogram") -> bool:
        """Have both the same bounds, as far as is known?"""
        known = self.bounds and other.bounds
        return len(self.buckets) == len(other.buckets) and (not known or self.bounds == other.bounds)


class Counts(msgspec.Struct, kw_only=True):
    """All that has been counted of a job. Addition is the only change, so totals and deltas are the same type."""

    statuses: dict[str, int] = {}
    reasons: dict[str, int] = {}
    exceptions: dict[str, int] = {}
    triggers: dict[str, int] = {}
    errors: dict[str, int] = {}
    """Error groups that are `new`, exceptions that were `captured`."""
    histograms: dict[str, Histogram] = {}
    """By name: `duration`, `wait`, `delay`; absent before its first observation."""

    def plus(self, other: "Counts", limit: int = 20) -> "Counts":
        """Both together; of reasons and exceptions beyond `limit` names, new ones are counted as `_other`."""
        return Counts(
            statuses=_sum(self.statuses, other.statuses),
            reasons=_sum(self.reasons, other.reasons, limit),
            exceptions=_sum(self.exceptions, other.exceptions, limit),
            triggers=_sum(self.triggers, other.triggers),
            errors=_sum(self.errors, other.errors),
            histograms=_histograms(self.histograms, other.histograms),
        )


class Exemplar(msgspec.Struct, frozen=True, gc=False):
    """One observation that a histogram bucket points to."""

    run: bytes
    trace_id: str
    value: float
    at: float


class Delta(msgspec.Struct):
    """What one batch adds."""

    counts: dict[JobKey, Counts] = {}
    exemplars: dict[tuple[JobKey, str, int], Exemplar] = {}
    """(job, histogram name, bucket index) to its latest observation."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """Upper bounds of the histogram buckets, in seconds, ascending, without +Inf."""

    duration: tuple[float, ...] = (0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200, 21600, 86400)
    wait: tuple[float, ...] = (0.1, 0.5, 1, 5, 30, 300, 1800, 7200)
    delay: tuple[float, ...] = (0.1, 0.5, 1, 5, 30, 300, 1800, 7200)


def fold(
    changes: Iterable[Change],
    bounds: Bounds,
    label: Callable[[JobKey], JobKey] = lambda key: key,
    errors: Mapping[JobKey, Mapping[str, int]] = _NONE,
) -> Delta:
    """What these changes, and `errors` of these jobs, add to the counters.

    Pure; `label` says under which name a job is counted.
    """
    tallies: dict[JobKey, _Tally] = {}
    of_job: dict[JobKey, _Tally] = {}
    for change in changes:
        row = change.row
        if bits := fresh(row.facts, change.added):
            job = (row.scheduler, row.job)
            tally = of_job.get(job)
            if tally is None:
                tally = of_job[job] = tallies.setdefault(label(job), _Tally(bounds))
            tally.take(bits, row)
    for job, found in errors.items():
        tallies.setdefault(label(job), _Tally(bounds)).errors(found)
    exemplars = {(key, *place): it for key, tally in tallies.items() for place, it in tally.exemplars()}
    return Delta(counts={key: tally.counts() for key, tally in tallies.items()}, exemplars=exemplars)


class _Tally:
    """What the changes of one job add up to."""

    def __init__(self, bounds: Bounds) -> None:
        self._alike: dict[tuple[int, int, str, str], int] = {}
        """Runs by fresh bits, facts, reason and exception: of thousands there are few kinds."""
        self._errors: dict[str, int] = {}
        self._duration = _Observed("duration", bounds.duration)
        self._wait = _Observed("wait", bounds.wait)
        self._delay = _Observed("delay", bounds.delay)

    def take(self, bits: int, row: Row) -> None:
        """Count what became observable of a run."""
        kind = (bits, row.facts, row.reason, row.exception)
        self._alike[kind] = self._alike.get(kind, 0) + 1
        if bits & DURATION:
            self._duration.observe(row.duration / 1e6, row)
        if bits & WAIT:
            self._wait.observe(max(0, row.started - row.enqueued) / 1e3, row)
        if bits & DELAY:
            self._delay.observe(max(0, row.started - row.due) / 1e3, row)

    def errors(self, found: Mapping[str, int]) -> None:
        """Count errors."""
        self._errors = _sum(self._errors, dict(found))

    def counts(self) -> Counts:
        """The sum."""
        counts = Counts(errors=self._errors)
        for kind, runs in self._alike.items():
            _count(counts, runs, *kind)
        observed = (self._duration, self._wait, self._delay)
        counts.histograms = {one.name: one.histogram for one in observed if one.latest}
        return counts

    def exemplars(self) -> Iterator[tuple[tuple[str, int], Exemplar]]:
        """(histogram, bucket) and the latest observation in it."""
        for one in (self._duration, self._wait, self._delay):
            for bucket, (value, row) in one.latest.items():
                at = (row.ended or row.started) / 1e3
                yield (one.name, bucket), Exemplar(row.id, row.trace_id, value, at)


class _Observed:
    """The observations of one histogram."""

    __slots__ = ("_bounds", "_buckets", "_sum", "latest", "name")

    def __init__(self, name: str, bounds: tuple[float, ...]) -> None:
        self.name, self._bounds = name, bounds
        self._buckets, self._sum = [0] * (len(bounds) + 1), 0.0
        self.latest: dict[int, tuple[float, Row]] = {}

    def observe(self, value: float, row: Row) -> None:
        """Take in one."""
        bucket = bisect_left(self._bounds, value)
        self._buckets[bucket] += 1
        self._sum += value
        self.latest[bucket] = (value, row)

    @property
    def histogram(self) -> Histogram:
        """All of them."""
        return Histogram(buckets=self._buckets, sum=self._sum, bounds=checksum(self._bounds))


@lru_cache(maxsize=16)
def checksum(bounds: tuple[float, ...]) -> int:
    """A small number above 0 that is another one for other bounds."""
    return crc32(repr(tuple(map(float, bounds))).encode()) or 1


def _count(counts: Counts, runs: int, bits: int, facts: int, reason: str, exception: str) -> None:
    """Add so many runs of one kind."""
    for bit, status in _COUNTED:
        if bits & bit:
            _add(counts.statuses, status, runs)
    if bits & Bit.SKIPPED:
        _add(counts.reasons, reason or "unknown", runs)
        if heard := _HEARD.get(reason):
            _add(counts.triggers, heard, runs)
    if bits & Bit.FAILED:
        _add(counts.exceptions, exception or reason or "unknown", runs)
    if bits & Bit.STARTED:
        _add(counts.triggers, "fired", runs)
    if bits & _COMPLETED and not facts & ~bits & _COMPLETED:  # once, were there two endings
        _add(counts.triggers, "completed", runs)


def _add(counts: dict[str, int], name: str, runs: int) -> None:
    counts[name] = counts.get(name, 0) + runs


def _sum(a: dict[str, int], b: dict[str, int], limit: int | None = None) -> dict[str, int]:
    total = dict(a)
    for name, count in b.items():
        if limit is not None and name not in total and len(total) >= limit:
            name = OTHER
        total[name] = total.get(name, 0) + count
    return total


def _histograms(a: dict[str, Histogram], b: dict[str, Histogram]) -> dict[str, Histogram]:
    """Both together; where the bounds were changed the newer, `b`, begins again."""
    total = dict(a)
    for name, new in b.items():
        old = total.get(name)
        total[name] = old.plus(new) if old and old.matches(new) else new
    return total


_COUNTED: tuple[tuple[int, Status], ...] = (
    (Bit.SUCCESS, "success"),
    (Bit.FAILED, "failed"),
    (Bit.RETRIED, "retried"),
    (Bit.SKIPPED, "skipped"),
    (Bit.LOST, "unknown"),
)
_COMPLETED = Bit.SUCCESS | Bit.FAILED | Bit.RETRIED
_HEARD = {"misfire": "misfired", "vetoed": "vetoed"}
"""What a Quartz-like trigger listener hears of runs that are skipped for this reason."""


class JobState(msgspec.Struct, kw_only=True):
    """Memories and promises of a job, which outlive restarts. Seconds since the epoch; 0 = never."""

    first_seen: float = 0.0
    last_run: float = 0.0
    last_success: float = 0.0
    last_failure: float = 0.0
    last_duration: float = 0.0
    consecutive_failures: int = 0
    next_run: float = 0.0
    interval: float = 0.0
    paused: bool = False
    removed: float = 0.0
    """When the scheduler no longer knew it; 0 while it does."""
