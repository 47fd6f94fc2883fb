"""A run as the set of its facts: the bits, the row, and how two rows of one run become one.

Merging is commutative, associative and idempotent, so order, repetition and batching of facts do not matter.
The store does in SQL what `merge` does here; tests hold the two together.
"""

import math

import msgspec

from taskscope.errors import BadEvent
from taskscope.events import Fact, JobKey, Status


class Bit:
    """What is known of a run. Bits are only ever added.

    Plain ints: an operation on an IntFlag costs a microsecond, and there are dozens for every run.
    """

    QUEUED = 1
    STARTED = 2
    SUCCESS = 4
    FAILED = 8
    RETRIED = 16
    SKIPPED = 32
    LOST = 64
    NAMED = 128
    HAS_DUE = 256
    HAS_ENQUEUED = 512
    HAS_STARTED = 1024
    HAS_DURATION = 2048


TERMINAL = Bit.SUCCESS | Bit.FAILED | Bit.RETRIED | Bit.SKIPPED
ENDED = TERMINAL | Bit.LOST

BIT_OF: dict[Status, int] = {
    "queued": Bit.QUEUED,
    "started": Bit.STARTED,
    "success": Bit.SUCCESS,
    "failed": Bit.FAILED,
    "retried": Bit.RETRIED,
    "skipped": Bit.SKIPPED,
    "unknown": Bit.LOST,
}

RANKED: tuple[Status, ...] = ("queued", "started", "unknown", "skipped", "retried", "failed", "success")
"""Of two statuses of one run the later in this list holds: an ending beats a start, a real ending beats `lost`."""
RANK: dict[Status, int] = {status: rank for rank, status in enumerate(RANKED)}

WAIT, DELAY, DURATION = 1 << 16, 1 << 17, 1 << 18
"""Derived bits of `observable`: queue wait, start delay and duration can be observed."""


class Detail(msgspec.Struct, frozen=True):
    """The heavy part of a run, kept apart: most runs have none."""

    message: str = ""
    stack: str = ""
    data: str = ""
    """JSON object: the exception's own attributes."""
    details: str = ""
    """JSON object: what the bridge or the job added."""


class Row(msgspec.Struct, kw_only=True):
    """What is known of a run. Times are ms since the epoch and 0 where unknown; `duration` is µs."""

    id: bytes
    scheduler: str
    facts: int
    rank: int
    """Place of its status in `RANKED`."""
    job: str = ""
    attempt: int = 0
    due: int = 0
    enqueued: int = 0
    started: int = 0
    ended: int = 0
    duration: int = 0
    reason: str = ""
    exception: str = ""
    queue: str = ""
    worker: str = ""
    instance: str = ""
    entity: str = ""
    trace_id: str = ""
    detail: Detail | None = None

    @property
    def key(self) -> JobKey:
        """The job it is a run of."""
        return (self.scheduler, self.job)

    @property
    def status(self) -> Status:
        """Its status now."""
        return RANKED[self.rank]


class Change(msgspec.Struct, gc=False):
    """A run after a merge, and the bits which that merge added."""

    row: Row
    added: int


def row_of(fact: Fact, run_id: bytes) -> Row:
    """The row that this one fact makes.

    Raises `BadEvent` for a number that is no time or no duration.
    """
    bits = BIT_OF[fact.status] | (Bit.NAMED if fact.job else 0)
    due = _ms(fact.due, "due") if fact.due else 0
    enqueued = _ms(fact.enqueued, "enqueued") if fact.enqueued else 0
    started = _ms(fact.started, "started") if fact.started else 0
    ended = duration = 0
    if fact.status == "queued":
        enqueued = enqueued or _ms(fact.at, "at")
    elif fact.status == "started":
        started = started or _ms(fact.at, "at")
    elif fact.status != "unknown":
        duration = _microseconds(fact.duration)
        ended = started + round(duration / 1000) if started and fact.duration is not None else _ms(fact.at, "at")
    if due:
        bits |= Bit.HAS_DUE
    if enqueued:
        bits |= Bit.HAS_ENQUEUED
    if started:
        bits |= Bit.HAS_STARTED
    if ended and fact.duration is not None:
        bits |= Bit.HAS_DURATION
    return Row(
        id=run_id,
        scheduler=fact.scheduler,
        facts=bits,
        rank=RANK[fact.status],
        job=fact.job,
        attempt=fact.attempt,
        due=due,
        enqueued=enqueued,
        started=started,
        ended=ended,
        duration=duration,
        reason=fact.reason if fact.status != "unknown" else "",
        exception=fact.error.kind if fact.error else "",
        queue=fact.queue,
        worker=fact.worker,
        instance=fact.instance,
        entity=fact.entity,
        trace_id=fact.trace_id,
        detail=_detail(fact),
    )


