"""`/api/monitoring/`: what Alertmanager tells of alerts, and the alerts that it told of."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from taskscope.admission import clean
from taskscope.api.body import decode
from taskscope.api.cursor import seal, unseal
from taskscope.api.endpoint import Call, get, post
from taskscope.api.errors import ApiError, refused
from taskscope.api.params import Cursor, Limit, Offset, Texts, When, span
from taskscope.api.wire import Milliseconds, Moment, moment
from taskscope.redaction import Redaction
from taskscope.sinks.history.records import Alert, AlertFilter, AlertPage, AlertStatus

logger = logging.getLogger("taskscope")

_LABELS, _ANNOTATIONS = 64, 32  # of one alert
_NAME, _VALUE = 256, 1_024  # characters
_TOLD = 20  # refused alerts that an answer explains
_DAY = 86_400_000  # ms
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

_EXAMPLE = {
    "status": "resolved",
    "labels": {"alertname": "TaskscopeJobFailing", "severity": "warning", "job_name": "nightly"},
    "annotations": {"summary": "nightly fails"},
    "startsAt": "2026-11-21T02:00:00Z",
    "endsAt": "2026-11-21T02:15:00Z",
    "fingerprint": "1f2e3d4c5b6a7988",
}

Time = Annotated[datetime, Meta(tz=True)]


class Told(msgspec.Struct, frozen=True, rename="camel"):
    """One alert as Alertmanager tells it; other fields are ignored."""

    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    starts_at: Time
    fingerprint: Annotated[str, Meta(min_length=1, max_length=64)]
    ends_at: Time | None = None
    annotations: dict[str, str] = {}
    generator_url: str = msgspec.field(default="", name="generatorURL")


class Notification(msgspec.Struct, frozen=True):
    """What Alertmanager's webhook sends (version 4); other fields are ignored."""

    version: Literal["4"]
    alerts: Annotated[
        list[msgspec.Raw],
        Meta(
            description="Each with `status`, `labels`, `annotations`, `startsAt`, `endsAt`, `generatorURL`, "
            "`fingerprint`.",
            extra_json_schema={"examples": [[_EXAMPLE]]},
        ),
    ]


class Kept(msgspec.Struct, frozen=True):
    """What became of the alerts of a notification."""

    kept: Annotated[int, Meta(description="Alerts that are durable now.")]
    refused: Annotated[int, Meta(description="Alerts that were not understood; all others are kept.")]
    errors: Annotated[dict[str, str], Meta(description="By field, as `alerts[3].startsAt`, why.")]


class AlertRow(msgspec.Struct, frozen=True, kw_only=True):
    """One alert from its start on; null where something is not known."""

    fingerprint: Annotated[str, Meta(description="The same for alerts with the same labels.")]
    name: Annotated[str, Meta(description="The label `alertname`.")]
    type: Annotated[
        str, Meta(description="The label `type`, else of the name: `job_failing` for TaskscopeJobFailing.")
    ]
    severity: Annotated[str | None, Meta(description="critical, warning or info, if Taskscope's rules say.")]
    status: Annotated[
        AlertStatus,
        Meta(description="`recovered` also where Alertmanager was silent about it for too long."),
    ]
    scheduler: str | None
    job_name: str | None
    object: Annotated[
        str | None, Meta(description="What it is about: `scheduler/job`, `scheduler/queue`, an instance …")
    ]
    started_at: Moment
    recovered_at: Annotated[Moment | None, Meta(description="Null also where its end was never told.")]
    duration: Annotated[
        Milliseconds | None, Meta(description="Until it recovered, or until now while it is active.")
    ]
    summary: str | None
    description: str | None
    labels: dict[str, str]
    annotations: dict[str, str]
    generator_url: Annotated[str | None, Meta(description="Where its rule is evaluated.")]


class AlertsQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which alerts, and which page of them."""

    status: Annotated[tuple[AlertStatus, ...], Meta(description="Status; several are joined by OR.")] = ()
    severity: Annotated[Texts, Meta(description="Severity: `critical`, `warning`, `info`.")] = ()
    name: Annotated[Texts, Meta(description="The alert's name, exactly.")] = ()
    scheduler: Annotated[Texts, Meta(description="Name of the scheduler.")] = ()
    job: Annotated[Texts, Meta(description="Job name, exactly.")] = ()
    since: Annotated[When, Meta(description="Active at this time or later.")] = msgspec.field(
        default="", name="from"
    )
    until: Annotated[When, Meta(description="Started before this time.")] = msgspec.field(
        default="", name="to"
    )
    limit: Limit = 50
    offset: Offset = 0
    cursor: Cursor = ""


class AlertRows(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the alerts that the filters leave."""

    total: Annotated[int, Meta(description="All that the filters leave.")]
    limit: int
    offset: int
    data: list[AlertRow]
    next_cursor: Annotated[str | None, Meta(description="The `cursor` of the next page; null at the end.")]


