"""`/api/entity/`: what runs were about (shops, tenants, databases), and how the runs of each went."""

from typing import Annotated

import msgspec
from msgspec import Meta

from taskscope.api.endpoint import Call, get
from taskscope.api.params import Limit, Offset, When, window
from taskscope.api.task import DAY, Schedulers, Tasks
from taskscope.api.wire import Moment, moment
from taskscope.sinks.history.entities import EntityStats


class EntityRow(msgspec.Struct, frozen=True, kw_only=True):
    """One entity within one scheduler."""

    entity: str
    scheduler: str
    healthy: Annotated[bool, Meta(description="Nothing has failed since the latest success.")]
    pending: int
    processing: int
    completed: int
    failed: Annotated[int, Meta(description="Failed or lost.")]
    statuses: Annotated[dict[str, int], Meta(description="Runs by status.")]
    last_run_at: Annotated[Moment | None, Meta(description="Anchor of the latest run.")]


class EntitiesQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Of which time and which jobs."""

    task: Tasks = ()
    scheduler: Schedulers = ()
    since: Annotated[When, Meta(description="Begin; default: 24 h before the end.")] = msgspec.field(
        default="", name="from"
    )
    until: Annotated[When, Meta(description="End; default: now.")] = msgspec.field(default="", name="to")
    unhealthy: Annotated[bool, Meta(description="Only those that are not healthy.")] = False
    limit: Limit = 50
    offset: Offset = 0


class EntityPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the entities, by name."""

    total: int
    unhealthy: Annotated[int, Meta(description="Of all that match, how many are not healthy.")]
    limit: int
    offset: int
    data: list[EntityRow]


@get("/api/entity/", tag="Runs", errors=(404, 503))
async def entities(call: Call, query: EntitiesQuery) -> EntityPage:
    """List what the runs of a span of time were about, with counts by status, by name."""
    since, until = window(query.since, query.until, call.now, DAY)
    found = await call.ask(call.queries.entities, since, until, query.scheduler, query.task)
    bad = [one for one in found if not one.healthy]
    wanted = bad if query.unhealthy else found
    limit = min(query.limit, call.backend.settings.limits.page)
    return EntityPage(
        total=len(wanted),
        unhealthy=len(bad),
        limit=limit,
        offset=query.offset,
        data=[_row(one) for one in wanted[query.offset : query.offset + limit]],
    )


def _row(one: EntityStats) -> EntityRow:
    count = one.statuses.get
    return EntityRow(
        entity=one.entity,
        scheduler=one.scheduler,
        healthy=one.healthy,
        pending=count("queued", 0),
        processing=count("started", 0),
        completed=count("success", 0),
        failed=count("failed", 0) + count("unknown", 0),
        statuses=one.statuses,
        last_run_at=moment(one.last_run),
    )
