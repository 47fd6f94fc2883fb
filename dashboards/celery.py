"""Celery: what the tasks of a queue do, who executes them, and what beat makes due; the same for RQ."""

from grafana_foundation_sdk.builders import stat as stats
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.builders import timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.errors import top_errors
from dashboards.house import jobs, page, row, same_on, schedulers
from dashboards.job import percentiles, queue_wait, response_time, skipped
from dashboards.panels import OUTCOMES, at_end, bars, coarse, graph, over_time, stat
from dashboards.promql import (
    BY_JOB,
    CONDITIONS,
    ENDED,
    FAILED,
    JOBS,
    RAN,
    condition,
    counted,
    grown,
    mean,
    metric,
    quantile,
    rate,
    share,
    state,
    total,
)
from dashboards.queues import busy, more_of_workers, pools, workers
from dashboards.tables import ago, job_column, label, number, scheduler_column, table
from dashboards.triggers import IRREGULAR

BEAT = 'scheduler=~"$scheduler-beat"'
"""Chooses the beats of the chosen apps."""
RETRIED = 'status="retried"'
LONGEST_SILENCE = 120
"""Seconds after which TaskscopeBeatDown takes a beat for gone."""


def dashboard() -> Dashboard:
    """The page."""
    return page(
        "celery",
        "Celery",
        "What do tasks do, how long do they wait and run, who executes them, and what does beat make due?",
        row("", busy(), ended(), failure_rate(), retry_rate(), waited(), beat()),
        row("Tasks", outcomes(), shares(), every_task()),
        row("Times", response_time().span(12), queue_wait().span(12).height(9)),
        row("What went wrong", top_errors(), skipped().span(12).height(9)),
        row("Workers", workers(*more_of_workers(), width=16, height=8), pools(width=8)),
        row("Beat", entries()),
        variables=[schedulers(), jobs(), *percentiles()],
    )


def ended() -> stats.Panel:
    """How many tasks ended."""
    return stat(
        "Tasks ended",
        "Attempts that ended in this time range, well or badly; what was skipped is not among them.",
        at_end(total("runs_total", JOBS, RAN)),
        unit="locale",
        link=same_on("runs"),
    )


def failure_rate() -> stats.Panel:
    """The share that failed."""
    return stat(
        "Failure rate",
        "Of the tasks that ended for good in this time range, those that failed or got lost.",
        at_end(_share(FAILED, ENDED)),
        unit="percentunit",
        no_value="no runs",
        link=same_on("errors"),
    ).decimals(1)


def retry_rate() -> stats.Panel:
    """The share that was tried again."""
    return stat(
        "Retry rate",
        "Of all attempts that ended in this time range, those after which the task is tried again.",
        at_end(_share(RETRIED, RAN)),
        unit="percentunit",
        no_value="no runs",
        link=same_on("runs", status="retried"),
    ).decimals(1)


def waited() -> stats.Panel:
    """How long tasks waited."""
    return stat(
        "Queue wait, p95",
        "From enqueued to started: 95 % of the tasks of this time range waited for less.",
        at_end(quantile("0.95", "run_queue_wait_seconds", JOBS, window="$__range")),
        unit="s",
        no_value="not told",
        link=same_on("queues"),
    )


def beat() -> stats.Panel:
    """Whether beat is there."""
    heard = state("reading_timestamp_seconds", BEAT, 'reading="scheduler"', by="scheduler")
    silent = f"(time() - {heard})"
    there = f"({silent} < bool {LONGEST_SILENCE})"
    return stat(
        "Beat",
        "The worst of the beats of the chosen apps: gone, when nothing was heard of it for two minutes; standing "
        "still, when its broker or its database does not answer.",
        at_end(f"min({there} + ({state('scheduler_running', BEAT, by='scheduler')} or 0 * {silent}))"),
        unit="short",
        levels={0: "red", 1: "orange", 2: "green"},
        texts={"0": ("gone", ""), "1": ("stands still", ""), "2": ("runs", "")},
        size=22,
        no_value="no beat is known",
    )


