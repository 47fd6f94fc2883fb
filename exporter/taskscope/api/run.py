"""A run as the API writes it."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from taskscope.api.wire import Milliseconds, Moment, decode, moment
from taskscope.categories import Category, category
from taskscope.events import Status
from taskscope.identity import text
from taskscope.links import filled, host_of
from taskscope.sinks.history.error_records import Occurrence
from taskscope.sinks.history.records import Run

RunId = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]


class RunRow(msgspec.Struct, frozen=True, kw_only=True):
    """One run; null where something is not known."""

    id: RunId
    task: Annotated[str, Meta(description="The job's name.")]
    scheduler: str
    status: Status
    reason: Annotated[str | None, Meta(description="Why it was skipped, or how it failed.")]
    attempt: Annotated[int, Meta(description="0 for the first.")]
    created_at: Annotated[
        Moment | None, Meta(description="When it was due, else enqueued, else started: what all runs have.")
    ]
    due_at: Moment | None
    enqueued_at: Moment | None
    started_at: Moment | None
    ended_at: Moment | None
    duration: Annotated[Milliseconds | None, Meta(description="Measured by the worker's monotonic clock.")]
    queue_wait: Annotated[Milliseconds | None, Meta(description="From enqueued to started.")]
    start_delay: Annotated[Milliseconds | None, Meta(description="From due to started.")]
    queue: str | None
    worker: str | None
    instance: Annotated[str | None, Meta(description="The process that executed it.")]
    entity: Annotated[str | None, Meta(description="What it was about: a shop, tenant, database.")]
    key: Annotated[str | None, Meta(description="What its users call it: an order, a file.")]
    result: Annotated[str | None, Meta(description="What came of it, in a few words.")]
    trace_id: str | None
    slow: Annotated[bool | None, Meta(description="Did it take longer than the rules' `slow_after`?")]
    exception: Annotated[str | None, Meta(description="The exception's class.")]
    message: Annotated[str | None, Meta(description="The exception's message.")]


class RunException(msgspec.Struct, frozen=True, kw_only=True):
    """An exception that a run failed of, or reported by `capture_exception`."""

    at: Moment
    offset: Annotated[Milliseconds | None, Meta(description="Since the run began.")]
    fatal: Annotated[bool, Meta(description="Did the run fail of it?")]
    category: Annotated[
        Category,
        Meta(
            description="`task_error` is what the run failed of; of the rest, which library its class comes from."
        ),
    ]
    service: Annotated[
        str,
        Meta(description="The application: the label `service` of its scheduler, else the scheduler's name."),
    ]
    instance: Annotated[str | None, Meta(description="The process that executed the run.")]
    error: Annotated[str, Meta(description="Fingerprint of its error group.")]
    exception: Annotated[
        str | None, Meta(description="Its class; null where its group is not known any more.")
    ]
    message: str | None
    stack_trace: str | None
    data: Annotated[Any, Meta(description="The exception's own attributes, and what was captured with it.")]


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A template of the setting `links`, filled in."""

    name: Annotated[str, Meta(description="Its name there.")]
    url: str


Links = Annotated[list[Link], Meta(description="The templates of the setting `links`, as far as is known.")]


class RunInFull(RunRow, frozen=True, kw_only=True):
    """One run with everything that is kept of it."""

    stack_trace: Annotated[str | None, Meta(description="The traceback with its causes.")]
    error: Annotated[str | None, Meta(description="Fingerprint of the error group that it failed of.")]
    exceptions: Annotated[
        list[RunException], Meta(description="What it failed of and what it reported, as it happened.")
    ]
    links: Links
    data: Annotated[Any, Meta(description="The exception's own attributes, by repr.")]
    details: Annotated[Any, Meta(description="What the scheduler or the job added.")]
    task_details: Annotated[
        Any,
        Meta(
            description="The same as Metabase writes it: of a failed run `status`, `exception`, `message`, "
            "`stacktrace`, `ex-data` and `original-info`; otherwise `details`."
        ),
    ]


def row(run: Run, slow_after: float | None) -> RunRow:
    """The run as it stands in a list."""
    return RunRow(**_fields(run, slow_after))


def in_full(
    run: Run,
    errors: Sequence[Occurrence],
    slow_after: float | None,
    links: Mapping[str, str],
    labels: Mapping[str, str],
) -> RunInFull:
    """The run as it is shown alone; `links` is what the settings say of these, `labels` are its scheduler's."""
    data, details = decode(run.data), decode(run.details)
    error = next((one.error.hex() for one in errors if one.fatal), None)
    return RunInFull(
        **_fields(run, slow_after),
        stack_trace=run.stack or None,
        error=error,
        exceptions=[_exception(one, run, labels.get("service") or run.scheduler) for one in errors],
        links=linked(links, _known(run, error)),
        data=data,
        details=details,
        task_details=_as_metabase(run, data, details) if run.status == "failed" else details,
    )


def linked(links: Mapping[str, str], known: Mapping[str, object]) -> list[Link]:
    """The links of something of which this is known."""
    return [Link(name=name, url=url) for name, url in filled(links, known).items()]


def _known(run: Run, error: str | None) -> dict[str, object]:
    """What a link may say of a run."""
    return {
        "scheduler": run.scheduler,
        "job_name": run.job,
        "queue": run.queue,
        "worker": run.worker,
        "host": host_of(run.instance, run.worker),
        "entity": run.entity,
        "key": run.key,
        "run": text(run.id),
        "trace": run.trace_id,
        "error": error,
        "started": run.started,
        "ended": run.ended,
    }


def _fields(run: Run, slow_after: float | None) -> dict[str, Any]:
    return {
        "id": text(run.id),
        "task": run.job,
        "scheduler": run.scheduler,
        "status": run.status,
        "reason": run.reason or None,
        "attempt": run.attempt,
        "created_at": moment(next(filter(None, (run.due, run.enqueued, run.started)), None)),
        "due_at": moment(run.due),
        "enqueued_at": moment(run.enqueued),
        "started_at": moment(run.started),
        "ended_at": moment(run.ended),
        "duration": None if run.duration is None else run.duration / 1000,
        "queue_wait": _between(run.enqueued, run.started),
        "start_delay": _between(run.due, run.started),
        "queue": run.queue or None,
        "worker": run.worker or None,
        "instance": run.instance or None,
        "entity": run.entity or None,
        "key": run.key or None,
        "result": run.result or None,
        "trace_id": run.trace_id or None,
        "slow": None if run.duration is None or slow_after is None else run.duration > slow_after * 1e6,
        "exception": run.exception or None,
        "message": run.message or None,
    }


def _exception(one: Occurrence, run: Run, service: str) -> RunException:
    kind = run.exception if one.fatal else one.kind
    return RunException(
        at=moment(one.at) or "",
        offset=_between(run.started, one.at),
        fatal=one.fatal,
        category=category(kind, fatal=one.fatal),
        service=service,
        instance=run.instance or None,
        error=one.error.hex(),
        exception=kind or None,
        message=one.message or None,
        stack_trace=one.stack or None,
        data=decode(one.data),
    )


def _between(begin: int | None, end: int | None) -> float | None:
    """Milliseconds; clocks of two hosts may disagree, so never below 0."""
    return None if begin is None or end is None else float(max(0, end - begin))


def _as_metabase(run: Run, data: Any, details: Any) -> dict[str, Any]:
    return {
        "status": "failed",
        "exception": run.exception or None,
        "message": run.message or None,
        "stacktrace": run.stack.splitlines(),
        "ex-data": data,
        "original-info": details,
    }
