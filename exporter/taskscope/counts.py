"""What has been counted of a job: the numbers behind its counters and histograms, added up exactly."""

from bisect import bisect_left
from collections.abc import Callable, Iterable

import msgspec

from taskscope.events import JobKey, Status
from taskscope.facts import DELAY, DURATION, WAIT, Bit, Change, Row, fresh

OTHER = "_other"
"""Where names beyond a budget are counted together."""


class Histogram(msgspec.Struct, kw_only=True, array_like=True):
    """Observations by bucket; not cumulative. `buckets` has one more entry than there are bounds (+Inf)."""

    buckets: list[int]
    sum: float = 0.0

    @property
    def count(self) -> int:
        """How many observations."""
        return sum(self.buckets)

    def plus(self, other: "Histogram") -> "Histogram":
        """Both together."""
        return Histogram(
            buckets=[a + b for a, b in zip(self.buckets, other.buckets, strict=True)], sum=self.sum + other.sum
        )


class Counts(msgspec.Struct, kw_only=True):
    """All that has been counted of a job. Addition is the only change, so totals and deltas are the same type."""

    statuses: dict[str, int] = {}
    reasons: dict[str, int] = {}
    exceptions: dict[str, int] = {}
    triggers: dict[str, int] = {}
    histograms: dict[str, Histogram] = {}
    """By name: `duration`, `wait`, `delay`; absent before its first observation."""

    def plus(self, other: "Counts", limit: int = 20) -> "Counts":
        """Both together; of reasons and exceptions beyond `limit` names, new ones are counted as `_other`."""
        return Counts(
            statuses=_sum(self.statuses, other.statuses),
            reasons=_sum(self.reasons, other.reasons, limit),
            exceptions=_sum(self.exceptions, other.exceptions, limit),
            triggers=_sum(self.triggers, other.triggers),
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


def fold(changes: Iterable[Change], bounds: Bounds, label: Callable[[JobKey], JobKey] = lambda key: key) -> Delta:
    """What these changes add to the counters. Pure; `label` says under which name a job is counted."""
    delta = Delta()
    for change in changes:
        if bits := fresh(change):
            key = label(change.row.key)
            counts = delta.counts.get(key)
            if counts is None:
                counts = delta.counts[key] = Counts()
            _count(counts, bits, change.row)
            if bits & _OBSERVED:
                _observe(delta, key, counts, bits, change.row, bounds)
    return delta


def _count(counts: Counts, bits: int, row: Row) -> None:
    for bit, status in _COUNTED:
        if bits & bit:
            _add(counts.statuses, status)
            if status == "skipped":
                _add(counts.reasons, row.reason or "unknown")
            elif status == "failed":
                _add(counts.exceptions, row.exception or row.reason or "unknown")
    for event in _trigger_events(bits, row):
        _add(counts.triggers, event)


def _trigger_events(bits: int, row: Row) -> Iterable[str]:
    """What a Quartz-like trigger listener would have heard."""
    if bits & _SKIPPED and row.reason in ("misfire", "vetoed"):
        yield "misfired" if row.reason == "misfire" else "vetoed"
    if bits & _STARTED:
        yield "fired"
    if bits & _COMPLETED and not row.facts & ~bits & _COMPLETED:  # once, also where two endings are told
        yield "completed"


def _observe(delta: Delta, key: JobKey, counts: Counts, bits: int, row: Row, bounds: Bounds) -> None:
    if bits & DURATION:
        _observe_one(delta, key, counts, "duration", row.duration / 1e6, bounds.duration, row)
    if bits & WAIT:
        _observe_one(delta, key, counts, "wait", max(0, row.started - row.enqueued) / 1e3, bounds.wait, row)
    if bits & DELAY:
        _observe_one(delta, key, counts, "delay", max(0, row.started - row.due) / 1e3, bounds.delay, row)


def _observe_one(
    delta: Delta, key: JobKey, counts: Counts, name: str, value: float, bounds: tuple[float, ...], row: Row
) -> None:
    histogram = counts.histograms.get(name)
    if histogram is None:
        histogram = counts.histograms[name] = Histogram(buckets=[0] * (len(bounds) + 1))
    bucket = bisect_left(bounds, value)
    histogram.buckets[bucket] += 1
    histogram.sum += value
    at = (row.ended or row.started) / 1e3
    delta.exemplars[key, name, bucket] = Exemplar(row.id, row.trace_id, value, at)


def _add(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1


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
        total[name] = old.plus(new) if old and len(old.buckets) == len(new.buckets) else new
    return total


_COUNTED: tuple[tuple[int, Status], ...] = (
    (Bit.SUCCESS, "success"),
    (Bit.FAILED, "failed"),
    (Bit.RETRIED, "retried"),
    (Bit.SKIPPED, "skipped"),
    (Bit.LOST, "unknown"),
)
_OBSERVED = DURATION | WAIT | DELAY
_STARTED, _SKIPPED = Bit.STARTED, Bit.SKIPPED
_COMPLETED = Bit.SUCCESS | Bit.FAILED | Bit.RETRIED


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
