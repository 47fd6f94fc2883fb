"""Facts about runs out of Celery's events, joined by the task's id.

What one event lacks another has said: name, queue and attempt come with `task-sent` and `task-received` only. Events
are taken in as they come, and `told` then gives one fact for each run that changed: of one that has begun and ended
since, its end alone, which says all of it.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import msgspec

from taskscope.bridges._celery_events import CeleryEvent
from taskscope.bridges._celery_failure import error_of, unknown_task
from taskscope.bridges._celery_mapping import INTERRUPTED, details, ending, rejected, revoked, seconds
from taskscope.bridges._celery_tasks import ENDED, QUEUED, STARTED, Attempt, Task
from taskscope.events import Error, Fact, Status

SETTLE = 2.0
"""Seconds for which what says no attempt waits for an event that does."""
_REMEMBERED = (
    20_000  # at least so many ended tasks are remembered: what is told late or twice is of one of them
)


class Join:
    """The tasks that are not over, and those that ended lately. Used under one lock."""

    def __init__(self, scheduler: str, limit: int, queue_of: Callable[[str], str]) -> None:
        """`queue_of` says from which queue a worker gets what no event told the queue of; empty if nobody knows."""
        self._scheduler, self._limit, self._queue_of = scheduler, limit, queue_of
        self._open: dict[str, Task] = {}
        self._over: dict[str, Task] = {}
        self._over_before: dict[str, Task] = {}
        self._changed: list[tuple[Task, Attempt]] = []
        self._unnumbered: dict[str, Task] = {}
        self.forgotten = 0
        """Tasks not known to be over that had to be forgotten: there were more of them than the limit."""
        self._takes: dict[str, Callable[[CeleryEvent, float], None]] = {
            "task-sent": self._sent,
            "task-received": self._received,
            "task-started": self._started,
            "task-succeeded": self._succeeded,
            "task-failed": self._failed,
            "task-retried": self._retried,
            "task-revoked": self._revoked,
            "task-cancelled": self._cancelled,
            "task-rejected": self._rejected,
        }

    def __len__(self) -> int:
        return len(self._open)

    def take(self, event: CeleryEvent, now: float) -> None:
        """Take in an event about a task; one of another kind says nothing here."""
        if event.uuid and (take := self._takes.get(event.type)) is not None:
            take(event, now)

    def told(self, now: float) -> list[Fact]:
        """What became true of runs since the last call."""
        self._settle(now)
        changed, self._changed = self._changed, []
        facts = []
        for task, attempt in changed:
            attempt.changed = False
            if not task.numbered:
                self._unnumbered[task.uuid] = task
            elif (fact := self._fact(task, attempt)) is not None:
                facts.append(fact)
            if task.open:
                self._open[task.uuid] = task  # it may have been over
            else:
                self._close(task)
        if len(self._open) > self._limit:
            self._forget()
        return facts

    def started(self) -> Iterator[tuple[Task, Attempt]]:
        """The runs in progress, as far as is known."""
        for task in self._open.values():
            for attempt in task.attempts:
                if attempt.started and not attempt.ended:
                    yield task, attempt

    def sent_at(self, uuid: str) -> float | None:
        """When this task was sent, if that was told."""
        task = self._open.get(uuid)
        attempts = task.attempts if task is not None else []
        return next((attempt.sent for attempt in reversed(attempts) if attempt.sent), None)

    def recall(self, uuid: str, job: str, queue: str, worker: str, started: float, now: float) -> None:
        """A worker has this task; `started` is 0 if it did not start. News only where its events were missed."""
        if uuid in self._open or uuid in self._over or uuid in self._over_before:
            return
        task = self._open[uuid] = Task(uuid, now, [], job=job, queue=queue)
        if started:
            attempt = task.starting(started)
            attempt.started, attempt.worker = started, worker
            self._note(task, attempt)

    def lose(self, lost: Iterable[tuple[Task, Attempt]], now: float) -> None:
        """Nothing more will be heard of these runs: they end as unknown, until something is heard after all."""
        for task, attempt in lost:
            attempt.ended, attempt.status, attempt.reason = now, "unknown", "lost"
            self._note(task, attempt)

    def _task(self, event: CeleryEvent, now: float) -> Task:
        uuid = event.uuid
        task = self._open.get(uuid)
        if task is None:
            task = self._over.get(uuid) or self._over_before.get(uuid)
            if task is None:
                task = self._open[uuid] = Task(uuid, now, [])
        return task

    def _note(self, task: Task, attempt: Attempt) -> None:
        if not attempt.changed:
            attempt.changed = True
            self._changed.append((task, attempt))

    def _named(self, event: CeleryEvent, now: float) -> tuple[Task, Attempt]:
        """The task and the attempt that an event says, which names both."""
        task = self._task(event, now)
        attempt = task.attempt(event.retries or 0, event.timestamp)
        if attempt.ended or not task.job:
            attempt.told = 0  # what was told of it lacked this
        task.job = event.name or task.job
        attempt.due = seconds(event.eta)
        if event.parent_id or event.expires or (event.root_id and event.root_id != event.uuid):
            attempt.details = details(msgspec.structs.asdict(event))
        self._note(task, attempt)
        return task, attempt

    def _sent(self, event: CeleryEvent, now: float) -> None:
        task, attempt = self._named(event, now)
        task.queue = event.queue or event.routing_key or task.queue
        attempt.sent = event.timestamp

    def _received(self, event: CeleryEvent, now: float) -> None:
        attempt = self._named(event, now)[1]
        attempt.again(event.timestamp)
        attempt.received = event.timestamp
        attempt.worker = event.hostname

    def _started(self, event: CeleryEvent, now: float) -> None:
        task = self._task(event, now)
        attempt = task.starting(event.timestamp)
        attempt.again(event.timestamp)
        if attempt.started != event.timestamp and not (attempt.ended and attempt.started):
            attempt.started, attempt.worker = event.timestamp, event.hostname
            attempt.told = min(attempt.told, QUEUED)
            self._note(task, attempt)

    def _succeeded(self, event: CeleryEvent, now: float) -> None:
        task = self._task(event, now)
        self._end(task, task.ending(), event, "success", "")

    def _failed(self, event: CeleryEvent, now: float) -> None:
        task, error = self._task(event, now), error_of(event.exception, event.traceback)
        if not task.job and (name := unknown_task(event.exception)):
            task.job, task.numbered = name, True  # no other event of it will come
        status, reason = ending(error.kind)
        self._end(task, task.ending(), event, status, reason, error if status == "failed" else None)

    def _retried(self, event: CeleryEvent, now: float) -> None:
        task, error = self._task(event, now), error_of(event.exception, event.traceback)
        self._end(task, task.retrying(event.timestamp), event, "retried", ending(error.kind)[1], error)

    def _revoked(self, event: CeleryEvent, now: float) -> None:
        task = self._task(event, now)
        self._end(task, task.ending(), event, *revoked(bool(event.expired)))

    def _cancelled(self, event: CeleryEvent, now: float) -> None:
        """Its worker was told to end, or lost its broker: nobody revoked the task."""
        task = self._task(event, now)
        self._end(task, task.given_back(event.timestamp), event, *INTERRUPTED)

    def _rejected(self, event: CeleryEvent, now: float) -> None:
        task = self._task(event, now)
        self._end(task, task.given_back(event.timestamp), event, *rejected(bool(event.requeue)))

    def _end(
        self,
        task: Task,
        attempt: Attempt,
        event: CeleryEvent,
        status: Status,
        reason: str,
        error: Error | None = None,
    ) -> None:
        """An attempt ended. Of several endings the first counts, unless it succeeded after all."""
        if (
            attempt.ended
            and attempt.status != "unknown"
            and (status != "success" or attempt.status == status)
        ):
            return
        attempt.ended, attempt.status, attempt.reason, attempt.error = event.timestamp, status, reason, error
        attempt.worker, attempt.told = event.hostname or attempt.worker, min(attempt.told, STARTED)
        attempt.duration = event.runtime
        self._note(task, attempt)

    def _fact(self, task: Task, attempt: Attempt) -> Fact | None:
        """What is new of a run; None where that has been told."""
        stage = ENDED if attempt.ended else STARTED if attempt.started else QUEUED
        if attempt.told >= stage:
            return None
        attempt.told = stage
        error, attempt.error = attempt.error, None  # it is told once: tens of thousands are remembered
        started = attempt.started or None
        enqueued = attempt.sent or attempt.received or None
        duration, at = None, attempt.started or attempt.sent or attempt.received
        if stage == ENDED:
            duration, at = _took(attempt), attempt.ended
        return Fact(
            scheduler=self._scheduler,
            native=task.uuid,
            status=attempt.status if stage == ENDED else "started" if stage == STARTED else "queued",
            at=at,
            attempt=attempt.number,
            job=task.job,
            due=attempt.due,
            enqueued=enqueued,
            started=started,
            duration=duration,
            reason=attempt.reason,
            queue=task.queue or (self._queue_of(attempt.worker) if attempt.worker else ""),
            worker=attempt.worker,
            error=error,
            details=attempt.details,
        )

    def _settle(self, now: float) -> None:
        """Those of which no event has said the attempt are told as the first, now that none can be expected."""
        for task in list(self._unnumbered.values()):
            if not task.numbered and now - task.since < SETTLE:
                break  # they are in the order in which they were heard of
            del self._unnumbered[task.uuid]
            task.numbered = True
            for attempt in task.attempts:
                self._note(task, attempt)

    def _close(self, task: Task) -> None:
        if self._open.pop(task.uuid, None) is not None:
            self._over[task.uuid] = task
            if len(self._over) > _REMEMBERED:
                self._over, self._over_before = {}, self._over

    def _forget(self) -> None:
        """Make room: those heard of first go."""
        most = len(self._open) - self._limit
        for uuid in list(islice(self._open, most)):
            del self._open[uuid]
            self._unnumbered.pop(uuid, None)
        self.forgotten += most


def _took(attempt: Attempt) -> float | None:
    """How long a run took: as the worker measured, else between two events of the same worker."""
    if attempt.duration is not None or not attempt.started or attempt.status == "unknown":
        return attempt.duration
    return max(0.0, attempt.ended - attempt.started)
