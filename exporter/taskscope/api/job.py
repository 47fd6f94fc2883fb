"""`/api/job/`: the jobs that are known, how they are defined and what they do now."""

from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta

from taskscope.api.app import json_response
from taskscope.api.backfill import BackfillQuery, BackfillRow, backfill_row, backfilled
from taskscope.api.endpoint import Call, delete, get, post
from taskscope.api.errors import ApiError, missing
from taskscope.api.params import Limit, Offset, Text, Texts
from taskscope.api.wire import Milliseconds, Moment, milliseconds, moment_of
from taskscope.backfill import backfills
from taskscope.events import Job, JobKey, Removed, Trigger, TriggerState
from taskscope.live_job import LiveJob


class TriggerRow(msgspec.Struct, frozen=True, kw_only=True):
    """What makes a job due; null where its scheduler cannot say."""

    key: str
    state: TriggerState
    schedule: Annotated[str | None, Meta(description="In the scheduler's own words.")]
    description: str | None
    timezone: str | None
    priority: int | None
    start_at: Moment | None
    end_at: Moment | None
    next_run_at: Moment | None
    previous_run_at: Moment | None
    may_fire_again: bool | None
    misfire_policy: str | None
    data: dict[str, Any]


class JobRow(msgspec.Struct, frozen=True, kw_only=True):
    """A job; null where something is not known or never was."""

    scheduler: str
    name: str
    key: Annotated[
        str | None, Meta(description="The scheduler's own id; null before its jobs were first read.")
    ]
    function: str | None
    description: str | None
    queue: str | None
    paused: bool
    overlap: Annotated[bool | None, Meta(description="May it run while it still runs?")]
    durable: bool | None
    interval: Annotated[Milliseconds | None, Meta(description="Between its next two due times.")]
    next_run_at: Moment | None
    running: Annotated[int, Meta(description="Runs in progress.")]
    oldest_running_at: Moment | None
    last_run_at: Moment | None
    last_success_at: Moment | None
    last_failure_at: Moment | None
    last_duration: Milliseconds | None
    consecutive_failures: int
    first_seen_at: Moment | None
    removed_at: Annotated[Moment | None, Meta(description="Since when its scheduler no longer knows it.")]
    backfill: Annotated[bool, Meta(description="Can it be started again here, by POST to its `/backfill`?")]
    last_backfill: Annotated[
        BackfillRow | None, Meta(description="The one that runs in this process, or ran last.")
    ]
    properties: dict[str, Any]
    data: dict[str, Any]
    triggers: list[TriggerRow]


class JobsQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs."""

    scheduler: Annotated[Texts, Meta(description="Name of the scheduler.")] = ()
    q: Annotated[Text, Meta(description="Text in the job's name, key, function or description.")] = ""
    limit: Limit = 50
    offset: Offset = 0


class JobPath(msgspec.Struct, frozen=True):
    """Which job."""

    scheduler: Annotated[Text, Meta(description="Name of the scheduler.")]
    name: Annotated[Text, Meta(description="The job's name, percent-encoded; it may hold slashes.")]


class JobPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the jobs that the filters leave, by scheduler and name."""

    total: int
    limit: int
    offset: int
    data: list[JobRow]


@get("/api/job/", tag="Jobs")
async def jobs(call: Call, query: JobsQuery) -> JobPage:
    """List the jobs that are known, with their triggers, by scheduler and name."""
    limit = min(query.limit, call.backend.settings.limits.page)
    live = call.backend.live
    with live.lock:
        keys = sorted(key for key, job in live.jobs.items() if _wanted(key, job, query))
        page = [job_row(key, live.jobs[key]) for key in keys[query.offset : query.offset + limit]]
    return JobPage(total=len(keys), limit=limit, offset=query.offset, data=page)


@get("/api/job/{scheduler}/{name}", tag="Jobs", errors=(404,))
async def job(call: Call, path: JobPath) -> JobRow:
    """Show one job."""
    live, key = call.backend.live, (path.scheduler, path.name)
    with live.lock:
        found = live.jobs.get(key)
        if found is None:
            raise missing(f"job {path.name!r} of scheduler {path.scheduler!r}")
        return job_row(key, found)


