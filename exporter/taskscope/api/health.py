"""`/api/monitoring/health`: how the whole is doing, and each scheduler."""

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from taskscope.api.endpoint import Call, get
from taskscope.api.params import Texts
from taskscope.api.wire import Milliseconds, Moment, moment_of
from taskscope.checks import CHECKS
from taskscope.health import Result, Score

Standing = Literal["healthy", "degraded", "unhealthy"]


class CheckRow(msgspec.Struct, frozen=True, kw_only=True):
    """One check."""

    check: str
    scheduler: Annotated[str | None, Meta(description="Null where it is about taskscope itself.")]
    ok: bool
    meaning: str
    value: Annotated[float, Meta(description="The worst that it found.")]
    unit: str
    threshold: float | None
    window: Annotated[Milliseconds, Meta(description="Over which it is measured, or for which it must hold.")]
    severity: str
    deduction: Annotated[int, Meta(description="Points that the score loses while it fails.")]
    since: Annotated[Moment | None, Meta(description="Since when it fails.")]
    objects: Annotated[list[str], Meta(description="What it fails for: jobs, queues, runs; the first few.")]
    advice: Annotated[str | None, Meta(description="What to do while it fails.")]
    alert: Annotated[
        str, Meta(description="The alert that says the same: of several reasons that of the worst.")
    ]


class SchedulerHealth(msgspec.Struct, frozen=True, kw_only=True):
    """One scheduler."""

    scheduler: str
    score: Annotated[int, Meta(ge=0, le=100)]
    status: Standing
    checks: list[CheckRow]


class HealthAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The whole, and each scheduler."""

    score: Annotated[int, Meta(ge=0, le=100)]
    status: Standing
    at: Moment
    checks: Annotated[list[CheckRow], Meta(description="Every check, those that fail first.")]
    schedulers: list[SchedulerHealth]


class HealthQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which schedulers."""

    scheduler: Annotated[Texts, Meta(description="Name of the scheduler.")] = ()


@get("/api/monitoring/health", tag="Monitoring")
async def health(call: Call, query: HealthQuery) -> HealthAnswer:
    """Say how the whole is doing, from 0 to 100, why, since when, and what to do about it.

    With `scheduler` the list of schedulers holds these alone; score, status and checks are always of the whole.
    """
    whole, *schedulers = call.backend.health.scores()
    return HealthAnswer(
        score=whole.score,
        status=whole.status,
        at=moment_of(call.backend.clock()) or "",
        checks=_rows(whole.checks),
        schedulers=[_scheduler(one) for one in schedulers if _wanted(one, query)],
    )


def _wanted(score: Score, query: HealthQuery) -> bool:
    return not query.scheduler or score.scheduler in query.scheduler


def _scheduler(score: Score) -> SchedulerHealth:
    return SchedulerHealth(
        scheduler=score.scheduler, score=score.score, status=score.status, checks=_rows(score.checks)
    )


def _rows(results: Iterable[Result]) -> list[CheckRow]:
    return [_row(result) for result in sorted(results, key=lambda one: (one.ok, -one.deduction, one.check))]


def _row(result: Result) -> CheckRow:
    check = CHECKS[result.check]
    return CheckRow(
        check=result.check,
        scheduler=result.scheduler or None,
        ok=result.ok,
        meaning=check.meaning,
        value=round(result.value, 6),
        unit=check.unit,
        threshold=result.threshold,
        window=result.window * 1000,
        severity=result.severity,
        deduction=result.deduction,
        since=moment_of(result.since),
        objects=list(result.objects),
        advice=None if result.ok else check.advice,
        alert=result.alert,
    )
