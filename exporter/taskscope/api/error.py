"""`/api/error/`: errors that are the same, as groups, and what is to become of them."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from taskscope.admission import clean
from taskscope.api.cursor import seal, unseal
from taskscope.api.endpoint import Call, get, post
from taskscope.api.errors import missing, refused
from taskscope.api.params import Cursor, Fingerprint, Limit, Offset, Text, Texts, When, span, window
from taskscope.api.run import RunId
from taskscope.api.task import DAY, Schedulers, Tasks
from taskscope.api.wire import Milliseconds, Moment, decode, moment
from taskscope.identity import text
from taskscope.redaction import Redaction
from taskscope.sinks.history.error_records import (
    Action,
    ErrorBucket,
    ErrorFilter,
    ErrorGroup,
    ErrorSort,
    Occurrence,
    State,
)

_HOUR = 3_600_000  # ms
_STEPS = 60  # of a trend, about
_NOTE = 1_024  # characters
_NICE = (60_000, 300_000, 900_000, _HOUR, 3 * _HOUR, 6 * _HOUR, DAY, 7 * DAY, 30 * DAY)  # ms

Begin = Annotated[When, Meta(description="Begin, by when runs were due; default: a day before the end.")]
End = Annotated[When, Meta(description="End; default: now.")]


class WhichErrors(msgspec.Struct, frozen=True, kw_only=True):
    """Which error groups."""

    scheduler: Schedulers = ()
    task: Tasks = ()
    exception: Annotated[Texts, Meta(description="Class of the exception.")] = ()
    state: Annotated[tuple[State, ...], Meta(description="State; several are joined by OR.")] = ()
    q: Annotated[Text, Meta(description="Text in the class, place, message or given name.")] = ""

    def filter(self, since: int | None = None, until: int | None = None) -> ErrorFilter:
        """What it asks of the history."""
        return ErrorFilter(
            scheduler=self.scheduler,
            job=self.task,
            kind=self.exception,
            state=self.state,
            q=self.q,
            since=since,
            until=until,
        )


class ErrorsQuery(WhichErrors, frozen=True, kw_only=True):
    """Which error groups, in which order, and which page of them."""

    since: Annotated[When, Meta(description="Seen at this time or later.")] = msgspec.field(
        default="", name="from"
    )
    until: Annotated[When, Meta(description="First seen before this time.")] = msgspec.field(
        default="", name="to"
    )
    sort_column: Annotated[ErrorSort, Meta(description="`count` is of runs that failed.")] = "last_seen"
    sort_direction: Annotated[Literal["asc", "desc"], Meta(description="Ties go by fingerprint.")] = "desc"
    limit: Limit = 50
    offset: Offset = 0
    cursor: Cursor = ""


class ErrorQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which of its occurrences, and which span of time for its trend."""

    since: Begin = msgspec.field(default="", name="from")
    until: End = msgspec.field(default="", name="to")
    limit: Limit = 50
    cursor: Cursor = ""


class ErrorPath(msgspec.Struct, frozen=True):
    """Which error group."""

    fingerprint: Fingerprint


class Note(msgspec.Struct, frozen=True):
    """Why."""

    note: Annotated[str, Meta(max_length=_NOTE, description="Kept with the group.")] = ""


class Seen(msgspec.Struct, frozen=True):
    """Where an error was seen, and when last."""

    name: str
    last_seen: Moment


class ErrorRow(msgspec.Struct, frozen=True, kw_only=True):
    """Errors of a job that are the same; null where something is not known."""

    fingerprint: str
    scheduler: str
    task: Annotated[str, Meta(description="The job's name.")]
    name: Annotated[str | None, Meta(description="What a rule in the settings calls it.")]
    exception: Annotated[str, Meta(description="The exception's class, or the reason where there is none.")]
    message: Annotated[str | None, Meta(description="Of the latest occurrence.")]
    place: Annotated[
        str | None, Meta(description="Where in the program's own code: `package.module:function`.")
    ]
    state: State
    first_seen: Moment
    last_seen: Moment
    count: Annotated[int, Meta(description="Runs that failed, or were retried, of it.")]
    captured: Annotated[int, Meta(description="Times that a run reported it and went on.")]
    latest_run: Annotated[RunId, Meta(description="The run of its latest occurrence.")]