@delete("/api/job/{scheduler}/{name}", tag="Jobs", scope="manage", errors=(404, 409))
async def remove(call: Call, path: JobPath) -> JobRow:
    """Say that a job is no more.

    For one whose host or program is gone for good: nobody else can know that it is not overdue. Its promises end now,
    its metrics leave after `job_ttl`, its runs stay in the history. If it runs again, it is back. A job that its
    scheduler still lists is removed there; the answer here is 409.
    """
    live, key = call.backend.live, (path.scheduler, path.name)
    with live.lock:
        if key not in live.jobs:
            raise missing(f"job {path.name!r} of scheduler {path.scheduler!r}")
        if live.lists(key, call.now / 1000):
            raise ApiError(409, f"Scheduler {path.scheduler!r} lists {path.name!r}; remove it there.")
    await call.durable(call.writer.deliver([Removed(scheduler=key[0], at=call.now / 1000, job=key[1])]))
    with live.lock:
        return job_row(key, live.jobs[key])


@post("/api/job/{scheduler}/{name}/backfill", tag="Jobs", scope="manage", errors=(404, 409, 502), also=(202,))
async def backfill(call: Call, path: JobPath, query: BackfillQuery) -> web.StreamResponse | BackfillRow:
    """Start a job's work again: what is missing, or with `force` everything, also what failed.

    The program does it, by the function that it registered under `@taskscope.on_backfill`; where none is, the answer is
    404, and while it runs 409. It is waited for a few seconds; the answer then is 202, and `last_backfill` of the job
    says what came of it. It is a record of this process, and also in its log.
    """
    done = await backfilled(call, (path.scheduler, path.name), query)
    return json_response(call.request, backfill_row(done), 200 if done.ended else 202)


def job_row(key: JobKey, live: LiveJob) -> JobRow:
    """The job as the API writes it; call it under the lock of `live`."""
    state, known, latest = live.state, live.definition or _UNREAD, backfills.latest(key)
    return JobRow(
        scheduler=key[0],
        name=key[1],
        key=known.key or None,
        function=known.function or None,
        description=known.description or None,
        queue=known.queue or None,
        paused=state.paused,
        overlap=known.overlap,
        durable=known.durable,
        interval=milliseconds(state.interval or None),
        next_run_at=moment_of(state.next_run),
        running=len(live.running),
        oldest_running_at=moment_of(min(live.running.values(), default=None)),
        last_run_at=moment_of(state.last_run),
        last_success_at=moment_of(state.last_success),
        last_failure_at=moment_of(state.last_failure),
        last_duration=milliseconds(state.last_duration if state.last_success or state.last_failure else None),
        consecutive_failures=state.consecutive_failures,
        first_seen_at=moment_of(state.first_seen),
        removed_at=moment_of(state.removed),
        backfill=backfills.function(key) is not None,
        last_backfill=latest and backfill_row(latest),
        properties=known.properties,
        data=known.data,
        triggers=[_trigger_row(trigger) for trigger in known.triggers],
    )


def _trigger_row(trigger: Trigger) -> TriggerRow:
    return TriggerRow(
        key=trigger.key,
        state=trigger.state,
        schedule=trigger.schedule or None,
        description=trigger.description or None,
        timezone=trigger.timezone or None,
        priority=trigger.priority,
        start_at=moment_of(trigger.start),
        end_at=moment_of(trigger.end),
        next_run_at=moment_of(trigger.next_run),
        previous_run_at=moment_of(trigger.previous_run),
        may_fire_again=trigger.may_fire_again,
        misfire_policy=trigger.misfire_policy or None,
        data=trigger.data,
    )


def _wanted(key: JobKey, job: LiveJob, query: JobsQuery) -> bool:
    if query.scheduler and key[0] not in query.scheduler:
        return False
    known = job.definition or _UNREAD
    texts = (key[1], known.key, known.function, known.description)
    return not query.q or any(query.q.casefold() in text.casefold() for text in texts)


_UNREAD = Job(name="", key="")
"""Stands for a job whose definition was not read yet."""
