"""A run as the set of its facts: the bits, the row, and how two rows of one run become one.

Merging is commutative, associative and idempotent, so order, repetition and batching of facts do not matter.
The store does in SQL what `merge` does here; tests hold the two together.
"""

from collections.abc import Sequence
from functools import lru_cache

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
    UNANCHORED = 4096
    """Its id was chosen by the fact that came first, and the store finds it again for the others."""


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
    """The row that this one fact makes. Raises `BadEvent` for a number that is no time or no duration."""
    return row_of_all((fact,), run_id)


def row_of_all(facts: Sequence[Fact], run_id: bytes) -> Row:
    """The row that these facts of one run make: what merging a row of each gives, in one pass and a third of the time.

    Raises `BadEvent` for a number that is no time or no duration.
    """
    first = facts[0]
    row = Row(
        id=run_id, scheduler=first.scheduler, facts=Bit.UNANCHORED if first.anchor is None else 0, rank=0
    )
    due = enqueued = started = ended = duration = 0.0
    for fact in facts:
        bit = BIT_OF[fact.status]
        row.facts |= bit
        if fact.due is not None:
            due = _later(due, fact.due, "due")
        if bit == Bit.QUEUED or fact.enqueued is not None:
            enqueued = _later(enqueued, fact.at if fact.enqueued is None else fact.enqueued, "enqueued")
        if bit == Bit.STARTED or fact.started is not None:
            started = _later(started, fact.at if fact.started is None else fact.started, "started")
        if bit & TERMINAL:
            ended = _later(ended, _end(fact), "at")
            if fact.duration is not None:
                row.facts |= Bit.HAS_DURATION
                duration = _later(duration, fact.duration, "duration")
        _take_texts(row, fact, bit)
    row.facts |= Bit.NAMED if row.job else 0
    if due:
        row.facts |= Bit.HAS_DUE
        row.due = _ms(due)
    if enqueued:
        row.facts |= Bit.QUEUED | Bit.HAS_ENQUEUED
        row.enqueued = _ms(enqueued)
    if started:
        row.facts |= Bit.STARTED | Bit.HAS_STARTED
        row.started = _ms(started)
    if ended:
        row.ended = _ms(ended)
    row.duration = min(round(duration * 1e6), _LONGEST)
    return row


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
    return Detail(
        *(max(pair) for pair in zip(msgspec.structs.astuple(old), msgspec.structs.astuple(new), strict=True))
    )


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
    return _fresh(change.row.facts, change.added)


@lru_cache(maxsize=4096)  # there are few combinations, and this is asked for every run
def _fresh(facts: int, added: int) -> int:
    return observable(facts) & ~observable(facts & ~added)


def _take_texts(row: Row, fact: Fact, bit: int) -> None:
    """Into the row what is greater in this fact: its status, names, reason and error."""
    rank = RANK[fact.status]
    if rank > row.rank:
        row.rank = rank
    if fact.attempt > row.attempt:
        row.attempt = fact.attempt
    if fact.job > row.job:
        row.job = fact.job
    if fact.queue > row.queue:
        row.queue = fact.queue
    if fact.worker > row.worker:
        row.worker = fact.worker
    if fact.instance > row.instance:
        row.instance = fact.instance
    if fact.entity > row.entity:
        row.entity = fact.entity
    if fact.trace_id > row.trace_id:
        row.trace_id = fact.trace_id
    if fact.reason > row.reason and bit != Bit.LOST:
        row.reason = fact.reason
    if fact.error is not None or fact.details is not None:
        row.exception = max(row.exception, fact.error.kind if fact.error else "")
        row.detail = merge_detail(row.detail, _detail(fact))


def _end(fact: Fact) -> float:
    """When the run ended: by its own clock where it was measured."""
    if fact.duration is None or fact.started is None:
        return fact.at
    return fact.started + fact.duration


def _later(old: float, new: float, field: str) -> float:
    if new > old:
        if new > _LATEST:
            raise BadEvent(f"{field}={new!r} is no time or duration in seconds")
        return new
    if not new >= 0:  # also NaN
        raise BadEvent(f"{field}={new!r} is no time or duration in seconds")
    return old


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _detail(fact: Fact) -> Detail | None:
    error = fact.error
    if error is None and not fact.details:
        return None
    details = _json(fact.details) if fact.details else ""
    if error is None:
        return Detail(details=details)
    return Detail(
        message=error.message,
        stack=error.stack,
        data=_json(error.data) if error.data else "",
        details=details,
    )


def _json(value: object) -> str:
    return msgspec.json.encode(value, order="deterministic", enc_hook=repr).decode()


_LATEST = 32_503_680_000.0  # the year 3000, in seconds; as a duration a thousand years
_LONGEST = 2**62  # µs; fits a BIGINT

_STATUSES = Bit.QUEUED | Bit.STARTED | ENDED
_HAS_WAIT = Bit.HAS_ENQUEUED | Bit.HAS_STARTED
_HAS_DELAY = Bit.HAS_DUE | Bit.HAS_STARTED