def outcomes() -> timeseries.Panel:
    """What became of tasks."""
    return bars(
        "Tasks by outcome",
        "Attempts that ended, counted in each bar by how they did.",
        over_time(counted("runs_total", JOBS, by="status"), "{{status}}"),
        colours=OUTCOMES,
    )


def shares() -> timeseries.Panel:
    """Whether more fails or is tried again than before."""
    failed = share(rate("runs_total", JOBS, FAILED), rate("runs_total", JOBS, ENDED))
    retried = share(rate("runs_total", JOBS, RETRIED), rate("runs_total", JOBS, RAN))
    panel = graph(
        "Failures and retries",
        "Of the tasks that ended for good, those that failed or got lost; of all attempts, those that are tried again.",
        over_time(failed, "failed"),
        over_time(retried, "retried"),
        unit="percentunit",
        colours={"failed": OUTCOMES["failed"], "retried": OUTCOMES["retried"]},
        no_value="no runs",
    )
    return coarse(panel)


def every_task() -> tables.Panel:
    """Each task in numbers."""
    took, wait = "run_duration_seconds", "run_queue_wait_seconds"
    return table(
        "Every task",
        "Each task in this time range: attempts, how many a second, which share failed, how many were tried again or "
        "did not happen (revoked, expired, rejected); how long it took and waited.",
        job_column(),
        scheduler_column(),
        number("Runs", total("runs_total", JOBS, RAN, by=BY_JOB), width=80),
        number("Rate", f"{grown('runs_total', JOBS, RAN, by=BY_JOB)} / $__range_s", "suffix:/s", width=90),
        number("Running", state("runs_in_progress", JOBS), width=75),
        number("Failure rate", _share(FAILED, ENDED, by=BY_JOB), "percentunit", width=95),
        number("Retried", total("runs_total", JOBS, RETRIED, by=BY_JOB), width=75),
        number("Skipped", total("runs_total", JOBS, 'status="skipped"', by=BY_JOB), width=75),
        number("Mean", mean(took, JOBS, window="$__range", by=BY_JOB), "s", width=80),
        number("p95", quantile("0.95", took, JOBS, window="$__range", by=BY_JOB), "s", width=80),
        number("Wait, p95", quantile("0.95", wait, JOBS, window="$__range", by=BY_JOB), "s", width=80),
        ago("Last run", state("job_last_run_timestamp_seconds", JOBS)),
        sort="Runs",
        descending=True,
        height=10,
    )


def entries() -> tables.Panel:
    """What beat makes due."""
    due = f"{state('job_next_run_timestamp_seconds', JOBS)} > 0"
    of_beat = f"and on ({BY_JOB}) ({due} or {state('job_paused', JOBS)} == 1)"
    defined = f"max by ({BY_JOB}, schedule, timezone) ({metric('job_info', JOBS)})"
    return table(
        "Schedule",
        "Tasks that a schedule makes due, of beat, `rq cron` or a command with a schedule: when each last started, and "
        "when it is due next. Overdue: the time has passed, and it did not start.",
        job_column(),
        scheduler_column(),
        label("schedule", "Schedule"),
        label("timezone", "Time zone", width=120),
        number("State", f"{condition(JOBS)} {of_beat}", texts=CONDITIONS, width=130),
        ago("Last run", f"({state('job_last_run_timestamp_seconds', JOBS)} {of_beat})"),
        ago("Next run", due, no_value="paused"),
        number(
            "Interval", f"{state('job_interval_seconds', JOBS)} {of_beat}", "s", width=100, texts=IRREGULAR
        ),
        number("Defined", f"{defined} {of_beat}", hidden=True),
        sort="Next run",
        no_value="no schedule is known",
    )


def _share(part: str, whole: str, by: str = "") -> str:
    return share(*(grown("runs_total", JOBS, ends, by=by) for ends in (part, whole)))
