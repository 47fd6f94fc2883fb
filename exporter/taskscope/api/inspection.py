"""`/api/inspection/`: how the history is inspected, when that was done last, and what is open."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from taskscope.api.endpoint import Call, get
from taskscope.api.errors import missing
from taskscope.api.finding import FindingRow, row_of
from taskscope.api.params import Text
from taskscope.api.wire import Milliseconds, Moment, moment, moment_of
from taskscope.inspection.timetable import next_due
from taskscope.settings import Settings
from taskscope.sinks.history.finding_records import Finding, Inspected


class InspectionPath(msgspec.Struct, frozen=True):
    """Which inspection."""

    name: Annotated[Text, Meta(description="Its name in the settings.")]


class InspectionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One inspection and how it goes; null where it has not been yet."""

    name: str
    enabled: bool
    schedule: Annotated[str, Meta(description="A cron expression.")]
    timezone: str
    looks: Annotated[list[str], Meta(description="What it looks for.")]
    last_at: Annotated[Moment | None, Meta(description="When it looked last.")]
    through: Annotated[Moment | None, Meta(description="Up to when it has looked.")]
    took: Annotated[Milliseconds | None, Meta(description="How long that took.")]
    found: Annotated[int | None, Meta(description="What it found then.")]
    failure: Annotated[str | None, Meta(description="Why it gave up; null where it did not.")]
    next_at: Annotated[Moment | None, Meta(description="When it is due next; null where it is disabled.")]
    open: Annotated[int, Meta(description="Findings that go on.")]
    config_url: Annotated[str | None, Meta(description="Where its settings are edited: `links.config`.")]


class InspectionInFull(InspectionRow, frozen=True, kw_only=True):
    """One inspection with its settings and its findings."""

    settings: Annotated[dict[str, Any], Meta(description="As they are in force; durations are seconds.")]
    findings: Annotated[list[FindingRow], Meta(description="Those that go on, the oldest first.")]


class InspectionRows(msgspec.Struct, frozen=True, kw_only=True):
    """All inspections."""

    data: list[InspectionRow]


@get("/api/inspection/", tag="Inspections", errors=(404, 503))
async def inspections(call: Call) -> InspectionRows:
    """List the inspections that the settings name."""
    done = await call.ask(call.queries.inspections)
    current = await call.ask(call.queries.current_findings, call.now)
    settings = call.backend.settings
    return InspectionRows(
        data=[
            InspectionRow(**_fields(settings, name, done.get(name), _open(current, name), call.now))
            for name in settings.inspections
        ]
    )


@get("/api/inspection/{name}", tag="Inspections", errors=(404, 503), file="{name}.json")
async def inspection(call: Call, path: InspectionPath) -> InspectionInFull:
    """Export one inspection: its settings, how it went last, when it is due next, and what is open."""
    settings = call.backend.settings
    if path.name not in settings.inspections:
        raise missing(f"inspection {path.name!r} in the settings")
    done = await call.ask(call.queries.inspections)
    return exported(
        settings,
        path.name,
        done.get(path.name),
        await call.ask(call.queries.current_findings, call.now, path.name),
        call.now,
    )


def exported(
    settings: Settings, name: str, last: Inspected | None, current: list[Finding], now: int
) -> InspectionInFull:
    """All there is to say of an inspection."""
    found = _open(current, name)
    return InspectionInFull(
        **_fields(settings, name, last, found, now),
        settings=msgspec.to_builtins(settings.inspections[name]),
        findings=[row_of(one, now) for one in found],
    )


def _open(current: list[Finding], name: str) -> list[Finding]:
    return [one for one in current if one.inspection == name and not one.recovered]


def _fields(
    settings: Settings, name: str, last: Inspected | None, found: list[Finding], now: int
) -> dict[str, Any]:
    rules = settings.inspections[name]
    return {
        "name": name,
        "enabled": rules.enabled,
        "schedule": rules.schedule,
        "timezone": rules.timezone,
        "looks": list(rules.looks),
        "last_at": moment(last.at) if last else None,
        "through": moment(last.through or None) if last else None,
        "took": float(last.took) if last else None,
        "found": last.found if last else None,
        "failure": (last.failure or None) if last else None,
        "next_at": moment_of(next_due(rules, now / 1000)) if rules.enabled else None,
        "open": len(found),
        "config_url": settings.links.get("config"),
    }
