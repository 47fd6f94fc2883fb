"""`/api/error/trend`: the most frequent errors over time."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from taskscope.api.endpoint import Call, get
from taskscope.api.error import Begin, End, TrendStep, WhichErrors, step_of
from taskscope.api.params import window
from taskscope.api.task import DAY
from taskscope.api.wire import Milliseconds, Moment, moment
from taskscope.sinks.history.error_records import ErrorBucket, ErrorGroup, ErrorTrend


class TrendQuery(WhichErrors, frozen=True, kw_only=True):
    """Of which errors, in which span of time, and how many."""

    since: Begin = msgspec.field(default="", name="from")
    until: End = msgspec.field(default="", name="to")
    top: Annotated[int, Meta(ge=1, le=50, description="So many of the most frequent.")] = 10


class TrendRow(TrendStep, frozen=True, kw_only=True):
    """One step of one error group."""

    fingerprint: str
    label: Annotated[str, Meta(description="What the group is called among these, for a legend.")]
    occurrences: Annotated[int, Meta(description="`count` and `captured` together.")]


class Trend(msgspec.Struct, frozen=True, kw_only=True):
    """The most frequent errors over time: by time, within a step the most frequent first."""

    since: Moment = msgspec.field(name="from")
    until: Moment = msgspec.field(name="to")
    step: Annotated[Milliseconds, Meta(description="The length of a step.")]
    data: list[TrendRow]


@get("/api/error/trend", tag="Errors", errors=(404, 503))
async def error_trend(call: Call, query: TrendQuery) -> Trend:
    """Show how often the most frequent errors of a span of time happened in each step of it.

    Steps of an hour and longer are counted in whole hours, also of runs that are not kept any more.
    """
    since, until = window(query.since, query.until, call.now, DAY)
    step = step_of(since, until)
    trends = await call.ask(call.queries.error_trends, query.filter(), since, until, step, query.top)
    return Trend(
        since=moment(since) or "", until=moment(until) or "", step=float(step), data=list(_rows(trends))
    )


def _rows(trends: Sequence[ErrorTrend]) -> Iterator[TrendRow]:
    labels = _labels([trend.group for trend in trends])
    for steps in zip(*(trend.steps for trend in trends), strict=True):
        for trend, label, step in zip(trends, labels, steps, strict=True):
            yield _row(trend.group, label, step)


def _row(group: ErrorGroup, label: str, step: ErrorBucket) -> TrendRow:
    return TrendRow(
        at=moment(step.at) or "",
        fingerprint=group.fingerprint.hex(),
        label=label,
        occurrences=step.failures + step.captured,
        count=step.failures,
        captured=step.captured,
    )


def _labels(groups: Sequence[ErrorGroup]) -> list[str]:
    """A short name for each; those that would share one have their fingerprint behind it."""
    short = [f"{group.name or group.kind} in {group.job}" for group in groups]
    times = Counter(short)
    return [
        label if times[label] == 1 else f"{label} ({group.fingerprint.hex()})"
        for label, group in zip(short, groups, strict=True)
    ]
