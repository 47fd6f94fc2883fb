"""What health is made of: each check once, with what it looks at, what it is held to and what to do when it fails."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import msgspec

from taskscope.events import JobKey, QueueState, SchedulerState, WorkerState
from taskscope.live_job import LiveJob
from taskscope.rules import BACKLOG, queue_rule
from taskscope.settings import JobRule, Settings

GRACE = 300.0  # seconds that a due job may be late, where no rule says otherwise
OVER = 300.0  # seconds by which a run may take longer than usual
UNKNOWN = 1500.0  # seconds that count as usual before any run of a job has ended
FEWEST = 20  # runs of which a share can be told


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """What one check found of one object."""

    bad: bool
    value: float
    limit: float | None = None
    object: str = ""
    """The job, queue, worker or part that it is about; empty for the scheduler."""
    key: str | None = None
    """By what it is known again at the next look, where the words of `object` may change meanwhile."""
    alert: str = ""
    """The alert that says this, where it is not the check's."""
    since: float | None = None
    """Since when it is bad, where that is known; otherwise it is since it was first seen."""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """One scheduler at one moment, for the time in which `Live` is locked."""

    scheduler: str
    now: float
    settings: Settings
    rule: Callable[[JobKey], JobRule | None]
    """The rule for a job."""
    state: SchedulerState | None
    queues: list[QueueState]
    workers: list[WorkerState]
    jobs: Mapping[str, LiveJob]
    is_read: bool
    """Has anybody read it? Of jobs that only tell of themselves nobody knows a scheduler that could be down."""
    ended: int
    """Runs that ended within the window of `failure_rate`, successful or not."""
    failed: int
    usual: Callable[[JobKey], float | None]
    """What 99 % of a job's runs stay below, in seconds; None before any has ended."""


class Own(msgspec.Struct, frozen=True, kw_only=True):
    """taskscope itself at one moment."""

    now: float
    store: str = ""
    """Why the history, wherever it is, takes nothing; empty while it does."""
    lag: float = 0.0
    """Age of the oldest event that is not durable, in seconds."""
    degraded: Mapping[str, str] = {}
    """What does not work, by reason, each with a sentence; the history aside."""


Look: TypeAlias = Callable[[Any, float], Iterator[Measure]]
"""What a check does: it measures a view, or taskscope itself, against its threshold."""


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """A check: what it means, what it is held to unless the settings say otherwise, which alert says the same."""

    name: str
    meaning: str
    unit: str
    threshold: float | None = None
    window: float = 0.0
    severity: str
    deduction: int
    advice: str
    alert: str
    """What fires where a measure names no other."""
    measured: bool = False
    """Its window is measured over; otherwise a measure must be bad for so long."""
    of: type[View] | type[Own] = View
    look: Look
    enabled: bool = True


def _queue_backlog(view: View, limit: float) -> Iterator[Measure]:
    for queue in view.queues:
        most, ready = backlog_limit(view.settings, view.scheduler, queue.queue), float(queue.ready or 0)
        yield Measure(bad=ready > most, value=ready, limit=most, object=queue.queue)


def _failure_rate(view: View, limit: float) -> Iterator[Measure]:
    share = view.failed / view.ended if view.ended else 0.0
    yield Measure(bad=view.ended >= FEWEST and share > limit, value=share, limit=limit)


def _scheduler_down(view: View, limit: float) -> Iterator[Measure]:
    if view.is_read:
        up = view.state is not None and view.state.up
        yield Measure(bad=not up, value=float(up))


def _stale_job(view: View, limit: float) -> Iterator[Measure]:
    yield Measure(bad=False, value=0.0, limit=limit)  # there is always an answer
    for name, job in view.jobs.items():
        if job.state.removed or job.state.paused:
            continue
        rule = view.rule((view.scheduler, name))
        if job.state.next_run:
            grace = (rule and rule.grace) or limit
            since, late = job.state.next_run + grace, max(0.0, view.now - job.state.next_run)
            yield Measure(bad=view.now > since, value=late, limit=grace, object=name, since=since)
        if rule and rule.expect_every:
            heard = job.state.last_success or job.state.first_seen
            since = heard + rule.expect_every
            yield Measure(
                bad=view.now > since,
                value=view.now - heard,
                limit=rule.expect_every,
                object=name,
                alert="TaskscopeJobNoSuccess",
                since=since,
            )


def _worker_down(view: View, limit: float) -> Iterator[Measure]:
    if view.workers:
        up = sum(worker.up for worker in view.workers)
        yield Measure(bad=not up, value=float(up), object=f"{len(view.workers)} workers", key="")


def _stuck_run(view: View, limit: float) -> Iterator[Measure]:
    yield Measure(bad=False, value=0.0, limit=limit)  # there is always an answer
    for name, job in view.jobs.items():
        if not job.running:
            continue
        (_, native, _), started = min(job.running.items(), key=lambda item: item[1])
        took = max(0.0, view.now - started)
        most = _longest(view, name, took, limit)
        yield Measure(
            bad=took > most, value=took, limit=most, object=f"{name} ({native})", since=started + most
        )


