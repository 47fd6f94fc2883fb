"""Overview: is everything well, and if not, where?"""

from grafana_foundation_sdk.builders import stat as stats
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.builders import timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.health import failing_checks, score, status
from dashboards.house import ALERT_FIRES, RUNBOOK_PAGE, jobs, page, row, same_on, schedulers
from dashboards.infinity import findings, told_alerts
from dashboards.panels import (
    OUTCOMES,
    SEVERITIES,
    STATES,
    at_end,
    bars,
    graph,
    in_unit,
    numbers,
    over_time,
    stat,
)
from dashboards.promql import (
    BAD_ENDS,
    BY_JOB,
    CONDITIONS,
    ENDED,
    FAILED,
    JOBS,
    RAN,
    SCHEDULERS,
    condition,
    counted,
    down,
    failing,
    failures_in_a_row,
    grown,
    mean,
    overdue,
    share,
    state,
    total,
    zero,
)
from dashboards.queues import load, queues, waiting, workers, workers_by_state
from dashboards.tables import (
    BAD,
    YES,
    ago,
    job_column,
    label,
    next_run_column,
    number,
    of_job,
    of_scheduler,
    scheduler_column,
    table,
)

ALERTS = f'{ALERT_FIRES}, scheduler=~"$scheduler|", job_name=~"$job_name|"'
"""Chooses the alerts about what is chosen, and those about taskscope itself."""


def dashboard() -> Dashboard:
    """The page."""
    return page(
        "overview",
        "Overview",
        "Is everything well, and if not, where?",
        row(
            "",
            score(width=3),
            status(width=3),
            failing_checks(width=3),
            *(
                tile.span(3)
                for tile in (
                    taskscope(),
                    schedulers_down(),
                    jobs_failing(),
                    jobs_overdue(),
                    alerts_firing(),
                )
            ),
        ),
        row("", every_job()),
        row("", outcomes(), in_this_range(), alerts()),
        row("", skipped(), running_now(), triggers()),
        row("", next_runs(), every_scheduler()),
        row("Queues and workers", queues(), workers(), waiting(width=8), workers_by_state(), load()),
        variables=[schedulers(), jobs()],
        annotations=[told_alerts(), findings()],
    )


def taskscope() -> stats.Panel:
    """Whether Prometheus reaches every taskscope."""
    return stat(
        "Taskscope",
        "Targets that exported taskscope's metrics in this time range and cannot be scraped now. "
        "While one is down, what it watches is not seen.",
        at_end(f"sum({down()})"),
        unit="suffix:down",
        levels={1: "red"},
        texts={"0": ("Up", "green")},
        no_value="not scraped",
        link=same_on("exporter"),
    )


def schedulers_down() -> stats.Panel:
    """How many schedulers do not answer."""
    known = state("reading_timestamp_seconds", SCHEDULERS, by="scheduler")
    answering = f"{state('scheduler_up', SCHEDULERS, by='scheduler')} == 1"
    return stat(
        "Schedulers",
        "Schedulers that do not answer, or have not for so long that their readings are gone.",
        at_end(zero(f"count({known} unless {answering})")),
        unit="suffix:down",
        levels={1: "red"},
        texts={"0": ("Up", "green")},
        link=same_on("triggers"),
    )


def jobs_failing() -> stats.Panel:
    """How many jobs fail now."""
    return stat(
        "Failing jobs",
        "Jobs whose latest run failed or got lost. A job leaves with its next success.",
        at_end(zero(f"sum({failing(JOBS)})")),
        unit="short",
        levels={1: "red"},
        link=same_on("errors"),
    )


def jobs_overdue() -> stats.Panel:
    """How many jobs did not start when they should have."""
    return stat(
        "Overdue jobs",
        "Jobs that were due longer ago than their grace (setting `grace`, else five minutes) and did not start.",
        at_end(zero(f"sum({overdue(JOBS)})")),
        unit="short",
        levels={1: "orange"},
        link=same_on("triggers"),
    )


def alerts_firing() -> stats.Panel:
    """How many alerts fire; says so when there are no rules."""
    firing = f'count(ALERTS{{{ALERTS}, severity=~"warning|critical"}})'
    return stat(
        "Alerts",
        "Alerts of severity warning and critical that fire. `no rules`: this Prometheus evaluates none of ours.",
        at_end(f'{firing} or 0 * count(ALERTS{{alertname="TaskscopeWatchdog"}})'),
        unit="short",
        levels={1: "red"},
        no_value="no rules",
        link=same_on("runs"),
    )


def in_this_range() -> stats.Panel:
    """The key figures of the time range."""
    ended = grown("runs_total", JOBS, ENDED)
    panel = numbers(
        "In this time range",
        "Runs without skipped ones; how many of those that succeeded, failed or got lost succeeded; how long a run "
        "took on average; and how many are in progress now.",
        at_end(total("runs_total", JOBS, RAN), "Runs"),
        at_end(share(grown("runs_total", JOBS, 'status="success"'), ended), "Success rate"),
        at_end(mean("run_duration_seconds", JOBS, window="$__range"), "Mean duration"),
        at_end(f"sum({state('runs_in_progress', JOBS)})", "Running now"),
    )
    return in_unit(panel, {"Success rate": "percentunit", "Mean duration": "s"})


