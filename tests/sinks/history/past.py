"""What a history has to answer, worked out from plain lists: no SQL, no rollups, no sketches."""

from collections import Counter
from collections.abc import Iterable, Sequence
from math import ceil
from typing import Any, NamedTuple

from histories import batch
from hypothesis import strategies as st

from taskscope.events import Error, Fact
from taskscope.facts import Row, row_of
from taskscope.identity import run_id
from taskscope.sinks.history.records import Filter

BEGIN = 1_759_968_000_000
"""The first moment of these histories, in ms: a UTC midnight."""
HOUR, DAY = 3_600_000, 86_400_000

NAMES = ("nightly", "Nightly", "100%_sure", "it's", "back\\slash", "größe", "b")
TEXTS = ("", "x", "Timeout", "50% of a_b", "\\")


class Past(NamedTuple):
    """One run, as the test knows it; times in ms, durations in µs, None where nothing was told."""

    number: int
    status: str
    job: str = "b"
    scheduler: str = "s"
    anchor: int = BEGIN
    started: int | None = None
    ended: int | None = None
    duration: int | None = None
    queue: str = ""
    worker: str = ""
    entity: str = ""
    reason: str = ""
    exception: str = ""
    message: str = ""
    trace_id: str = ""
    key: str = ""
    result: str = ""

    @property
    def id(self) -> bytes:
        return run_id(self.scheduler, str(self.number), 0, self.anchor)

    @property
    def row(self) -> Row:
        """What the store is told."""
        error = Error(kind=self.exception, message=self.message, stack="at") if self.exception else None
        seconds = None if self.duration is None else self.duration / 1e6
        started = None if self.started is None else self.started / 1e3
        names = ("job", "queue", "worker", "entity", "reason", "trace_id", "key", "result")
        known = {name: getattr(self, name) for name in names}
        at = (self.ended or self.started or self.anchor) / 1e3
        fact = Fact(
            scheduler=self.scheduler,
            native=str(self.number),
            status=self.status,
            at=at,
            anchor=self.anchor / 1e3,
            started=started,
            duration=seconds,
            error=error,
            **known,
        )
        return row_of(fact, self.id)


def rows(runs: Iterable[Past]) -> list[Row]:
    return batch(run.row for run in runs)


@st.composite
def runs(draw: st.DrawFn, hours: int = 60, most: int = 60) -> list[Past]:
    """Runs of a few jobs, spread over so many hours."""
    count = draw(st.integers(0, most) | st.just(most))
    return [draw(one(number, hours)) for number in range(count)]


@st.composite
def one(draw: st.DrawFn, number: int, hours: int) -> Past:
    status = draw(
        st.sampled_from(("queued", "started", "success", "success", "failed", "retried", "skipped"))
    )
    anchor = BEGIN + draw(st.integers(0, hours * HOUR - 1))
    started = ended = duration = None
    if status not in ("queued", "skipped"):
        started = anchor + draw(st.integers(0, 3)) * 1000
    if status in ("success", "failed", "retried"):
        taken = st.sampled_from((0, 1, 999, 50_000, 1_000_000)) | st.integers(1, 10**10)
        duration = draw(taken.filter(lambda us: us % 1000 != 500))  # half a ms is rounded up or down
        ended = started + round(duration / 1000)
    elif status == "skipped":
        ended = anchor
    failed = status == "failed"
    text = st.sampled_from(TEXTS)
    return Past(
        number=number,
        status=status,
        job=draw(st.sampled_from(NAMES)),
        scheduler=draw(st.sampled_from(("s", "S2"))),
        anchor=anchor,
        started=started,
        ended=ended,
        duration=duration,
        queue=draw(text),
        worker=draw(text),
        entity=draw(text),
        reason=draw(text) if failed or status == "skipped" else "",
        exception=draw(st.sampled_from(("ValueError", "x.Timeout"))) if failed else "",
        message=draw(text) if failed else "",
        trace_id=draw(st.sampled_from(("", "abc"))),
        key=draw(text),
        result=draw(text),
    )


