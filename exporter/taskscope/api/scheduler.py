"""`/api/task/info`: what the schedulers say of themselves and of their jobs."""

from typing import Annotated

import msgspec
from msgspec import Meta

from taskscope.api.endpoint import Call, get
from taskscope.api.job import JobRow, job_row
from taskscope.api.params import Limit, Offset, Texts
from taskscope.api.wire import Moment, moment_of
from taskscope.events import SchedulerState


class SchedulerRow(msgspec.Struct, frozen=True, kw_only=True):
    """A scheduler as it was last read."""

    scheduler: str
    system: Annotated[str, Meta(description="Its kind: `apscheduler`, `celery` …")]
    up: bool
    running: Annotated[bool, Meta(description="Does it start jobs? False where it is paused or shut down.")]
    at: Annotated[Moment | None, Meta(description="When it was read.")]
    summary: list[str]
    labels: Annotated[dict[str, str], Meta(description="What it belongs to: environment, project.")]


class InfoQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Of which schedulers."""

    scheduler: Annotated[Texts, Meta(description="Name of the scheduler.")] = ()
    limit: Limit = 1000
    offset: Offset = 0


class Info(msgspec.Struct, frozen=True, kw_only=True):
    """The schedulers and their jobs."""

    scheduler: Annotated[list[str], Meta(description="A summary in lines, as Metabase gives it.")]
    schedulers: list[SchedulerRow]
    jobs: Annotated[list[JobRow], Meta(description="With their triggers; without jobs that were removed.")]
    total: Annotated[int, Meta(description="All jobs.")]
    limit: int
    offset: int


@get("/api/task/info", tag="Jobs")
async def info(call: Call, query: InfoQuery) -> Info:
    """Show what the schedulers say of themselves, their jobs and the jobs' triggers.

    Metabase's names map to ours: `class` is `function`, `concurrent-execution-disallowed?` is the opposite
    of `overlap`, `durable?` is `durable`, `requests-recovery?` is in `properties` where a scheduler has it;
    of a trigger `start-time` is `start_at`, `end-time` and `final-fire-time` are `end_at`, `next-fire-time`
    is `next_run_at`, `previous-fire-time` is `previous_run_at`, `may-fire-again?` is `may_fire_again`,
    `misfire-instruction` is `misfire_policy`. The trigger state that Metabase calls NORMAL is WAITING here,
    as in the metrics.
    """
    live, limit = call.backend.live, min(query.limit, call.backend.settings.limits.page)
    with live.lock:
        states = [state for name, state in sorted(live.schedulers.items()) if _wanted(name, query)]
        keys = sorted(
            key for key, job in live.jobs.items() if not job.state.removed and _wanted(key[0], query)
        )
        jobs = [job_row(key, live.jobs[key]) for key in keys[query.offset : query.offset + limit]]
    return Info(
        scheduler=[line for state in states for line in _lines(state)],
        schedulers=[_row(state) for state in states],
        jobs=jobs,
        total=len(keys),
        limit=limit,
        offset=query.offset,
    )


def _wanted(scheduler: str, query: InfoQuery) -> bool:
    return not query.scheduler or scheduler in query.scheduler


def _lines(state: SchedulerState) -> list[str]:
    does = "running" if state.running else "not running" if state.up else "down"
    return [f"{state.scheduler} ({state.system}): {does}", *state.summary]


def _row(state: SchedulerState) -> SchedulerRow:
    return SchedulerRow(
        scheduler=state.scheduler,
        system=state.system,
        up=state.up,
        running=state.running,
        at=moment_of(state.at),
        summary=list(state.summary),
        labels=state.labels,
    )
