"""Errors: how often runs fail, with what, and where."""

from grafana_foundation_sdk.builders import stat as stats
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.builders import timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.house import jobs, link_to, page, row, schedulers
from dashboards.panels import OUTCOMES, at_end, bars, coarse, graph, over_time, stat
from dashboards.promql import (
    BAD_ENDS,
    BY_JOB,
    ENDED,
    FAILED,
    JOBS,
    counted,
    errors_counted,
    errors_total,
    failing,
    failures_in_a_row,
    grown,
    new_errors_counted,
    rate,
    share,
    state,
    summed,
    total,
    zero,
)
from dashboards.tables import BAD, ago, job_column, label, number, of_job, scheduler_column, table

TOP = 10


def dashboard() -> Dashboard:
    """The page."""
    return page(
        "errors",
        "Errors",
        "How often runs fail, with what, and where.",
        row("", failed(), lost(), failure_rate(), failing_jobs(), kinds(), latest()),
        row("", failure_rates(), failures()),
        row("", top_errors(), top_jobs()),
        row("", errors(), failed_jobs()),
        row("", new_errors(), states(), reported()),
        variables=[schedulers(), jobs()],
    )


def failed() -> stats.Panel:
    """How many runs failed."""
    return stat(
        "Failed runs",
        "Runs that failed in this time range.",
        at_end(total("runs_total", JOBS, 'status="failed"')),
        unit="locale",
    )


def lost() -> stats.Panel:
    """How many runs never told how they ended."""
    return stat(
        "Lost runs",
        "Runs of this time range of which nobody knows how they ended: their process was killed, or it vanished.",
        at_end(total("runs_total", JOBS, 'status="unknown"')),
        unit="locale",
    )


def failure_rate() -> stats.Panel:
    """Their share."""
    return stat(
        "Failure rate",
        "Of the runs that succeeded, failed or got lost in this time range, those that failed or got lost.",
        at_end(share(grown("runs_total", JOBS, FAILED), grown("runs_total", JOBS, ENDED))),
        unit="percentunit",
        no_value="no runs",
    ).decimals(1)


def failing_jobs() -> stats.Panel:
    """How many jobs fail now."""
    return stat(
        "Failing jobs",
        "Jobs whose latest run failed or got lost. A job leaves with its next success.",
        at_end(zero(f"sum({failing(JOBS)})")),
        unit="locale",
        levels={1: "red"},
    )


def kinds() -> stats.Panel:
    """How many different errors there were."""
    different = f"count(count by (exception) ({errors_total(JOBS)} > 0))"
    return stat(
        "Different errors",
        "Different classes of exceptions, or reasons where there was no exception, in this time range.",
        at_end(zero(different)),
        unit="locale",
    )


def latest() -> stats.Panel:
    """When something failed last."""
    moment = f"1000 * max({state('job_last_failure_timestamp_seconds', JOBS)})"
    return stat(
        "Latest failure",
        "When a run of the chosen jobs last failed or got lost.",
        at_end(moment),
        unit="dateTimeFromNow",
        texts={"0": ("never", "")},
        size=18,
    )


def failure_rates() -> timeseries.Panel:
    """The share of failures over time."""
    ratio = share(
        rate("runs_total", JOBS, FAILED, by="scheduler"), rate("runs_total", JOBS, ENDED, by="scheduler")
    )
    overall = share(rate("runs_total", JOBS, FAILED), rate("runs_total", JOBS, ENDED))
    panel = graph(
        "Failure rate over time",
        "The share of failed and lost runs among those that ended for good, overall and of each scheduler.",
        over_time(overall, "all"),
        over_time(ratio, "{{scheduler}}"),
        unit="percentunit",
        colours={"all": "red"},
        no_value="no runs",
    )
    return coarse(panel)


def new_errors() -> timeseries.Panel:
    """Errors that were seen for the first time, over time."""
    return bars(
        "New errors",
        "Errors that were seen for the first time, counted in each bar, by job. The page Error groups names them.",
        over_time(new_errors_counted(JOBS), "{{job_name}}"),
        width=9,
        no_value="no job is known",
    )


