"""`/api/finding/`: what inspections found, and how long it lasted."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from taskscope.api.cursor import seal, unseal
from taskscope.api.endpoint import Call, get
from taskscope.api.errors import missing, refused
from taskscope.api.params import Cursor, Limit, Offset, Texts, When, span
from taskscope.api.run import Links, RunId, linked
from taskscope.api.task import DAY, Schedulers, Tasks
from taskscope.api.wire import Milliseconds, Moment, moment
from taskscope.identity import text
from taskscope.sinks.history.finding_records import Finding, FindingFilter, FindingState, Level, related

Kind = Literal["new_error", "regression", "error_rise", "slow_job", "silence", "failing_entity"]
_TIMES = ("first_seen", "last_seen", "last_run")  # of the details


class FindingsQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which findings, and which page of them."""

    inspection: Annotated[Texts, Meta(description="Name of the inspection.")] = ()
    kind: Annotated[tuple[Kind, ...], Meta(description="What was found; several are joined by OR.")] = ()
    level: Annotated[tuple[Level, ...], Meta(description="How bad it is.")] = ()
    state: Annotated[tuple[FindingState, ...], Meta(description="`open` ones go on.")] = ()
    scheduler: Schedulers = ()
    task: Tasks = ()
    since: Annotated[When, Meta(description="Open at this time or later.")] = msgspec.field(
        default="", name="from"
    )
    until: Annotated[When, Meta(description="Started before this time.")] = msgspec.field(
        default="", name="to"
    )
    limit: Limit = 50
    offset: Offset = 0
    cursor: Cursor = ""


class FindingPath(msgspec.Struct, frozen=True):
    """Which finding."""

    id: Annotated[UUID, Meta(description="The finding's id.")]


class FindingRow(msgspec.Struct, frozen=True, kw_only=True):
    """Something that an inspection found; null where something is not known."""

    id: Annotated[RunId, Meta(description="The finding's id.")]
    inspection: str
    kind: Kind
    level: Level
    state: FindingState
    scheduler: str
    task: Annotated[str, Meta(description="The job's name.")]
    object: Annotated[str, Meta(description="What it is about: an error, a job, an entity.")]
    title: str
    overview: Annotated[str, Meta(description="What was found, in a sentence or two.")]
    started_at: Moment
    last_seen_at: Annotated[Moment, Meta(description="End of the window in which it was last found.")]
    recovered_at: Annotated[Moment | None, Meta(description="After a full window without it.")]
    duration: Annotated[Milliseconds, Meta(description="Until it recovered, or until now.")]
    notified_at: Annotated[Moment | None, Meta(description="When Alertmanager was first told of it.")]
    error: Annotated[str | None, Meta(description="Fingerprint of the error group, where it is about one.")]
    run: Annotated[RunId | None, Meta(description="The latest run that failed, when it was last looked at.")]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the distribution."""

    at: Annotated[Moment, Meta(description="Its begin.")]
    value: Annotated[
        float,
        Meta(
            description="Occurrences, runs (`silence`), failures (`failing_entity`), or p95 in seconds (`slow_job`)."
        ),
    ]


class RelatedRow(FindingRow, frozen=True, kw_only=True):
    """A finding that may have to do with it."""

    shared: Annotated[list[str], Meta(description="What is the same: attributes, job, scheduler, time.")]


class FindingInFull(FindingRow, frozen=True, kw_only=True):
    """One finding with all that is known of it."""

    config_url: Annotated[str | None, Meta(description="Where the settings are edited: `links.config`.")]
    links: Links
    receivers: Annotated[list[str], Meta(description="Who is told, by the settings of its inspection.")]
    attributes: dict[str, str]
    details: Annotated[dict[str, Any], Meta(description="Counts, what was compared, stack excerpt.")]
    stack_trace: Annotated[str | None, Meta(description="The end of the error's latest stack trace.")]
    distribution: Annotated[
        list[Step], Meta(description="The window and what came before it, by steps that suit it.")
    ]
    history: Annotated[
        list[FindingRow], Meta(description="The same thing, found by the same inspection before and since.")
    ]
    related: list[RelatedRow]


class FindingRows(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the findings that the filters leave."""

    total: Annotated[int, Meta(description="All that the filters leave.")]
    limit: int
    offset: int
    data: list[FindingRow]
    next_cursor: Annotated[str | None, Meta(description="The `cursor` of the next page; null at the end.")]


