"""Makes readings of a survey: queues, workers, what is scheduled, and how many runs nobody could see."""

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import Any

from taskscope.bridges._rq_cron import Crons
from taskscope.bridges._rq_layout import JOB_FIELDS, Job, Keys, job_of
from taskscope.bridges._rq_survey import Batch, QueueSurvey, Survey
from taskscope.events import Fact, Jobs, QueueState, Reading, SchedulerState, Trigger, WorkerState
from taskscope.events import Job as Defined

_MEMORY = 900.0  # seconds for which a worker that was found dead is told as down, though RQ's others clean up after it
_PATIENCE = 3  # looks after which an end that a worker counted is not expected to show any more


class Unseen:
    """Compares what workers say they ended with the ends that were told."""

    def __init__(self) -> None:
        self.total = 0
        self._counts: dict[str, int] | None = None
        self._missing = 0
        self._lately: deque[int] = deque(maxlen=_PATIENCE)

    def look(self, survey: Survey, told: Iterable[Fact]) -> None:
        """Take in one look's counts, and the facts that it told."""
        counts = {worker.name: worker.count for worker in survey.workers.values() if worker.there}
        if self._counts is not None:
            ended = sum(fact.status in ("success", "failed", "retried") for fact in told)
            new = sum(max(0, count - self._counts.get(name, 0)) for name, count in counts.items())
            self._missing += new - ended
            self._lately.append(self._missing)
        self._counts = counts
        if len(self._lately) == _PATIENCE:
            lasting = max(0, min(self._lately)) or min(0, max(self._lately))
            self.total += max(0, lasting)
            self._missing -= lasting
            self._lately = deque((missing - lasting for missing in self._lately), maxlen=_PATIENCE)


class Readings:
    """What RQ is like now, in the words of taskscope."""

    def __init__(self, scheduler: str, client: Any, keys: Keys, described: bool) -> None:
        self._scheduler, self._client, self._keys, self._described = scheduler, client, keys, described
        self._crons = Crons()
        self._waiting: dict[str, Job] = {}
        """Jobs that are scheduled, or stand at the head of a queue."""
        self._dead: dict[str, float] = {}
        """Workers that went without a farewell, and when that was found."""
        self._there: set[str] = set()
        """The workers of the last look; of one that is gone it is said once that it is down."""

    def look(self, survey: Survey) -> list[Job]:
        """Learn of jobs that were not seen waiting before; returns those that are scheduled."""
        self._crons.read(survey.crons, survey.at)
        heads = {queue.head for queue in survey.queues.values() if queue.head}
        scheduled = {job_id for queue in survey.queues.values() for job_id in queue.scheduled}
        known = {job_id: job for job_id, job in self._waiting.items() if job_id in scheduled}
        new = (heads | scheduled) - known.keys()
        batch = Batch(self._client)
        for job_id in new:
            self._ask(batch, job_id, known)
        batch.go()
        self._waiting = known
        return [known[job_id] for job_id in new & scheduled & known.keys()]

    def _ask(self, batch: Batch, job_id: str, into: dict[str, Job]) -> None:
        def take(values: list[bytes | None]) -> None:
            job = job_of(job_id, values, self._described)
            if job is not None:
                into[job_id] = job

        batch.ask(take, "hmget", self._keys.job(job_id), JOB_FIELDS)

    def read(self, survey: Survey, unseen: int | None) -> Iterator[Reading]:
        """All readings, dated by our clock: it is the one that says when they are old."""
        now = time.time()
        yield SchedulerState(
            scheduler=self._scheduler,
            system="rq",
            at=now,
            up=True,
            running=not survey.suspended,
            summary=tuple(self._summary(survey)),
            unseen=unseen,
        )
        jobs = (*self._crons.jobs(), *self._scheduled(survey))
        yield Jobs(scheduler=self._scheduler, at=now, jobs=jobs, complete=False)
        consumers = Counter(name for one in survey.workers.values() if one.there for name in one.queues)
        for queue in survey.queues.values():
            yield self._queue(queue, now, consumers[queue.name])
        yield from self._workers(survey, now)

    def _summary(self, survey: Survey) -> Iterator[str]:
        there = sum(worker.there for worker in survey.workers.values())
        yield f"{self._scheduler}: RQ, {len(survey.queues)} queues, {there} workers"
        yield f"Workers are {'suspended' if survey.suspended else 'not suspended'}"
        yield f"Cron schedulers: {len(survey.crons)}"

    def _scheduled(self, survey: Survey) -> Iterator[Defined]:
        for queue in survey.queues.values():
            for job_id, due in queue.scheduled.items():
                if job := self._waiting.get(job_id):
                    yield Defined(
                        name=job.name,
                        key=job_id,
                        function=job.name,
                        queue=queue.name,
                        next_run=due,
                        triggers=(Trigger(key=job_id, state="WAITING", schedule="once", next_run=due),),
                    )

    def _queue(self, queue: QueueSurvey, at: float, consumers: int) -> QueueState:
        head = self._waiting.get(queue.head)
        return QueueState(
            scheduler=self._scheduler,
            queue=queue.name,
            at=at,
            ready=queue.ready,
            in_flight=len(queue.executing),
            scheduled=queue.scheduled_count,
            deferred=queue.deferred,
            failed=queue.failed,
            oldest=head.enqueued if head else None,
            consumers=consumers,
        )

    def _workers(self, survey: Survey, now: float) -> Iterator[WorkerState]:
        silent = {name for name, worker in survey.workers.items() if not worker.there}
        nobody = not any(worker.there for worker in survey.workers.values())  # that goes on being true
        self._dead = {
            name: at
            for name, at in (dict.fromkeys(silent, now) | self._dead).items()
            if name in silent or (name not in survey.workers and (nobody or now - at < _MEMORY))
        }
        left = self._there - survey.workers.keys()
        self._there = {name for name, worker in survey.workers.items() if worker.there}
        for name in left | self._dead.keys() - silent:
            yield WorkerState(scheduler=self._scheduler, worker=name, at=now, up=False, active=0)
        for worker in survey.workers.values():
            yield WorkerState(
                scheduler=self._scheduler,
                worker=worker.name,
                at=now,
                up=worker.there,
                active=int(worker.there and worker.state == "busy"),
            )