def every_job() -> tables.Panel:
    """All jobs, those with a problem first."""
    return table(
        "Jobs, the worst first",
        "Every job and how it is; a click on its name shows more, one on its state its triggers, one on its failures "
        "the runs that failed. Running since: its oldest run in progress. Runs and failures are of this time range.",
        job_column(),
        scheduler_column(),
        number("State", condition(JOBS), texts=CONDITIONS, width=140, link=of_job("triggers")),
        number(
            "Failures in a row",
            failures_in_a_row(JOBS),
            width=130,
            levels=BAD,
        ),
        ago("Last run", state("job_last_run_timestamp_seconds", JOBS)),
        ago("Last success", state("job_last_success_timestamp_seconds", JOBS)),
        next_run_column(JOBS),
        ago("Running since", state("run_oldest_in_progress_timestamp_seconds", JOBS), never="-", width=120),
        number("Runs", total("runs_total", JOBS, RAN, by=BY_JOB), width=70),
        number(
            "Failed",
            total("runs_total", JOBS, FAILED, by=BY_JOB),
            width=80,
            levels=BAD,
            link=of_job("runs", status=BAD_ENDS),
        ),
        sort="State",
        descending=True,
        height=10,
    )


def outcomes() -> timeseries.Panel:
    """Runs by how they ended."""
    return bars(
        "Runs by outcome",
        "Runs that ended, in each bar by status; skipped ones were due and did not happen.",
        over_time(counted("runs_total", JOBS, by="status"), "{{status}}"),
        colours=OUTCOMES,
        width=7,
    )


def alerts() -> tables.Panel:
    """The alerts that fire."""
    by = "alertname, severity, scheduler, job_name"
    since = f"max by ({by}) (ALERTS_FOR_STATE and ignoring (alertstate) ALERTS{{{ALERTS}}})"
    severity = " or ".join(
        f'{rank} + 0 * max by ({by}) (ALERTS{{{ALERTS}, severity="{name}"}})' for rank, name in RANKS.items()
    )
    return table(
        "Firing alerts",
        "Alerts that fire, the worst first, and since when their condition holds. A click on a name shows what to do.",
        label("alertname", "Alert", link=RUNBOOK_PAGE),
        number(
            "Severity", severity, width=95, texts={rank: SEVERITIES[name] for rank, name in RANKS.items()}
        ),
        job_column(width=112),
        scheduler_column(width=85),
        ago("Since", since, width=115),
        sort="Severity",
        descending=True,
        width=13,
        no_value="no firing alert is known",
    )


def skipped() -> timeseries.Panel:
    """Runs that did not happen."""
    return bars(
        "Skipped runs",
        "Runs that were due and did not happen, in each bar by reason.",
        over_time(counted("runs_skipped_total", JOBS, by="reason"), "{{reason}}"),
        width=8,
        no_value="no skipped run is known",
    )


def running_now() -> timeseries.Panel:
    """Concurrent runs."""
    return graph(
        "Running",
        "Runs in progress of each scheduler.",
        over_time(f"sum by (scheduler) ({state('runs_in_progress', JOBS)})", "{{scheduler}}"),
        unit="short",
        width=8,
    )


def triggers() -> timeseries.Panel:
    """What makes jobs due."""
    return graph(
        "Triggers by state",
        "Triggers of the chosen schedulers in each state.",
        over_time(f"sum by (state) ({state('triggers', SCHEDULERS, by='scheduler, state')})", "{{state}}"),
        unit="short",
        width=8,
        stacked=True,
        colours=STATES,
    )


def next_runs() -> tables.Panel:
    """What comes next."""
    return table(
        "Next runs",
        "When jobs are due next, the earliest first; paused jobs are not.",
        job_column(),
        scheduler_column(),
        ago("Due", f"{state('job_next_run_timestamp_seconds', JOBS)} > 0"),
        sort="Due",
        width=9,
        no_value="no due job is known",
    )


def every_scheduler() -> tables.Panel:
    """Each scheduler and how it is."""
    by = "scheduler"
    known = state("reading_timestamp_seconds", SCHEDULERS, by=by)
    abnormal = f"count by (scheduler) ({state('trigger_abnormal_since_timestamp_seconds', SCHEDULERS)})"
    return table(
        "All schedulers",
        "Every scheduler that was heard of: whether it answers, starts jobs, and when it was read last.",
        scheduler_column(width=0),
        number("Answers", state("scheduler_up", SCHEDULERS, by=by), texts=YES, no_value="silent", width=95),
        number(
            "Starts jobs",
            state("scheduler_running", SCHEDULERS, by=by),
            texts=YES,
            no_value="unknown",
            width=100,
        ),
        number(
            "Jobs",
            f"count by (scheduler) ({state('job_first_seen_timestamp_seconds', SCHEDULERS)})",
            width=70,
        ),
        number("Running", f"sum by (scheduler) ({state('runs_in_progress', SCHEDULERS)})", width=70),
        number(
            "Bad triggers", f"{abnormal} or 0 * {known}", width=115, levels=BAD, link=of_scheduler("triggers")
        ),
        ago("Last read", known),
        sort="Scheduler",
        width=15,
    )


RANKS = {"3": "critical", "2": "warning", "1": "info"}
"""Severities by a number that sorts them."""
