"""`/api/task/stats`: what the runs of a span of time add up to."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from taskscope.api.endpoint import Call, get
from taskscope.api.params import Limit, Offset, Texts, When, window
from taskscope.api.slow import Slow, by_rule, limits
from taskscope.api.task import DAY, Schedulers, Tasks
from taskscope.api.wire import Milliseconds, Moment, milliseconds, moment
from taskscope.sinks.history.records import JobStats

Percentile = Annotated[float, Meta(gt=0, lt=100)]


class StatsQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Of which time and which jobs."""

    task: Tasks = ()
    scheduler: Schedulers = ()
    queue: Annotated[
        Texts, Meta(description="Only runs of these queues. Counted from the runs that are kept.")
    ] = ()
    entity: Annotated[
        Texts,
        Meta(description="Only runs about these: shops, tenants … Counted from the runs that are kept."),
    ] = ()
    since: Annotated[When, Meta(description="Begin; default: 24 h before the end.")] = msgspec.field(
        default="", name="from"
    )
    until: Annotated[When, Meta(description="End; default: now.")] = msgspec.field(default="", name="to")
    percentiles: Annotated[
        tuple[Percentile, ...], Meta(max_length=10, description="Which percentiles; default: the setting.")
    ] = ()
    slow: Annotated[
        Slow,
        Meta(
            description="Count runs that took longer than so many ms, or (`p95`) than their job's p95; "
            "default: than the rules' `slow_after`."
        ),
    ] = ""
    limit: Limit = 1000
    offset: Offset = 0


class Numbers(msgspec.Struct, frozen=True, kw_only=True):
    """What some runs add up to."""

    runs: int
    statuses: Annotated[
        dict[str, int], Meta(description="Runs by status; a status that none has is left out.")
    ]
    rate: Annotated[float, Meta(description="Runs that ended, a second.")]
    failure_rate: Annotated[float, Meta(ge=0, le=1, description="failed / (success + failed).")]
    mean: Annotated[Milliseconds | None, Meta(description="Duration; null where no run has one.")]
    max: Annotated[Milliseconds | None, Meta(description="Duration of the longest.")]
    percentiles: Annotated[dict[str, float], Meta(description="`p95` to ms, within 5 %.")]
    slow: Annotated[int | None, Meta(description="Runs beyond the limit; null where there is none.")]


class TaskNumbers(Numbers, frozen=True, kw_only=True):
    """What the runs of one job add up to."""

    scheduler: str
    task: str


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """Statistics over a span of time."""

    since: Moment = msgspec.field(name="from")
    until: Moment = msgspec.field(name="to")
    overall: Numbers
    total: Annotated[int, Meta(description="Jobs.")]
    limit: int
    offset: int
    data: list[TaskNumbers]


@get("/api/task/stats", tag="Runs", errors=(404, 503))
async def stats(call: Call, query: StatsQuery) -> Stats:
    """Add up the runs of a span of time, per job and overall.

    Full hours come from rollups, which are kept longer than the runs themselves.
    """
    since, until = window(query.since, query.until, call.now, DAY)
    slow, slow_by_job = await limits(call, query.slow) if query.slow else (None, by_rule(call))
    asked = slow is not None or bool(slow_by_job)
    overall, *jobs = await call.ask(
        call.queries.stats,
        since,
        until,
        query.percentiles or call.backend.settings.percentiles,
        jobs=query.task,
        scheduler=query.scheduler,
        slow=slow,
        slow_by_job=slow_by_job or None,
        queue=query.queue,
        entity=query.entity,
    )
    limit = min(query.limit, call.backend.settings.limits.page)
    return Stats(
        since=moment(since) or "",
        until=moment(until) or "",
        overall=Numbers(**_numbers(overall, asked)),
        total=len(jobs),
        limit=limit,
        offset=query.offset,
        data=[
            TaskNumbers(scheduler=job.scheduler, task=job.job, **_numbers(job, asked))
            for job in jobs[query.offset : query.offset + limit]
        ],
    )


def _numbers(stats: JobStats, slow: bool) -> dict[str, Any]:
    return {
        "runs": stats.runs,
        "statuses": stats.statuses,
        "rate": stats.rate,
        "failure_rate": stats.failure_rate,
        "mean": milliseconds(stats.mean),
        "max": milliseconds(stats.max),
        "percentiles": {name: milliseconds(value) for name, value in stats.percentiles.items()},
        "slow": stats.slow if slow else None,
    }
