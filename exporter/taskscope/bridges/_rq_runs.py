"""Tells the runs of an RQ from outside: what starts, what ended, and what is gone without a word.

A run is one execution. Its id and the moment it was made are known to whoever tells of it, inside a worker or out
here, so both make the same run of it.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from taskscope.bridges._rq_ends import Ended, Ends, Entry, entry_of
from taskscope.bridges._rq_layout import (
    EXECUTION_FIELDS,
    JOB_FIELDS,
    Job,
    Keys,
    error_of,
    job_of,
    number,
    text,
)
from taskscope.bridges._rq_survey import Batch, Survey
from taskscope.contracts import Emit
from taskscope.events import Fact, Status

_GRACE = 5.0  # seconds after which RQ, too, gives an attempt up
_AT_ONCE = 500  # jobs of which details are asked in one round trip
_RESULTS = 10  # RQ keeps about so many results of a job
_VERDICTS = 10_000
_SAME = 0.001  # seconds; RQ writes the end of an attempt with its job and with its result


class Attempt(Struct, frozen=True, gc=False):
    """An attempt in progress."""

    id: str
    job: Job
    started: float
    worker: str


class Runs:
    """What is known of runs in progress, and where the reading of those that ended has come to."""

    def __init__(self, scheduler: str, client: Any, keys: Keys, described: bool, catch_up: float) -> None:
        self._scheduler, self._client, self._keys = scheduler, client, keys
        self._described, self._catch_up = described, catch_up
        self._open: dict[str, Attempt] = {}
        self._given_up: dict[str, str] = {}
        """Jobs whose attempt was told to be lost; RQ says so later in an entry that names no execution."""
        self._ends = Ends()
        self._since = 0.0
        """The first look; what was retried before may have been told by somebody else."""
        self._told: list[Fact] = []

    def ask(self, batch: Batch, survey: Survey) -> None:
        """Ask, along with the survey, for what ended."""
        keys = [
            (kind, queue, self._keys.registry(kind, queue))
            for queue in survey.queues
            for kind in ("finished", "failed")
        ]
        self._ends.ask(batch, keys, survey.at, survey.at - self._catch_up)

    def tell(self, survey: Survey, emit: Emit) -> list[Fact]:
        """Tell what happened since the last look; returns the facts."""
        self._since = self._since or survey.at
        batch = Batch(self._client)
        try:
            self._look_at_executing(batch, survey)
            self._look_at_ended(batch, survey.at)
        except BaseException:
            self._ends.again()
            raise
        finally:
            told = self._taken()
            for fact in told:
                emit(fact)
        self._ends.done(survey.at)
        return told

    def outcome(self, attempt: Attempt, at: float) -> list[Fact]:
        """How this attempt ended, which is not in progress any more."""
        member, batch = f"{attempt.job.id}:{attempt.id}", Batch(self._client)
        self._open[member] = attempt
        self._ask_job(batch, attempt.job.id, at, self._over(member, at))
        batch.go()
        return self._told

    def retried(self, jobs: Iterable[Job], at: float) -> list[Fact]:
        """The last attempts of these jobs, which wait for their next ones, as far as they were not told."""
        batch = Batch(self._client)
        for job in jobs:
            if self._since <= (job.started or 0.0) <= (job.ended or 0.0) and not self._is_open(job):
                self._ask_job(batch, job.id, at, self._between(job))
        batch.go()
        return self._taken()

    def _taken(self) -> list[Fact]:
        told, self._told = self._told, []
        return told

    def _is_open(self, job: Job) -> bool:
        """Does the next look tell how its last attempt ended?"""
        return any(attempt.job.id == job.id for attempt in self._open.values())

    def _between(self, job: Job) -> "Any":
        def take(_: Job | None, entries: Sequence[Entry]) -> None:
            ended = job.ended or 0.0
            self._tell_entries(job, entries)
            if self._ends.told.is_new(job.id, ended) and not any(
                abs(one.ended - ended) < _SAME for one in entries
            ):
                native = f"{job.id}@{ended}"  # so short that nobody saw it: nothing tells its id
                self._told.append(self._fact(job, native, "retried", ended, anchor=ended, reason="error"))

        return take

    def _look_at_executing(self, batch: Batch, survey: Survey) -> None:
        executing = {
            member: score for queue in survey.queues.values() for member, score in queue.executing.items()
        }
        for member in executing.keys() - self._open.keys():
            _Beginning(member).ask(batch, self._keys, self._described, self._begun)
        batch.go()
        for member in self._open.keys() - executing.keys():
            self._ask_job(batch, member.rpartition(":")[0], survey.at, self._over(member, survey.at))
        batch.go()
        for member in [
            member for member in self._open if executing.get(member, survey.at) < survey.at - _GRACE
        ]:
            self._give_up(self._open.pop(member), survey.at)

    def _begun(self, member: str, attempt: Attempt) -> None:
        self._open[member] = attempt
        if self._ends.told.is_new(attempt.id, "started"):
            started = attempt.started
            self._told.append(
                self._fact(
                    attempt.job, attempt.id, "started", started, started=started, worker=attempt.worker
                )
            )

    def _over(self, member: str, now: float) -> "Any":
        def take(job: Job | None, entries: Sequence[Entry]) -> None:
            attempt = self._open.pop(member)
            mine = [entry for entry in entries if entry.execution == attempt.id]
            if mine:
                self._tell_entries(job or attempt.job, mine)
            elif verdicts := [one for one in entries if one.is_verdict and one.ended >= attempt.started]:
                self._end(attempt, "failed", verdicts[0].ended, "worker_lost", verdicts[0].why)
                self._note_verdict(attempt)
            else:
                self._end(attempt, *_without_result(attempt, job, now))
                self._ends.told.is_new(attempt.job.id, job.ended if job else None)

        return take

    def _give_up(self, attempt: Attempt, now: float) -> None:
        """Its worker is gone: RQ will find the same, as soon as another worker cleans up."""
        retries = attempt.job.retries_left > 0
        self._end(attempt, "retried" if retries else "failed", now, "worker_lost")
        self._note_verdict(attempt)

    def _note_verdict(self, attempt: Attempt) -> None:
        self._given_up[attempt.job.id] = attempt.id
        while len(self._given_up) > _VERDICTS:
            del self._given_up[next(iter(self._given_up))]

    def _look_at_ended(self, batch: Batch, at: float) -> None:
        fresh = self._ends.fresh(batch)
        for first in range(0, len(fresh), _AT_ONCE):
            for ended in fresh[first : first + _AT_ONCE]:
                self._ask_job(batch, ended.job, at, self._ended(ended))
            batch.go()

    def _ended(self, ended: Ended) -> "Any":
        def take(job: Job | None, entries: Sequence[Entry]) -> None:
            if entries:
                ended.registry.learn(ended.score, entries[0].ended)
            if job is not None:
                self._tell_entries(job, entries)

        return take

    def _ask_job(self, batch: Batch, job_id: str, at: float, take: "Any") -> None:
        """Ask for a job and for how its attempts ended, as far back as runs are told."""
        found: list[Job | None] = []
        since = max(0, int((at - self._catch_up) * 1000))
        batch.ask(
            lambda values: found.append(job_of(job_id, values, self._described)),
            "hmget", self._keys.job(job_id), JOB_FIELDS,
        )  # fmt: skip
        batch.ask(
            lambda entries: take(found[0], [entry_of(*entry) for entry in entries]),
            "xrevrange", self._keys.results(job_id), "+", since, count=_RESULTS,
        )  # fmt: skip

    def _tell_entries(self, job: Job, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if entry.is_verdict and self._given_up.pop(job.id, ""):
                continue
            native = entry.execution or f"{job.id}@{entry.id}"
            if self._ends.told.is_new(native, entry.status):
                self._told.append(self._entry_fact(job, native, entry))

    def _entry_fact(self, job: Job, native: str, entry: Entry) -> Fact:
        started = entry.started
        return self._fact(
            job,
            native,
            entry.status,
            entry.ended,
            anchor=started or entry.ended,
            started=started,
            duration=max(0.0, entry.ended - started) if started else None,
            reason=entry.reason,
            worker=entry.worker,
            why=entry.why,
        )

    def _end(self, attempt: Attempt, status: Status, at: float, reason: str = "", why: str = "") -> None:
        started = attempt.started
        self._told.append(
            self._fact(
                attempt.job,
                attempt.id,
                status,
                at,
                started=started,
                duration=max(0.0, at - started) if status != "unknown" else None,
                reason=reason,
                worker=attempt.worker,
                why=why,
            )
        )

    def _fact(
        self,
        job: Job,
        native: str,
        status: Status,
        at: float,
        *,
        anchor: float | None = None,
        started: float | None = None,
        duration: float | None = None,
        reason: str = "",
        worker: str = "",
        why: str = "",
    ) -> Fact:
        return Fact(
            scheduler=self._scheduler,
            native=native,
            status=status,
            at=at,
            anchor=anchor or started,
            job=job.name,
            enqueued=_before(job.enqueued, started),
            started=started,
            duration=duration,
            reason=reason,
            queue=job.queue,
            worker=worker or job.worker,
            error=error_of(why),
            details=job.details,
        )


class _Beginning:
    """An attempt in progress that was not seen before."""

    def __init__(self, member: str) -> None:
        self.member = member
        self._job_id, _, self._id = member.rpartition(":")
        self._said: list[bytes | None] = []

    def ask(self, batch: Batch, keys: Keys, described: bool, begun: "Any") -> None:
        """Ask for it and for its job."""

        def take(values: list[bytes | None]) -> None:
            job, created = job_of(self._job_id, values, described), number(self._said[0])
            if job is not None and created:
                begun(self.member, Attempt(self._id, job, created, text(self._said[1])))

        batch.ask(self._said.extend, "hmget", keys.execution(self.member), EXECUTION_FIELDS)
        batch.ask(take, "hmget", keys.job(self._job_id), JOB_FIELDS)


def _without_result(attempt: Attempt, job: Job | None, now: float) -> tuple[Status, float, str]:
    """How an attempt ended of which no result is kept: its job goes on, or is not kept either."""
    if job is None:
        return ("success", now, "") if attempt.job.result_ttl == 0 else ("unknown", now, "")
    ended = job.ended if job.ended and job.ended >= attempt.started else now
    if job.status == "finished":
        return "success", ended, ""
    if job.status in ("failed", "stopped"):
        return "failed", ended, "cancelled" if job.status == "stopped" else "error"
    return "retried", ended, "error"


def _before(enqueued: float | None, started: float | None) -> float | None:
    """When the attempt was enqueued; None where the job has been enqueued again since."""
    return enqueued if enqueued and (started is None or enqueued <= started) else None