class OccurrenceRow(msgspec.Struct, frozen=True, kw_only=True):
    """One occurrence of an error."""

    run: Annotated[RunId, Meta(description="The run's id.")]
    at: Moment
    offset: Annotated[Milliseconds | None, Meta(description="Since the run began.")]
    fatal: Annotated[bool, Meta(description="Did the run fail of it?")]
    status: Annotated[str | None, Meta(description="Of the run.")]
    message: str | None
    instance: str | None
    worker: str | None


class TrendStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a trend."""

    at: Annotated[Moment, Meta(description="Its begin.")]
    count: int
    captured: int


class ErrorInFull(ErrorRow, frozen=True, kw_only=True):
    """One error group with its latest texts, its trend and a page of its occurrences."""

    stack_trace: str | None
    data: Annotated[Any, Meta(description="The exception's own attributes, by repr.")]
    instances: Annotated[list[Seen], Meta(description="Processes in which it was seen, the latest first.")]
    versions: Annotated[list[Seen], Meta(description="Releases in which it was seen, the latest first.")]
    state_changed_at: Annotated[Moment | None, Meta(description="When somebody last changed the state.")]
    state_changed_by: Annotated[str | None, Meta(description="Name of the token that did.")]
    note: str | None
    regressed_at: Annotated[Moment | None, Meta(description="When it was seen again after it was resolved.")]
    trend: Annotated[list[TrendStep], Meta(description="Occurrences by when their runs were due.")]
    occurrences: Annotated[
        list[OccurrenceRow], Meta(description="Of runs that are still kept, newest first.")
    ]
    next_cursor: Annotated[str | None, Meta(description="The `cursor` of the next page; null at the end.")]


class ErrorRows(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the error groups that the filters leave."""

    total: Annotated[int, Meta(description="All that the filters leave.")]
    limit: int
    offset: int
    data: list[ErrorRow]
    next_cursor: Annotated[str | None, Meta(description="The `cursor` of the next page; null at the end.")]


def step_of(since: int, until: int) -> int:
    """Of the lengths that people read well the first that cuts the window into 60 steps at most."""
    return next(
        (step for step in _NICE if step * _STEPS >= until - since), (until - since) // _STEPS // DAY * DAY
    )


@get("/api/error/", tag="Errors", errors=(404, 503))
async def errors(call: Call, query: ErrorsQuery) -> ErrorRows:
    """List error groups, those seen last first.

    Filters are joined by AND, several values of one filter by OR. A group that is seen again while it is paged
    through moves to the front.
    """
    if query.cursor and query.offset:
        raise refused({"offset": "does not go with cursor"})
    limit = min(query.limit, call.backend.settings.limits.page)
    page = await call.ask(
        call.queries.errors,
        query.filter(*span(query.since, query.until, call.now)),
        limit=limit,
        offset=query.offset,
        after=unseal(query.cursor, call.question) if query.cursor else None,
        sort=query.sort_column,
        descending=query.sort_direction == "desc",
    )
    return ErrorRows(
        total=page.total,
        limit=limit,
        offset=query.offset,
        data=[ErrorRow(**_fields(group)) for group in page.groups],
        next_cursor=seal(page.after, call.question) if page.after else None,
    )