@get("/api/finding/", tag="Inspections", errors=(404, 503))
async def findings(call: Call, query: FindingsQuery) -> FindingRows:
    """List findings, newest first by when they started.

    Filters are joined by AND, several values of one filter by OR.
    """
    if query.cursor and query.offset:
        raise refused({"offset": "does not go with cursor"})
    question = list(call.request.query.items())
    limit = min(query.limit, call.backend.settings.limits.page)
    after = unseal(query.cursor, question) if query.cursor else None
    wanted = _filter(query, call.now)
    page = await call.ask(call.queries.findings, wanted, limit=limit, offset=query.offset, after=after)
    return FindingRows(
        total=page.total,
        limit=limit,
        offset=query.offset,
        data=[row_of(one, call.now) for one in page.findings],
        next_cursor=seal(page.after, question) if page.after else None,
    )


@get("/api/finding/{id}", tag="Inspections", errors=(404, 503), file="finding-{id}.json")
async def finding(call: Call, path: FindingPath) -> FindingInFull:
    """Show one finding in full, with its history and with findings that may have to do with it."""
    one = await call.ask(call.queries.finding, path.id.bytes)
    if one is None:
        raise missing(f"finding {path.id}; it never was, or retention has removed it")
    until = one.recovered or call.now
    near = await call.ask(call.queries.findings_near, max(0, one.started - DAY), until + DAY)
    same = FindingFilter(
        inspection=(one.inspection,),
        kind=(one.kind,),
        scheduler=(one.scheduler,),
        job=(one.job,),
        key=one.key,
    )
    history = await call.ask(call.queries.findings, same, limit=min(50, call.backend.settings.limits.page))
    settings = call.backend.settings
    rules = settings.inspections.get(one.inspection)
    return FindingInFull(
        **_fields(one, call.now),
        config_url=settings.links.get("config"),
        links=linked(settings.links, _known(one)),
        receivers=list(rules.notify.receivers) if rules else [],
        attributes=one.attributes,
        details={name: value for name, value in _details(one.details).items() if name != "stack"},
        stack_trace=one.details.get("stack") or None,
        distribution=[Step(at=moment(at) or "", value=value) for at, value in one.distribution],
        history=[row_of(each, call.now) for each in history.findings],
        related=[
            RelatedRow(**_fields(each.finding, call.now), shared=each.shared) for each in related(one, near)
        ],
    )


def row_of(one: Finding, now: int) -> FindingRow:
    """The finding as it is listed."""
    return FindingRow(**_fields(one, now))


def _known(one: Finding) -> dict[str, object]:
    """What a link may say of a finding; it names its error's latest run."""
    fields = _fields(one, one.last_seen)
    return {
        "scheduler": one.scheduler,
        "job_name": one.job,
        "run": fields["run"],
        "error": fields["error"],
        "started": one.started,
        "ended": one.recovered or one.last_seen,
    }


def _filter(query: FindingsQuery, now: int) -> FindingFilter:
    since, until = span(query.since, query.until, now)
    return FindingFilter(
        inspection=query.inspection,
        kind=query.kind,
        level=query.level,
        state=query.state,
        scheduler=query.scheduler,
        job=query.task,
        since=since,
        until=until,
    )


def _fields(one: Finding, now: int) -> dict[str, Any]:
    error = one.details.get("error", "").rpartition("/")[2]
    return {
        "id": text(one.id),
        "inspection": one.inspection,
        "kind": one.kind,
        "level": one.level,
        "state": one.state,
        "scheduler": one.scheduler,
        "task": one.job,
        "object": one.object,
        "title": one.title,
        "overview": one.overview,
        "started_at": moment(one.started) or "",
        "last_seen_at": moment(one.last_seen) or "",
        "recovered_at": moment(one.recovered or None),
        "duration": float(max(0, (one.recovered or now) - one.started)),
        "notified_at": moment(one.told or None),
        "error": error or None,
        "run": one.details.get("run"),
    }


def _details(details: Mapping[str, Any]) -> dict[str, Any]:
    return {name: moment(value) if name in _TIMES else value for name, value in details.items()}