def states() -> tables.Panel:
    """How many errors are in which state."""
    groups = 'max by (scheduler, state) (taskscope_error_groups{scheduler=~"$scheduler"})'
    return table(
        "Error groups",
        "How many different errors each scheduler has in which state. A click leads to them.",
        scheduler_column(width=80),
        label("state", "State", width=85, link=link_to("groups", state="${__data.fields.State}")),
        number("Errors", groups, width=80),
        sort="Errors",
        descending=True,
        width=6,
        height=8,
        no_value="no error is known",
    )


def reported() -> timeseries.Panel:
    """The share of runs with errors, those included that were survived."""
    fatal = rate("runs_total", JOBS, FAILED)
    survived = zero(rate("captured_exceptions_total", JOBS))
    panel = graph(
        "Failure rate with reported exceptions",
        "Failed and lost runs and exceptions that runs reported and survived, for each run that ended for good: more "
        "than 100 % where runs report several. Failure rate over time counts failed and lost runs alone.",
        over_time(share(f"({fatal} + {survived})", rate("runs_total", JOBS, ENDED)), "with reported"),
        over_time(share(fatal, rate("runs_total", JOBS, ENDED)), "failed alone"),
        unit="percentunit",
        width=9,
        colours={"with reported": "orange", "failed alone": "red"},
        no_value="no runs",
    )
    return coarse(panel)


def failures() -> timeseries.Panel:
    """Failures over time."""
    return bars(
        "Failed and lost runs",
        "Runs that failed or got lost, counted in each bar.",
        over_time(counted("runs_total", JOBS, FAILED, by="status"), "{{status}}"),
        colours=OUTCOMES,
    )


def top_errors() -> timeseries.Panel:
    """The most frequent errors over time."""
    by = "exception, job_name"
    most = f"topk({TOP}, sum by ({by}) (increase(taskscope_run_failures_total{{{JOBS}}}[$__range] @ end())))"
    return bars(
        f"Top {TOP} errors",
        f"The {TOP} most frequent errors of this time range, counted in each bar, by job.",
        over_time(
            f"{summed(errors_counted(JOBS), by)} and on ({by}) {most}", "{{exception}} in {{job_name}}"
        ),
        height=9,
        no_value="no error is known",
    )


def top_jobs() -> timeseries.Panel:
    """The jobs that fail most over time."""
    most = f"topk({TOP}, sum by ({BY_JOB}) (increase(taskscope_runs_total{{{JOBS}, {FAILED}}}[$__range] @ end())) > 0)"
    return bars(
        f"Top {TOP} failing jobs",
        f"The {TOP} jobs that failed most in this time range, counted in each bar.",
        over_time(
            f"{counted('runs_total', JOBS, FAILED, by=BY_JOB)} and on ({BY_JOB}) {most}", "{{job_name}}"
        ),
        height=9,
        no_value="no failure is known",
    )


def errors() -> tables.Panel:
    """What failed how often."""
    return table(
        "Errors",
        "Each error of each job and how often it happened in this time range, the most frequent first. A click on it "
        "shows the runs that it happened to, one on their number all that failed or got lost.",
        label("exception", "Error", link=of_job("runs", q="${__data.fields.Error:percentencode}")),
        job_column(),
        scheduler_column(),
        number("Times", f"{errors_total(JOBS)} > 0", width=90, link=of_job("runs", status=BAD_ENDS)),
        sort="Times",
        descending=True,
        width=11,
        height=10,
        no_value="no error is known",
    )


def failed_jobs() -> tables.Panel:
    """The jobs that failed, the latest first."""
    failed = f"{state('job_last_failure_timestamp_seconds', JOBS)} > 0"
    return table(
        "Jobs by latest failure",
        "Jobs that ever failed, the latest first.",
        job_column(),
        scheduler_column(),
        number("In a row", f"{failures_in_a_row(JOBS)} and on ({BY_JOB}) ({failed})", width=80, levels=BAD),
        ago("Last failure", failed),
        ago(
            "Last success",
            f"({state('job_last_success_timestamp_seconds', JOBS)} and on ({BY_JOB}) ({failed}))",
        ),
        sort="Last failure",
        descending=True,
        width=13,
        height=10,
        no_value="no failed job is known",
    )