def merge(old: Row, new: Row) -> Row:
    """The row that both make together; of two different values the greater stays."""
    return Row(  # conditional expressions: half the time of calling max() for each field
        id=old.id,
        scheduler=old.scheduler,
        facts=old.facts | new.facts,
        rank=new.rank if new.rank > old.rank else old.rank,
        job=new.job if new.job > old.job else old.job,
        attempt=new.attempt if new.attempt > old.attempt else old.attempt,
        due=new.due if new.due > old.due else old.due,
        enqueued=new.enqueued if new.enqueued > old.enqueued else old.enqueued,
        started=new.started if new.started > old.started else old.started,
        ended=new.ended if new.ended > old.ended else old.ended,
        duration=new.duration if new.duration > old.duration else old.duration,
        reason=new.reason if new.reason > old.reason else old.reason,
        exception=new.exception if new.exception > old.exception else old.exception,
        queue=new.queue if new.queue > old.queue else old.queue,
        worker=new.worker if new.worker > old.worker else old.worker,
        instance=new.instance if new.instance > old.instance else old.instance,
        entity=new.entity if new.entity > old.entity else old.entity,
        trace_id=new.trace_id if new.trace_id > old.trace_id else old.trace_id,
        detail=merge_detail(old.detail, new.detail) if new.detail else old.detail,
    )


def merge_detail(old: Detail | None, new: Detail | None) -> Detail | None:
    """Both details together, text by text the greater."""
    if old is None or new is None or old == new:
        return old or new
    return Detail(*(max(pair) for pair in zip(msgspec.structs.astuple(old), msgspec.structs.astuple(new), strict=True)))


def observable(facts: int) -> int:
    """The bits which metrics may count: nothing before the job's name is known, then statuses and derived bits."""
    if not facts & Bit.NAMED:
        return 0
    bits = facts & _STATUSES
    if facts & _HAS_WAIT == _HAS_WAIT:
        bits |= WAIT
    if facts & _HAS_DELAY == _HAS_DELAY:
        bits |= DELAY
    if facts & Bit.HAS_DURATION:
        bits |= DURATION
    return bits


def fresh(change: Change) -> int:
    """The observable bits that became true by this change."""
    facts = change.row.facts
    return observable(facts) & ~observable(facts & ~change.added)


def _ms(value: float, field: str) -> int:
    """A point in time as whole ms."""
    if not 0 < value < _LATEST:  # also refuses NaN
        raise BadEvent(f"{field}={value!r} is no point in time in seconds since the epoch")
    return round(value * 1000)


def _microseconds(duration: float | None) -> int:
    if duration is None:
        return 0
    if not 0 <= duration < math.inf:
        raise BadEvent(f"duration={duration!r} is no duration in seconds")
    return min(round(duration * 1e6), _LONGEST)


def _detail(fact: Fact) -> Detail | None:
    error = fact.error
    if error is None and not fact.details:
        return None
    details = _json(fact.details) if fact.details else ""
    if error is None:
        return Detail(details=details)
    return Detail(message=error.message, stack=error.stack, data=_json(error.data) if error.data else "", details=details)


def _json(value: object) -> str:
    return msgspec.json.encode(value, order="deterministic", enc_hook=repr).decode()


_LATEST = 32_503_680_000.0  # the year 3000, in seconds
_LONGEST = 2**62  # µs; fits a BIGINT

_STATUSES = Bit.QUEUED | Bit.STARTED | ENDED
_HAS_WAIT = Bit.HAS_ENQUEUED | Bit.HAS_STARTED
_HAS_DELAY = Bit.HAS_DUE | Bit.HAS_STARTED
