"""The workers that are heard of: who is up, who went away in order, and who fell silent.

A worker says every two seconds that it lives, and in the end that it goes. By our clock, so that a wrong one of a
worker's host does no harm; and while we ourselves do not hear, nobody is silent.
"""

import math
from collections.abc import Iterable

import msgspec

from taskscope.bridges._celery_events import CeleryEvent
from taskscope.events import WorkerState

_KINDS = ("worker-heartbeat", "worker-online", "worker-offline")
_FAREWELL = 60.0
"""Seconds for which a worker that went away in order is told as down: then it is no worker any more."""
_LAST_WORDS = 5.0
"""Seconds after a worker's end in which events of its runs may still come."""


class Worker(msgspec.Struct):
    """What is known of a worker. Points in time are our clock."""

    name: str
    heard: float
    since: float = 0.0
    """When this process of it began, by its own clock; 0 if it was there before."""
    left: float = 0.0
    """When it said that it goes; 0 if it did not."""
    pid: int | None = None
    active: int | None = None
    processed: int | None = None
    processed_first: int | None = None
    """What it had executed when it was first heard of."""
    tells: bool = False
    """Have events of its tasks come?"""
    slots: int | None = None
    reserved: int | None = None
    queues: tuple[str, ...] = ()


class Workers:
    """All of them. Used under one lock."""

    def __init__(self, scheduler: str, silence: float, memory: float) -> None:
        self._scheduler, self._silence, self._memory = scheduler, silence, memory
        self._workers: dict[str, Worker] = {}
        self.arrived: set[str] = set()
        """New ones that nobody has asked anything yet."""

    def __len__(self) -> int:
        return len(self._workers)

    def take(self, event: CeleryEvent, now: float) -> bool:
        """Take in what a worker says of itself; True where it is new."""
        worker = self._workers.get(event.hostname)
        if event.type not in _KINDS:
            return False
        if event.type == "worker-offline":
            if worker is not None:
                worker.left = worker.heard = now
            return False
        new = worker is None or bool(worker.left)
        if worker is None or _is_another(worker, event):
            since = 0.0 if worker is None else event.timestamp
            worker = self._workers[event.hostname] = Worker(event.hostname, now, since, pid=event.pid)
            worker.processed_first = event.processed
            self.arrived.add(event.hostname)
        worker.heard, worker.left = now, 0.0
        worker.active, worker.processed = event.active, event.processed
        return new

    def told_by(self, names: Iterable[str]) -> None:
        """Events of tasks came from these."""
        for name in names:
            if (worker := self._workers.get(name)) is not None:
                worker.tells = True

    def resume(self, now: float) -> None:
        """We hear again: silence begins anew."""
        for worker in self._workers.values():
            worker.heard = now

    def up(self, now: float) -> list[Worker]:
        """Those that are there."""
        return [worker for worker in self._workers.values() if self._is_up(worker, now)]

    def is_gone(self, name: str, started: float, now: float) -> bool:
        """Is the process that started a run at this time (by the worker's clock) surely gone?"""
        worker = self._workers.get(name)
        if worker is None:
            return False
        if worker.left:
            return now - worker.left > _LAST_WORDS
        return now - worker.heard > self._silence or started < worker.since

    def learn(self, name: str, **known: object) -> None:
        """What a worker answered."""
        if (worker := self._workers.get(name)) is not None:
            for field, value in known.items():
                setattr(worker, field, value)

    def readings(self, now: float) -> list[WorkerState]:
        """How each is; those that are long gone are forgotten, unless nobody is there: that goes on being true."""
        memory = self._memory if self.up(now) else math.inf
        for name, worker in list(self._workers.items()):
            if now - worker.heard > (_FAREWELL if worker.left else memory):
                del self._workers[name]
                self.arrived.discard(name)
        return [self._reading(worker, now) for worker in self._workers.values()]

    def consumers(self, queue: str, now: float) -> int:
        """How many of those that are up consume from a queue."""
        return sum(queue in worker.queues for worker in self.up(now))

    def only_queue(self, name: str) -> str:
        """The queue that a worker consumes from, if it is only one."""
        worker = self._workers.get(name)
        return worker.queues[0] if worker is not None and len(worker.queues) == 1 else ""

    def silent_about_tasks(self) -> list[str]:
        """Those that executed something, and sent no event of it."""
        return sorted(
            worker.name
            for worker in self._workers.values()
            if not worker.tells and (worker.processed or 0) > (worker.processed_first or 0)
        )

    def _is_up(self, worker: Worker, now: float) -> bool:
        return not worker.left and now - worker.heard <= self._silence

    def _reading(self, worker: Worker, now: float) -> WorkerState:
        up = self._is_up(worker, now)
        return WorkerState(
            scheduler=self._scheduler,
            worker=worker.name,
            at=worker.heard if up or worker.left else now,
            up=up,
            active=worker.active if up else None,
            slots=worker.slots if up else None,
            reserved=worker.reserved if up else None,
        )


def _is_another(worker: Worker, event: CeleryEvent) -> bool:
    """Is this a new process under an old name? In containers all have the same pid, but it counts from 0 again."""
    return worker.pid != event.pid or (event.processed or 0) < (worker.processed or 0)
