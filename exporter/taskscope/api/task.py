"""`/api/task/`: the history of runs."""

from collections.abc import Sequence
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from taskscope.api.cursor import seal, unseal
from taskscope.api.endpoint import Call, get
from taskscope.api.errors import missing, refused
from taskscope.api.params import Cursor, Fingerprint, Limit, Offset, Text, Texts, When, span, window
from taskscope.api.run import RunInFull, RunRow, in_full, row
from taskscope.api.slow import Slow, limits, slow_after
from taskscope.events import JobKey, Status
from taskscope.inspection.scene import belonging
from taskscope.sinks.history.records import Filter, Page, Run, SortColumn

DAY = 86_400_000  # ms

SlowFilter = Annotated[Slow, Meta(description="Took longer than so many ms, or (`p95`) than its job's p95.")]
Tasks = Annotated[Texts, Meta(description="Job name, exactly.")]
Schedulers = Annotated[Texts, Meta(description="Name of the scheduler.")]
From = Annotated[When, Meta(description="Due (or begun, or enqueued) at this time or later.")]
To = Annotated[When, Meta(description="Due (or begun, or enqueued) before this time.")]


class RunsQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs, in which order, and which page of them."""

    status: Annotated[tuple[Status, ...], Meta(description="Status; several are joined by OR.")] = ()
    task: Tasks = ()
    scheduler: Schedulers = ()
    queue: Annotated[Texts, Meta(description="Queue.")] = ()
    worker: Annotated[Texts, Meta(description="Worker.")] = ()
    entity: Annotated[Texts, Meta(description="What the run was about.")] = ()
    key: Annotated[Texts, Meta(description="What its users call the run, exactly.")] = ()
    reason: Annotated[
        Texts, Meta(description="How it failed, why it was skipped: `timeout`, `misfire` …")
    ] = ()
    exception: Annotated[Texts, Meta(description="Class of the exception.")] = ()
    error: Annotated[
        tuple[Fingerprint, ...],
        Meta(description="Fingerprint of an error group that the run failed of, or reported."),
    ] = ()
    trace_id: Annotated[Text, Meta(description="Trace that the run belongs to.")] = ""
    q: Annotated[Text, Meta(description="Text in the job's name, the exception or its message.")] = ""
    slow: SlowFilter = ""
    since: From = msgspec.field(default="", name="from")
    until: To = msgspec.field(default="", name="to")
    sort_column: Annotated[
        Literal["id", SortColumn],
        Meta(
            description="`id` is by due time and is walked by the cursor; the others sort within `from`/`to` "
            "(default: the last 24 h) and page by `offset`."
        ),
    ] = "id"
    sort_direction: Annotated[Literal["asc", "desc"], Meta(description="Ties go by id, newest first.")] = (
        "desc"
    )
    limit: Limit = 50
    offset: Offset = 0
    cursor: Cursor = ""


class RunPath(msgspec.Struct, frozen=True):
    """Which run."""

    id: Annotated[UUID, Meta(description="The run's id.")]


class NamesQuery(msgspec.Struct, frozen=True):
    """Of which schedulers."""

    scheduler: Schedulers = ()


class RunPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the runs that the filters leave."""

    total: Annotated[int, Meta(description="All that the filters leave; exact up to 10 000.")]
    total_is_estimate: bool
    limit: int
    offset: int
    data: list[RunRow]
    next_cursor: Annotated[str | None, Meta(description="The `cursor` of the next page; null at the end.")]


@get("/api/task/", tag="Runs", errors=(404, 503))
async def runs(call: Call, query: RunsQuery) -> RunPage:
    """List runs, newest first.

    Filters are joined by AND, several values of one filter by OR. A page is found by `cursor`, which is
    fast at any depth and neither skips nor repeats a run while new ones arrive, or by `offset`.
    """
    after = _after(call, query)
    page = await call.ask(
        call.queries.runs,
        await _filter(call, query),
        limit=min(query.limit, call.backend.settings.limits.page),
        offset=query.offset,
        after=after,
        sort=None if query.sort_column == "id" else query.sort_column,
        descending=query.sort_direction == "desc",
    )
    return _written(call, query, page)


@get("/api/task/unique-tasks", tag="Runs", errors=(404, 503))
async def unique_tasks(call: Call, query: NamesQuery) -> list[str]:
    """List the names of all jobs that have runs, in alphabetical order."""
    return await call.ask(call.queries.names, query.scheduler)


@get("/api/task/{id}", tag="Runs", errors=(404, 503), file="task-{id}.json")
async def run(call: Call, path: RunPath) -> RunInFull:
    """Show one run with its stack trace, data and details."""
    found = await call.ask(call.queries.run, path.id.bytes)
    if found is None:
        raise missing(f"run {path.id}; it never was, or retention has removed it")
    errors = await call.ask(call.queries.errors_of, found.id)
    settings = call.backend.settings
    slow = slow_after(settings, (found.scheduler, found.job))
    labels = await call.ask(belonging, settings, call.queries, call.backend.live)
    return in_full(found, errors, slow, settings.links, labels(found.scheduler))


async def _filter(call: Call, query: RunsQuery) -> Filter:
    slow, slow_by_job = await limits(call, query.slow)
    since, until = _span(call, query)
    return Filter(
        status=query.status,
        job=query.task,
        scheduler=query.scheduler,
        queue=query.queue,
        worker=query.worker,
        entity=query.entity,
        key=query.key,
        reason=query.reason,
        exception=query.exception,
        error=tuple(map(bytes.fromhex, query.error)),
        trace_id=query.trace_id,
        q=query.q,
        slow=slow,
        slow_by_job=slow_by_job,
        since=since,
        until=until,
    )


def _span(call: Call, query: RunsQuery) -> tuple[int | None, int | None]:
    if query.sort_column == "id":
        return span(query.since, query.until, call.now)
    return window(query.since, query.until, call.now, DAY)


def _after(call: Call, query: RunsQuery) -> bytes | None:
    if not query.cursor:
        return None
    if query.offset:
        raise refused({"offset": "does not go with cursor"})
    if query.sort_column != "id":
        raise refused({"cursor": "walks in the order of ids; page other orders by offset"})
    return unseal(query.cursor, call.question)


def _written(call: Call, query: RunsQuery, page: Page) -> RunPage:
    return RunPage(
        total=page.total,
        total_is_estimate=not page.exact,
        limit=min(query.limit, call.backend.settings.limits.page),
        offset=query.offset,
        data=_rows(call, page.runs),
        next_cursor=seal(page.after, call.question) if page.after else None,
    )


def _rows(call: Call, runs: Sequence[Run]) -> list[RunRow]:
    keys = {(run.scheduler, run.job) for run in runs}
    slow: dict[JobKey, float | None] = {key: slow_after(call.backend.settings, key) for key in keys}
    return [row(run, slow[run.scheduler, run.job]) for run in runs]