@get("/api/error/{fingerprint}", tag="Errors", errors=(404, 503))
async def error(call: Call, path: ErrorPath, query: ErrorQuery) -> ErrorInFull:
    """Show one error group with its trend and its occurrences."""
    fingerprint, queries = bytes.fromhex(path.fingerprint), call.queries
    group = await call.ask(queries.error, fingerprint)
    if group is None:
        raise _unknown(path)
    limit = min(query.limit, call.backend.settings.limits.page)
    since, until = span(query.since, query.until, call.now)
    after = unseal(query.cursor, call.question) if query.cursor else None
    found = await call.ask(
        queries.occurrences, fingerprint, since=since, until=until, limit=limit + 1, after=after
    )
    begin, end = window(query.since, query.until, call.now, DAY)
    trend = await call.ask(queries.error_trend, fingerprint, begin, end, step_of(begin, end))
    rest = seal(found[limit - 1].id, call.question) if len(found) > limit else None
    return _in_full(group, trend, found[:limit], rest)


@post("/api/error/{fingerprint}/resolve", tag="Errors", scope="manage", errors=(404,))
async def resolve(call: Call, path: ErrorPath, body: Note) -> ErrorRow:
    """Say that an error will not happen any more; one that happens again is `regressed`."""
    return await _act(call, path, "resolve", body)


@post("/api/error/{fingerprint}/ignore", tag="Errors", scope="manage", errors=(404,))
async def ignore(call: Call, path: ErrorPath, body: Note) -> ErrorRow:
    """Say that nobody need look at an error; it is still counted."""
    return await _act(call, path, "ignore", body)


@post("/api/error/{fingerprint}/reopen", tag="Errors", scope="manage", errors=(404,))
async def reopen(call: Call, path: ErrorPath, body: Note) -> ErrorRow:
    """Take back that an error was resolved or ignored."""
    return await _act(call, path, "reopen", body)


async def _act(call: Call, path: ErrorPath, action: Action, body: Note) -> ErrorRow:
    assert call.queries  # raises 404 where there is no history
    note = clean(Redaction(call.backend.settings.redact).text(body.note), _NOTE)
    fingerprint, now, actor = bytes.fromhex(path.fingerprint), call.now, call.actor
    group = await call.write(lambda store: store.act(fingerprint, action, now, actor, note))
    if group is None:
        raise _unknown(path)
    return ErrorRow(**_fields(group))


def _unknown(path: ErrorPath) -> Exception:
    return missing(f"error {path.fingerprint}; it never was, or retention has removed it")


def _fields(group: ErrorGroup) -> dict[str, Any]:
    return {
        "fingerprint": group.fingerprint.hex(),
        "scheduler": group.scheduler,
        "task": group.job,
        "name": group.name or None,
        "exception": group.kind,
        "message": group.message or None,
        "place": group.place or None,
        "state": group.state,
        "first_seen": moment(group.first_seen) or "",
        "last_seen": moment(group.last_seen) or "",
        "count": group.failures,
        "captured": group.captured,
        "latest_run": text(group.latest_run),
    }


def _in_full(
    group: ErrorGroup, trend: Sequence[ErrorBucket], found: Sequence[Occurrence], rest: str | None
) -> ErrorInFull:
    return ErrorInFull(
        **_fields(group),
        stack_trace=group.stack or None,
        data=decode(group.data),
        instances=_seen(group.instances),
        versions=_seen(group.versions),
        state_changed_at=moment(group.acted or None),
        state_changed_by=group.actor or None,
        note=group.note or None,
        regressed_at=moment(group.regressed or None),
        trend=[
            TrendStep(at=moment(step.at) or "", count=step.failures, captured=step.captured) for step in trend
        ],
        occurrences=[_occurrence(one) for one in found],
        next_cursor=rest,
    )


def _seen(names: Mapping[str, int]) -> list[Seen]:
    return [Seen(name, moment(at) or "") for name, at in names.items()]


def _occurrence(one: Occurrence) -> OccurrenceRow:
    return OccurrenceRow(
        run=text(one.run),
        at=moment(one.at) or "",
        offset=float(max(0, one.at - one.started)) if one.started else None,
        fatal=one.fatal,
        status=one.status or None,
        message=one.message or None,
        instance=one.instance or None,
        worker=one.worker or None,
    )
