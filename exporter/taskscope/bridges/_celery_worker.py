"""The Celery worker that this process is, and what it does now."""

import time
from collections.abc import Iterator
from typing import Any

from celery.bootsteps import RUN
from celery.worker import state

from taskscope.events import Reading, SchedulerState, WorkerState


def worker_readings(worker: Any, scheduler: str) -> Iterator[Reading]:
    """How the worker is; from its memory, without asking its broker."""
    if getattr(worker, "consumer", None) is None:
        return  # it is about to start
    at, connected = time.time(), _connected(worker)
    yield SchedulerState(
        scheduler=scheduler,
        system="celery",
        at=at,
        up=connected,
        running=connected,
        summary=tuple(_summary(worker, scheduler)),
    )
    active = len(state.active_requests)
    yield WorkerState(
        scheduler=scheduler,
        worker=worker.hostname,
        at=at,
        active=active,
        slots=getattr(getattr(worker, "pool", None), "limit", None),  # what it answers who asks from outside
        reserved=max(0, len(state.reserved_requests) - active),
    )


def worker_stopped(worker: Any, scheduler: str) -> WorkerState:
    """The last that is said of a worker."""
    return WorkerState(scheduler=scheduler, worker=worker.hostname, at=time.time(), up=False, active=0)


def _connected(worker: Any) -> bool:
    """Does it run, and has it a connection to its broker?"""
    consumer = worker.consumer
    if consumer.blueprint is None or consumer.blueprint.state != RUN:
        return False
    connection = consumer.connection
    return connection is not None and bool(connection.connected)


def _summary(worker: Any, scheduler: str) -> Iterator[str]:
    pool = type(getattr(worker, "pool", None)).__module__.rpartition(".")[2]
    queues = list(getattr(worker.app.amqp.queues, "consume_from", {}))
    yield f"{scheduler}: {worker.hostname}, pool {pool}, concurrency {worker.concurrency}"
    yield f"Queues: {', '.join(map(str, queues)) or 'none'}"
