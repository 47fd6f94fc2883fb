"""`/api/worker/`: the workers and what they do."""

from typing import Annotated

import msgspec
from msgspec import Meta

from taskscope.api.endpoint import Call, get
from taskscope.api.params import Limit, Offset, Texts
from taskscope.api.wire import Moment, moment_of
from taskscope.events import WorkerState


class WorkerRow(msgspec.Struct, frozen=True, kw_only=True):
    """A worker as it was last read; null where its scheduler cannot say."""

    scheduler: str
    worker: str
    at: Annotated[Moment | None, Meta(description="When it was read.")]
    up: bool
    active: Annotated[int | None, Meta(description="Runs that it executes now.")]
    slots: Annotated[int | None, Meta(description="Runs that it can execute at once.")]
    reserved: Annotated[int | None, Meta(description="Runs that it has taken and not started.")]
    memory_bytes: int | None
    threads: int | None
    cpu_seconds: float | None


class WorkersQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which workers."""

    scheduler: Annotated[Texts, Meta(description="Name of the scheduler.")] = ()
    limit: Limit = 50
    offset: Offset = 0


class WorkerPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the workers, by scheduler and name."""

    total: int
    limit: int
    offset: int
    data: list[WorkerRow]


@get("/api/worker/", tag="Queues and workers")
async def workers(call: Call, query: WorkersQuery) -> WorkerPage:
    """List the workers that were read lately, by scheduler and name."""
    limit = min(query.limit, call.backend.settings.limits.page)
    with call.backend.live.lock:
        states = sorted(call.backend.live.workers.items())
    rows = [
        _row(state) for (scheduler, _), state in states if not query.scheduler or scheduler in query.scheduler
    ]
    return WorkerPage(
        total=len(rows), limit=limit, offset=query.offset, data=rows[query.offset : query.offset + limit]
    )


def _row(state: WorkerState) -> WorkerRow:
    return WorkerRow(
        scheduler=state.scheduler,
        worker=state.worker,
        at=moment_of(state.at),
        up=state.up,
        active=state.active,
        slots=state.slots,
        reserved=state.reserved,
        memory_bytes=state.memory_bytes,
        threads=state.threads,
        cpu_seconds=state.cpu_seconds,
    )
