"""`/api/queue/`: what waits in the queues."""

from typing import Annotated

import msgspec
from msgspec import Meta

from taskscope.api.endpoint import Call, get
from taskscope.api.params import Limit, Offset, Texts
from taskscope.api.wire import Moment, moment_of
from taskscope.events import QueueState


class QueueRow(msgspec.Struct, frozen=True, kw_only=True):
    """A queue as it was last read; null where its scheduler cannot say."""

    scheduler: str
    queue: str
    at: Annotated[Moment | None, Meta(description="When it was read.")]
    ready: Annotated[int | None, Meta(description="Messages that a worker could take now.")]
    in_flight: Annotated[int | None, Meta(description="Messages that workers have taken and not finished.")]
    scheduled: Annotated[int | None, Meta(description="Messages that become ready later.")]
    oldest_at: Annotated[Moment | None, Meta(description="Since when the oldest ready message waits.")]
    consumers: int | None
    deferred: Annotated[int | None, Meta(description="Messages that wait for others to be done.")]
    failed: Annotated[int | None, Meta(description="Messages that are kept because they failed.")]


class QueuesQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which queues."""

    scheduler: Annotated[Texts, Meta(description="Name of the scheduler.")] = ()
    queue: Annotated[Texts, Meta(description="Name of the queue.")] = ()
    limit: Limit = 50
    offset: Offset = 0


class QueuePage(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the queues, by scheduler and name."""

    total: int
    limit: int
    offset: int
    data: list[QueueRow]


@get("/api/queue/", tag="Queues and workers")
async def queues(call: Call, query: QueuesQuery) -> QueuePage:
    """List the queues that were read lately, by scheduler and name."""
    limit = min(query.limit, call.backend.settings.limits.page)
    with call.backend.live.lock:
        states = sorted(call.backend.live.queues.items())
    rows = [_row(state) for key, state in states if _wanted(key, query)]
    return QueuePage(
        total=len(rows), limit=limit, offset=query.offset, data=rows[query.offset : query.offset + limit]
    )


def _wanted(key: tuple[str, str], query: QueuesQuery) -> bool:
    return (not query.scheduler or key[0] in query.scheduler) and (not query.queue or key[1] in query.queue)


def _row(state: QueueState) -> QueueRow:
    return QueueRow(
        scheduler=state.scheduler,
        queue=state.queue,
        at=moment_of(state.at),
        ready=state.ready,
        in_flight=state.in_flight,
        scheduled=state.scheduled,
        oldest_at=moment_of(state.oldest),
        consumers=state.consumers,
        deferred=state.deferred,
        failed=state.failed,
    )