def _longest(view: View, name: str, took: float, over: float) -> float:
    """Seconds that a run of this job may take. What is usual is only asked where it matters."""
    rule = view.rule((view.scheduler, name))
    if rule and rule.max_duration:
        return rule.max_duration
    if took <= over:
        return over
    usual = view.usual((view.scheduler, name))
    return over + (UNKNOWN if usual is None else usual)


def _trigger_error(view: View, limit: float) -> Iterator[Measure]:
    yield Measure(bad=False, value=0.0)  # there is always an answer
    for name, job in view.jobs.items():
        since = job.abnormal.get("ERROR")
        if since is not None:
            yield Measure(bad=True, value=view.now - since, object=name, since=since)


def _store(own: Own, limit: float) -> Iterator[Measure]:
    yield Measure(bad=bool(own.store), value=float(not own.store), object=own.store, key="")


def _taskscope(own: Own, limit: float) -> Iterator[Measure]:
    if not own.store:
        yield Measure(bad=own.lag > limit, value=own.lag, limit=limit, object="lag")
    for reason, sentence in own.degraded.items():
        yield Measure(
            bad=True, value=1.0, object=f"{reason}: {sentence}", key=reason, alert="TaskscopeDegraded"
        )


CHECKS: dict[str, Definition] = {
    check.name: check
    for check in (
        Definition(
            name="worker_down",
            meaning="None of the scheduler's workers is up.",
            unit="workers up",
            window=300,
            severity="critical",
            deduction=30,
            advice="Start the workers, or the application that holds them; what is enqueued waits for them.",
            alert="TaskscopeWorkersDown",
            look=_worker_down,
        ),
        Definition(
            name="scheduler_down",
            meaning="The scheduler, or the broker behind it, does not answer.",
            unit="up",
            window=180,
            severity="critical",
            deduction=20,
            advice="See in /-/ready why it cannot be read; start the scheduler, or mend the way to its broker.",
            alert="TaskscopeSchedulerDown",
            look=_scheduler_down,
        ),
        Definition(
            name="queue_backlog",
            meaning="More messages wait in a queue than its limit allows.",
            unit="messages",
            threshold=float(BACKLOG),
            window=900,
            severity="warning",
            deduction=20,
            advice="See whether its workers are up and keep pace; add workers, or wait if this is a rush that ends.",
            alert="TaskscopeQueueBacklog",
            look=_queue_backlog,
        ),
        Definition(
            name="failure_rate",
            meaning=f"A larger share of the scheduler's runs failed or was lost, of {FEWEST} runs or more.",
            unit="share",
            threshold=0.1,
            window=3600,
            severity="critical",
            deduction=10,
            advice="Look at the error groups that are new, and at what the failing jobs depend on.",
            alert="TaskscopeFailureRateHigh",
            measured=True,
            look=_failure_rate,
        ),
        Definition(
            name="stale_job",
            meaning="A job was due and did not start, or has not succeeded for longer than `expect_every`.",
            unit="seconds late",
            threshold=GRACE,
            window=60,
            severity="critical",
            deduction=20,
            advice="See on the page Triggers when it was due last and whether its scheduler starts anything.",
            alert="TaskscopeJobOverdue",
            look=_stale_job,
        ),
        Definition(
            name="stuck_run",
            meaning="A run takes longer than `max_duration`, or by the threshold longer than 99 % of its job's runs.",
            unit="seconds",
            threshold=OVER,
            severity="warning",
            deduction=10,
            advice="See what it waits for: a lock that is never let go, a slow service. If it hangs, end its process.",
            alert="TaskscopeRunTooLong",
            look=_stuck_run,
        ),
        Definition(
            name="trigger_error",
            meaning="A trigger is in state ERROR: its job does not run.",
            unit="seconds",
            window=120,
            severity="critical",
            deduction=10,
            advice="See in /api/job/ why the job cannot be restored, and add it anew.",
            alert="TaskscopeTriggerError",
            look=_trigger_error,
        ),
        Definition(
            name="store",
            meaning="The history does not take writes.",
            unit="up",
            window=120,
            severity="critical",
            deduction=20,
            advice="Mend the database or the disk; events wait in memory until their queue is full.",
            alert="TaskscopeStoreDown",
            of=Own,
            look=_store,
        ),
        Definition(
            name="taskscope",
            meaning="taskscope works without something, or writes more slowly than events come.",
            unit="seconds of lag",
            threshold=60.0,
            window=300,
            severity="warning",
            deduction=10,
            advice="Read its log and /-/ready.",
            alert="TaskscopePipelineLagging",
            of=Own,
            look=_taskscope,
        ),
    )
}
"""Every check by its name."""


def held_to(settings: Settings, name: str, scheduler: str) -> Definition:
    """The check with what the settings say otherwise, for all schedulers and for this one."""
    check, health = CHECKS[name], settings.health
    for changes in (health.checks, health.schedulers.get(scheduler, {})):
        if change := changes.get(name):
            said = {key: value for key, value in msgspec.structs.asdict(change).items() if value is not None}
            check = msgspec.structs.replace(check, **said)
    return check


def backlog_limit(settings: Settings, scheduler: str, queue: str) -> float:
    """Messages that may wait in this queue: by its rule, else by the check's threshold."""
    rule = queue_rule(settings, scheduler, queue)
    return float((rule and rule.backlog) or held_to(settings, "queue_backlog", scheduler).threshold or 0)
