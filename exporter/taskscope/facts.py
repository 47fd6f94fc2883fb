"""A run as the set of its facts: the bits, the row, and how two rows of one run become one.

Merging is commutative, associative and idempotent, so order, repetition and batching of facts do not matter.
The store does in SQL what `merge` does here; tests hold the two together.
"""

from functools import lru_cache

import msgspec

from taskscope.events import Captured, Fact, JobKey, Status


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


class Detail(msgspec.Struct, frozen=True, gc=False):
    """The heavy part of a run, kept apart: most runs have none."""

    message: str = ""
    stack: str = ""
    data: str = ""
    """JSON object: the exception's own attributes."""
    details: str = ""
    """JSON object: what the bridge or the job added."""
    version: str = ""
    """Release of the program that failed."""
    captured: tuple[Captured, ...] = ()
    """Exceptions that the run reported, by key."""


class Row(msgspec.Struct, gc=False):
    """What is known of a run. Times are ms since the epoch and 0 where unknown; `duration` is µs.

    Where it is made a thousand times a second, its fields are given by position: with keywords it takes three times as
    long.
    """

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
    key: str = ""
    result: str = ""
    trace_id: str = ""
    detail: Detail | None = None

    @property
    def job_key(self) -> JobKey:
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
    """The row that this one fact makes, whose numbers are times and durations (`Admission` sees to that)."""
    bit, error, ended, duration = BIT_OF[fact.status], fact.error, None, None
    due, enqueued, started = fact.due, fact.enqueued, fact.started
    if bit & TERMINAL:
        ended, duration = _end(fact), fact.duration
    elif bit == Bit.QUEUED and enqueued is None:
        enqueued = fact.at
    elif bit == Bit.STARTED and started is None and fact.captured is None:
        started = fact.at
    facts = (bit | Bit.NAMED if fact.job else bit) | (Bit.UNANCHORED if fact.anchor is None else 0)
    if due:
        facts |= Bit.HAS_DUE
    if enqueued:
        facts |= Bit.QUEUED | Bit.HAS_ENQUEUED
    if started:
        facts |= Bit.STARTED | Bit.HAS_STARTED
    if duration is not None:
        facts |= Bit.HAS_DURATION
    return Row(
        run_id,
        fact.scheduler,
        facts,
        RANK[fact.status],
        fact.job,
        fact.attempt,
        round(due * 1000) if due else 0,
        round(enqueued * 1000) if enqueued else 0,
        round(started * 1000) if started else 0,
        round(ended * 1000) if ended else 0,
        min(round(duration * 1e6), _LONGEST) if duration else 0,
        "" if bit == Bit.LOST else fact.reason,
        error.kind if error else "",
        fact.queue,
        fact.worker,
        fact.instance,
        fact.entity,
        fact.key,
        fact.result,
        fact.trace_id,
        _detail(fact) if error or fact.details is not None or fact.captured else None,
    )


def merge(old: Row, new: Row) -> Row:
    """The row that both make together; of two different values the greater stays."""
    return Row(  # conditional expressions: half the time of calling max() for each field
        old.id,
        old.scheduler,
        old.facts | new.facts,
        new.rank if new.rank > old.rank else old.rank,
        new.job if new.job > old.job else old.job,
        new.attempt if new.attempt > old.attempt else old.attempt,
        new.due if new.due > old.due else old.due,
        new.enqueued if new.enqueued > old.enqueued else old.enqueued,
        new.started if new.started > old.started else old.started,
        new.ended if new.ended > old.ended else old.ended,
        new.duration if new.duration > old.duration else old.duration,
        new.reason if new.reason > old.reason else old.reason,
        new.exception if new.exception > old.exception else old.exception,
        new.queue if new.queue > old.queue else old.queue,
        new.worker if new.worker > old.worker else old.worker,
        new.instance if new.instance > old.instance else old.instance,
        new.entity if new.entity > old.entity else old.entity,
        new.key if new.key > old.key else old.key,
        new.result if new.result > old.result else old.result,
        new.trace_id if new.trace_id > old.trace_id else old.trace_id,
        merge_detail(old.detail, new.detail) if new.detail else old.detail,
    )


def together(some: list[Row], others: list[Row]) -> list[Row]:
    """One row for each run of both, ascending by id, as each of them is."""
    if not some or not others:
        return some or others
    rows = {row.id: row for row in some}
    for row in others:
        rows[row.id] = merge(rows[row.id], row) if row.id in rows else row
    return [rows[run] for run in sorted(rows)]


def lost_row(run: bytes, scheduler: str, job: str, started: int, enqueued: int) -> Row:
    """What is told of a run in progress whose process is gone."""
    facts = Bit.LOST | Bit.NAMED if job else Bit.LOST
    return Row(run, scheduler, facts, RANK["unknown"], job, enqueued=enqueued, started=started)


def merge_detail(old: Detail | None, new: Detail | None) -> Detail | None:
    """Both details together, text by text the greater, and all exceptions that either knows of."""
    if old is None or new is None or old == new:
        return old or new
    texts: dict[str, str] = {name: max(getattr(old, name), getattr(new, name)) for name in _TEXTS}
    both = old.captured and new.captured
    captured = _all(old.captured, new.captured) if both else old.captured or new.captured
    return Detail(captured=captured, **texts)


def _all(captured: tuple[Captured, ...], others: tuple[Captured, ...]) -> tuple[Captured, ...]:
    known: dict[str, Captured] = {}
    for one in (*captured, *others):
        known[one.key] = max(known.get(one.key, one), one, key=repr)
    return tuple(known[key] for key in sorted(known))


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


@lru_cache(maxsize=4096)  # there are few combinations, and this is asked for every run
def fresh(facts: int, added: int) -> int:
    """The observable bits that became true when these bits were added to what are these facts now."""
    return observable(facts) & ~observable(facts & ~added)


def _end(fact: Fact) -> float:
    """When the run ended: by its own clock where it was measured."""
    if fact.duration is None or fact.started is None:
        return fact.at
    return fact.started + fact.duration


def _detail(fact: Fact) -> Detail | None:
    error, captured = fact.error, (fact.captured,) if fact.captured else ()
    if error is None and not fact.details and not captured:
        return None
    details = as_json(fact.details)
    if error is None:
        return Detail(details=details, captured=captured)
    return Detail(error.message, error.stack, as_json(error.data), details, error.version, captured)


def as_json(value: object) -> str:
    """The value as JSON, the same whatever its order; empty for nothing."""
    if not value:
        return ""
    return msgspec.json.encode(value, order="deterministic", enc_hook=repr).decode()


_TEXTS = ("message", "stack", "data", "details", "version")
_LONGEST = 2**62  # µs; fits a BIGINT

_STATUSES = Bit.QUEUED | Bit.STARTED | ENDED
_HAS_WAIT = Bit.HAS_ENQUEUED | Bit.HAS_STARTED
_HAS_DELAY = Bit.HAS_DUE | Bit.HAS_STARTED
