"""What is known of a Celery that is watched from outside: shared by the thread that listens and the one that reads."""

import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable

import msgspec

from taskscope.bridges._celery_events import CeleryEvent, Decoder
from taskscope.bridges._celery_join import Join
from taskscope.bridges._celery_workers import Workers
from taskscope.events import Fact, Reading, SchedulerState

logger = logging.getLogger("taskscope")

_RECENT = 10.0  # seconds for which what a worker says of itself and the events of its runs may differ
_QUEUES = 1_000  # names of queues that are kept between two readings


class _Delivery(msgspec.Struct, frozen=True):
    routing_key: str = ""


class Request(msgspec.Struct):
    """A task as its worker describes it. It does not say which attempt it is."""

    id: str
    name: str
    time_start: float | None = None
    delivery_info: _Delivery = _Delivery()


class State:
    """The tasks, the workers, and how much was heard."""

    def __init__(self, scheduler: str, silence: float, memory: float, tasks: int) -> None:
        self._scheduler = scheduler
        self._lock = threading.Lock()
        self.decoder = Decoder()
        self.workers = Workers(scheduler, silence, memory)
        self.tasks = Join(scheduler, tasks, self.workers.only_queue)
        self._queues: set[str] = set()
        self._heard = 0
        self._warned = False

    def take(self, events: Iterable[CeleryEvent], now: float) -> tuple[list[Fact], bool]:
        """Take in what came; the facts about runs that follow, and whether a new worker is there."""
        with self._lock:
            new, tasks, count = False, self.tasks.take, 0
            for event in events:
                count += 1
                if event.uuid:
                    tasks(event, now)
                else:
                    new |= self.workers.take(event, now)
            facts = self.tasks.told(now)
            self._heard += count
            self.workers.told_by({fact.worker for fact in facts})
            if len(self._queues) < _QUEUES:
                self._queues |= {fact.queue for fact in facts}
        return facts, new

    def resume(self) -> None:
        """Events come again."""
        with self._lock:
            self.workers.resume(time.time())

    def queues(self) -> set[str]:
        """The queues of which events told since the last call."""
        with self._lock:
            queues, self._queues = self._queues, set()
        return queues - {""}

    def arrived(self) -> list[str]:
        """The workers that are new since the last call."""
        with self._lock:
            arrived, self.workers.arrived = self.workers.arrived, set()
        return sorted(arrived)

    def count_up(self) -> int:
        """How many workers are there."""
        with self._lock:
            return len(self.workers.up(time.time()))

    def learn(self, worker: str, **known: object) -> None:
        """What a worker answered."""
        with self._lock:
            self.workers.learn(worker, **known)

    def consumers(self, queue: str, now: float) -> int:
        """How many workers consume from a queue."""
        with self._lock:
            return self.workers.consumers(queue, now)

    def sent_at(self, uuid: str) -> float | None:
        """When a task was sent, if an event told."""
        with self._lock:
            return self.tasks.sent_at(uuid)

    def doubtful(self, now: float, most: int) -> dict[str, list[str]]:
        """Of workers that execute less than was heard of, the runs whose end may have been missed; at most `most`."""
        with self._lock:
            active = {worker.name: worker.active for worker in self.workers.up(now)}
            runs: dict[str, list[str]] = defaultdict(list)
            for task, attempt in self.tasks.started():
                runs[attempt.worker] += [task.uuid] if now - attempt.started > _RECENT else []
        few = {name: uuids for name, uuids in runs.items() if len(uuids) > (active.get(name) or 0)}
        return {name: uuids[:most] for name, uuids in few.items() if active.get(name) is not None}

    def recall(self, worker: str, requests: Iterable[Request], now: float) -> None:
        """A worker has these tasks."""
        with self._lock:
            for one in requests:
                self.tasks.recall(
                    one.id, one.name, one.delivery_info.routing_key, worker, one.time_start or 0.0, now
                )

    def lose(self, uuids: Collection[str]) -> None:
        """These tasks are not executed any more, and their end was not heard."""
        with self._lock:
            lost = [run for run in self.tasks.started() if run[0].uuid in uuids]
            self.tasks.lose(lost, time.time())

    def readings(self, now: float) -> list[Reading]:
        """The workers, and how the scheduler is; what a worker that is gone had begun ends as lost."""
        with self._lock:
            is_gone = self.workers.is_gone
            gone = [run for run in self.tasks.started() if is_gone(run[1].worker, run[1].started, now)]
            self.tasks.lose(gone, now)
            workers, mute = self.workers.readings(now), self.workers.silent_about_tasks()
            up = sum(worker.up for worker in workers)
            summary = (*self._summary(Counter(worker.up for worker in workers)), *map(_remedy, mute[:3]))
        if mute and not self._warned:
            self._warned = True
            logger.warning("taskscope: scheduler %s: %s", self._scheduler, _remedy(mute[0]))
        state = SchedulerState(
            scheduler=self._scheduler, system="celery", at=now, up=True, running=up > 0, summary=summary
        )
        return [state, *workers]

    def _summary(self, workers: Counter[bool]) -> tuple[str, str]:
        decoder, tasks = self.decoder, self.tasks
        return (
            f"Workers: {workers[True]} up, {workers[False]} down",
            f"Events: {self._heard} heard, {decoder.foreign} messages not JSON, {decoder.broken} broken; "
            f"tasks: {len(tasks)} not over, {tasks.forgotten} forgotten",
        )


def _remedy(worker: str) -> str:
    return f"{worker} sends no events of its tasks; start it with -E, or set the option enable_events"
