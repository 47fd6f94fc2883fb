"""`/api/monitoring/diagnosis`: why runs wait."""

from typing import Annotated

import msgspec
from msgspec import Meta

from taskscope.api.endpoint import Call, get
from taskscope.api.params import Texts
from taskscope.api.wire import Milliseconds, Moment, milliseconds, moment_of
from taskscope.backlogs import backlogs
from taskscope.diagnosis import Backlog, Cause, judged


class DiagnosisRow(msgspec.Struct, frozen=True, kw_only=True):
    """A queue in which runs wait; null where something is not known. Rates are of the last hour, in runs a second."""

    scheduler: str
    queue: Annotated[
        str | None, Meta(description="Null for runs of which nobody says in which queue they wait.")
    ]
    waiting: Annotated[int, Meta(description="Messages, or runs, that wait for a worker.")]
    oldest_at: Annotated[Moment | None, Meta(description="Since when the oldest of them waits.")]
    cause: Annotated[
        Cause,
        Meta(
            description="The first that holds: `no_worker` none of the scheduler's workers is up, and nobody is known "
            "to consume this queue; `no_consumer` no worker consumes this queue; `slow_runs` they take twice as long "
            "as usual, or longer; `more_work` half as many again come as usual, or more than are done; `draining` more "
            "are done than come; `unknown`."
        ),
    ]
    explanation: Annotated[str, Meta(description="Why, in a sentence.")]
    advice: Annotated[str, Meta(description="What to do.")]
    alert: Annotated[str, Meta(description="The alert under whose name the runbook says more.")]
    workers_up: Annotated[int | None, Meta(description="Workers of the scheduler that are up.")]
    consumers: Annotated[int | None, Meta(description="Workers that consume this queue.")]
    running: Annotated[int | None, Meta(description="Messages that workers have taken, or runs in progress.")]
    arrivals: Annotated[float | None, Meta(description="Runs that were enqueued.")]
    usual_arrivals: Annotated[
        float | None, Meta(description="The same of its jobs, in the week before today.")
    ]
    completions: Annotated[float | None, Meta(description="Runs that ended.")]
    mean: Annotated[
        Milliseconds | None, Meta(description="Duration; runs in progress count with what they took so far.")
    ]
    usual_mean: Annotated[
        Milliseconds | None, Meta(description="Duration of the same jobs in the week before today.")
    ]
    growing: Annotated[bool | None, Meta(description="More come than are done.")]
    drains_in: Annotated[
        Milliseconds | None, Meta(description="Until nothing waits, at this pace; null also while it grows.")
    ]


class DiagnosisQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which queues."""

    scheduler: Annotated[Texts, Meta(description="Name of the scheduler.")] = ()
    queue: Annotated[Texts, Meta(description="Name of the queue.")] = ()


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """Every queue in which something waits, those in which most does first."""

    total: int
    data: list[DiagnosisRow]


@get("/api/monitoring/diagnosis", tag="Monitoring", errors=(503,))
async def diagnosis(call: Call, query: DiagnosisQuery) -> Diagnosis:
    """Say of each queue in which runs wait why they do, whether it grows, and what to do about it.

    Queues are those that were read lately, and those in which runs of the last day were told to be enqueued. Without
    a history (`history` is null) only workers and consumers are looked at.
    """
    found = await call.ask(backlogs, call.backend.live, call.backend.queries, call.now)
    rows = [_row(one) for one in found if _wanted(one, query)]
    return Diagnosis(total=len(rows), data=rows)


def _wanted(one: Backlog, query: DiagnosisQuery) -> bool:
    return (not query.scheduler or one.scheduler in query.scheduler) and (
        not query.queue or one.queue in query.queue
    )


def _row(one: Backlog) -> DiagnosisRow:
    found = judged(one)
    return DiagnosisRow(
        scheduler=one.scheduler,
        queue=one.queue or None,
        waiting=one.waiting,
        oldest_at=moment_of(one.oldest),
        cause=found.cause,
        explanation=found.explanation,
        advice=found.advice,
        alert=found.alert,
        workers_up=one.workers_up,
        consumers=one.consumers,
        running=one.running,
        arrivals=one.arrivals,
        usual_arrivals=one.usual_arrivals,
        completions=one.completions,
        mean=milliseconds(one.mean),
        usual_mean=milliseconds(one.usual_mean),
        growing=one.is_growing,
        drains_in=milliseconds(one.drains_in),
    )
