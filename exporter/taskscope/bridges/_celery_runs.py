"""A task that Celery executes, and what is told of it."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from taskscope.bridges._celery_mapping import ENQUEUED, TRACEPARENT, details, due, number, trace_id
from taskscope.contracts import Told
from taskscope.events import Error, Fact, Status
from taskscope.run import Run

_NO_ARGUMENTS = dict.fromkeys(
    ("args", "kwargs", "argsrepr", "kwargsrepr", "callbacks", "errbacks", "chain", "chord")
)
"""Of a request, what an event that waits must not keep: its arguments and those of what follows, which may be large."""


class Watch(msgspec.Struct, eq=False):
    """What all that is told of one app's tasks has in common."""

    app: Any
    scheduler: str
    instance: str
    emit: Callable[[Told], None]

    def tell(self, job: str, task: Mapping[str, Any], status: Status, **facts: Any) -> None:
        """Tell of a run that something else than its execution knows of."""
        at, kept = time.time(), kept_of(task)
        self.emit(lambda: self.fact(job, kept, status, at, **facts))

    def fact(
        self,
        job: str,
        task: Mapping[str, Any],
        status: Status,
        at: float,
        *,
        started: float | None = None,
        duration: float | None = None,
        reason: str = "",
        error: Error | None = None,
    ) -> Fact:
        """The fact, from what the message and the worker say of the task."""
        return Fact(
            scheduler=self.scheduler,
            native=str(task["id"]),
            status=status,
            at=at,
            attempt=task.get("retries") or 0,
            job=job,
            due=due(task),
            enqueued=number(task.get(ENQUEUED)),
            started=started,
            duration=duration,
            reason=reason,
            queue=self._queue(task.get("delivery_info") or {}),
            worker=task.get("hostname") or "",
            instance=self.instance,
            trace_id=trace_id(task.get(TRACEPARENT)),
            error=error,
            details=details(task),
        )

    def _queue(self, delivery: Mapping[str, Any]) -> str:
        """The queue that a message came from: by default its routing key, else what is bound to its exchange by it."""
        exchange, key = delivery.get("exchange"), delivery.get("routing_key") or ""
        if not exchange or delivery.get("is_eager"):
            return "" if delivery.get("is_eager") else key
        for name, queue in list(self.app.amqp.queues.items()):
            if queue.routing_key == key and getattr(queue.exchange, "name", None) == exchange:
                return str(name)
        return str(key)


class Execution(msgspec.Struct, gc=False, eq=False):
    """A task being executed here; its start and its end become facts on a thread of ours.

    The collector need not know of it (`gc=False`): nothing that it leads to leads back once the task has ended.
    """

    watch: Watch
    job: str
    task: dict[str, Any]
    started: float
    begun: float = 0.0
    token: Any = None
    """What `leave` wants."""
    handled: int = 0
    """The exception that was being handled when it began; another one at its end is on its way out of Celery."""
    status: Status | None = None
    """How it has ended."""
    duration: float = 0.0
    reason: str = ""
    error: Error | None = None
    """What it failed with, or why it is tried again."""

    def __call__(self) -> Run:
        """The run as `current_run` tells it."""
        task = self.task
        return Run(self.watch.scheduler, self.job, str(task["id"]), task.get("retries") or 0, due(task), None)

    def tell(self, fact: Fact) -> None:
        """Pass on what the run itself says."""
        self.watch.emit(msgspec.structs.replace(fact, instance=self.watch.instance))

    def start(self) -> Fact | None:
        """That it has started; None where the end, which says all of it, has been told meanwhile."""
        if self.status is not None:
            return None
        return self.watch.fact(self.job, self.task, "started", self.started, started=self.started)

    def end(self) -> Fact | None:
        """How it has ended."""
        if self.status is None:
            return None
        return self.watch.fact(
            self.job,
            self.task,
            self.status,
            self.started + self.duration,
            started=self.started,
            duration=self.duration,
            reason=self.reason,
            error=self.error,
        )


def kept_of(task: Mapping[str, Any]) -> dict[str, Any]:
    """A request without its arguments. To copy all of it is quicker than to look for what is wanted."""
    return {**task, **_NO_ARGUMENTS}