def some(values: Sequence[str]) -> st.SearchStrategy[tuple[str, ...]]:
    """No value, which does not filter, or some of these and one that nobody has."""
    return st.just(()) | st.lists(st.sampled_from((*values, "never seen")), max_size=3).map(tuple)


@st.composite
def filters(draw: st.DrawFn, hours: int = 60) -> Filter:
    """Mostly few fields at once, or nothing would match."""
    fields: dict[str, st.SearchStrategy[Any]] = {
        "status": some(("queued", "started", "success", "failed", "retried", "skipped", "unknown")).map(
            lambda chosen: tuple(status for status in chosen if status != "never seen")
        ),
        "job": some(NAMES),
        "scheduler": some(("s", "S2")),
        "queue": some(TEXTS),
        "worker": some(TEXTS),
        "entity": some(TEXTS),
        "key": some(TEXTS),
        "reason": some(TEXTS),
        "exception": some(("ValueError", "x.Timeout")),
        "trace_id": st.sampled_from(("", "abc", "abcd")),
        "q": st.sampled_from(("", "NIGHT", "%", "_", "a_B", "time", "\\", "'", "größe", "never seen")),
        "slow": st.none() | st.sampled_from((0.0, 0.05, 1.0, 1e9)),
        "slow_by_job": st.none()
        | st.dictionaries(st.tuples(st.sampled_from(("s", "S2")), st.sampled_from(NAMES)), st.floats(0, 100)),
        "since": st.none() | st.integers(BEGIN, BEGIN + hours * HOUR),
        "until": st.none() | st.integers(BEGIN, BEGIN + hours * HOUR),
    }
    chosen = draw(st.sets(st.sampled_from(sorted(fields)), max_size=3))
    return Filter(**{field: draw(fields[field]) for field in sorted(chosen)})


def matching(runs: Iterable[Past], filter: Filter) -> list[Past]:
    """The runs that the filter lets through, newest first."""
    return sorted((run for run in runs if _fits(run, filter)), key=lambda run: run.id, reverse=True)


def _fits(run: Past, filter: Filter) -> bool:
    named = {"status", "job", "scheduler", "queue", "worker", "entity", "key", "reason"}
    if any(getattr(filter, field) and getattr(run, field) not in getattr(filter, field) for field in named):
        return False
    if filter.exception and run.exception not in filter.exception:
        return False
    if filter.trace_id and run.trace_id != filter.trace_id:
        return False
    texts = (run.job, run.exception, run.message)
    if filter.q and not any(filter.q.lower() in text.lower() for text in texts):
        return False
    if filter.since is not None and run.anchor < filter.since:
        return False
    if filter.until is not None and run.anchor >= filter.until:
        return False
    return _is_slow(run, filter)


def _is_slow(run: Past, filter: Filter) -> bool:
    micros = run.duration or 0
    if filter.slow is not None and micros <= filter.slow * 1e6:
        return False
    if filter.slow_by_job is None:
        return True
    limit = filter.slow_by_job.get((run.scheduler, run.job))
    return limit is not None and micros > round(limit * 1e6)


def ordered(runs: Iterable[Past], column: str, descending: bool) -> list[Past]:
    """By a column and then by id, what is unknown last."""
    value = {
        "started_at": lambda run: run.anchor if run.started is None else run.started,
        "ended_at": lambda run: run.ended,
        "duration": lambda run: run.duration,
        "task": lambda run: run.job,
        "status": lambda run: run.status,
    }[column]
    known = [run for run in runs if value(run) is not None]
    unknown = [run for run in runs if value(run) is None]
    known.sort(key=lambda run: (value(run), run.id), reverse=descending)
    unknown.sort(key=lambda run: run.id, reverse=descending)
    return known + unknown


def percentile(durations: Iterable[int], percent: float) -> float:
    """The nearest rank, in seconds."""
    in_order = sorted(durations)
    return in_order[max(1, ceil(len(in_order) * percent / 100)) - 1] / 1e6


def statuses(runs: Iterable[Past]) -> dict[str, int]:
    return dict(Counter(run.status for run in runs))


def durations(runs: Iterable[Past]) -> list[int]:
    return [run.duration for run in runs if run.duration is not None]