@post("/api/monitoring/webhook", tag="Monitoring", scope="ingest")
async def webhook(call: Call, body: Notification) -> Kept:
    """Take in a notification of Alertmanager.

    What is sent twice or late changes nothing. An alert that is not understood is refused alone: the answer and
    the log say why, and the others are kept. Only where none is understood the answer is 400, which Alertmanager
    does not send again; after 503 it does. Labels and annotations are cut to what is reasonable.
    """
    alerts, errors = await call.ask(_understood, call, body.alerts)
    bad = len(body.alerts) - len(alerts)
    if bad:
        logger.warning("taskscope refused %d of %d alerts: %s", bad, len(body.alerts), _first(errors))
    if bad and not alerts:
        raise refused(errors)
    if alerts:
        await call.write(lambda store: store.record(alerts))
    return Kept(kept=len(alerts), refused=bad, errors=errors)


@get("/api/monitoring/alerts", tag="Monitoring", errors=(404, 503))
async def alerts(call: Call, query: AlertsQuery) -> AlertRows:
    """List the alerts that Alertmanager told of, newest first.

    Filters are joined by AND, several values of one filter by OR. With `from` and `to` those that were active in
    between are listed, as annotations of a dashboard need it.
    """
    if query.cursor and query.offset:
        raise refused({"offset": "does not go with cursor"})
    limit = min(query.limit, call.backend.settings.limits.page)
    after = unseal(query.cursor, call.question) if query.cursor else None
    page = await call.ask(
        call.alerts.alerts, _filter(call, query), limit=limit, offset=query.offset, after=after
    )
    return AlertRows(
        total=page.total,
        limit=limit,
        offset=query.offset,
        data=list(_rows(page, call.now)),
        next_cursor=seal(page.after, call.question) if page.after else None,
    )


def _understood(call: Call, told: Sequence[msgspec.Raw]) -> tuple[list[Alert], dict[str, str]]:
    """The alerts that can be true, and of some of the others why not."""
    redaction = Redaction(call.backend.settings.redact)
    good: list[Alert] = []
    bad: dict[str, str] = {}
    for number, one in enumerate(told):
        place = f"alerts[{number}]"
        try:
            good.append(_alert(decode(one, Told, place), place, call.now, redaction))
        except ApiError as error:
            if len(bad) < _TOLD:
                bad |= error.problem.errors
    return good, bad


def _alert(told: Told, place: str, now: int, redaction: Redaction) -> Alert:
    """What is kept of it. Raises 400."""
    resolved = told.status == "resolved"
    return Alert(
        fingerprint=clean(told.fingerprint, 64),
        started=_ms(told.starts_at, f"{place}.startsAt", now),
        ended=_ms(told.ends_at, f"{place}.endsAt", now) if resolved else 0,
        fired=0 if resolved else now,
        resolved=now if resolved else 0,
        labels=_texts(told.labels, _LABELS, _VALUE, redaction),
        annotations=_texts(told.annotations, _ANNOTATIONS, 4 * _VALUE, redaction),
        generator=clean(redaction.text(told.generator_url), 2 * _VALUE),
    )


def _ms(at: datetime | None, field: str, now: int) -> int:
    """In ms since the epoch. Raises 400 where that is no time at which an alert can start or end."""
    ms = 0 if at is None else (at - _EPOCH) // timedelta(milliseconds=1)
    if not 0 < ms <= now + _DAY:
        raise refused({field: "must be a time after 1970 and not in the future"})
    return ms


def _texts(told: Mapping[str, str], most: int, length: int, redaction: Redaction) -> dict[str, str]:
    """As many as an alert may have, without secrets, each cut to its length."""
    some = {clean(name, _NAME): clean(text, length) for name, text in islice(told.items(), most)}
    hidden: dict[str, str] = redaction.value(some)
    return hidden


def _first(errors: Mapping[str, str]) -> str:
    return ": ".join(next(iter(errors.items())))


def _filter(call: Call, query: AlertsQuery) -> AlertFilter:
    since, until = span(query.since, query.until, call.now)
    return AlertFilter(
        now=call.now,
        silence=round(call.backend.settings.retention.alert_silence * 1000),
        status=query.status,
        severity=query.severity,
        name=query.name,
        scheduler=query.scheduler,
        job=query.job,
        since=since,
        until=until,
    )


def _rows(page: AlertPage, now: int) -> Iterator[AlertRow]:
    for alert, active in page.alerts:
        labels, annotations = alert.labels, alert.annotations
        end = now if active else None if alert.fires else alert.ended
        name = labels.get("alertname", "")
        yield AlertRow(
            fingerprint=alert.fingerprint,
            name=name,
            type=labels.get("type") or _HUMP.sub("_", name.removeprefix("Taskscope")).lower(),
            severity=labels.get("severity"),
            status="active" if active else "recovered",
            scheduler=labels.get("scheduler"),
            job_name=labels.get("job_name"),
            object=_object(labels),
            started_at=moment(alert.started) or "",
            recovered_at=None if active else moment(end),
            duration=None if end is None else float(max(0, end - alert.started)),
            summary=annotations.get("summary"),
            description=annotations.get("description"),
            labels=labels,
            annotations=annotations,
            generator_url=alert.generator or None,
        )


def _object(labels: Mapping[str, str]) -> str | None:
    """The most special thing that the labels name, within its scheduler."""
    scheduler = labels.get("scheduler")
    for label in ("job_name", "queue", "worker"):
        if label in labels:
            return f"{scheduler}/{labels[label]}" if scheduler else labels[label]
    return scheduler or labels.get("instance")
