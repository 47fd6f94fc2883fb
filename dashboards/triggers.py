"""Triggers & scheduler: what makes jobs due, whether it fires in time, and what is due next."""

from grafana_foundation_sdk.builders import heatmap as heatmaps
from grafana_foundation_sdk.builders import stat as stats
from grafana_foundation_sdk.builders import statetimeline as timelines
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.builders import timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.house import jobs, page, row, schedulers
from dashboards.panels import STATES, at_end, bars, coarse, graph, heatmap, over_time, stat, timeline
from dashboards.promql import (
    BY_JOB,
    CONDITIONS,
    JOBS,
    SCHEDULERS,
    condition,
    counted,
    metric,
    overdue,
    state,
    total,
    zero,
)
from dashboards.tables import ago, job_column, label, next_run_column, number, scheduler_column, table

IRREGULAR = {"0": ("irregular", "")}
"""What an interval of 0 means."""


def dashboard() -> Dashboard:
    """The page."""
    return page(
        "triggers",
        "Triggers & scheduler",
        "What makes jobs due, whether it fires in time, and what is due next.",
        row("", in_error(), blocked(), paused(), jobs_overdue(), fired(), misfired()),
        row("", every_scheduler()),
        row("", states(), events()),
        row("", lateness(), delays()),
        row("", schedule()),
        row("", abnormal(), paused_jobs()),
        variables=[schedulers(), jobs()],
    )


def in_error() -> stats.Panel:
    """Triggers that will not fire any more."""
    return _in_state(
        "ERROR", "Triggers in ERROR", "that the scheduler gave up: they do not fire any more", "red"
    )


def blocked() -> stats.Panel:
    """Triggers that wait for a run to end."""
    return _in_state(
        "BLOCKED", "Blocked triggers", "whose job is still running and may not run twice", "orange"
    )


def paused() -> stats.Panel:
    """Triggers that somebody paused."""
    return _in_state(
        "PAUSED", "Paused triggers", "that somebody paused: they do not fire until resumed", "yellow"
    )


def jobs_overdue() -> stats.Panel:
    """Jobs that did not start when they should have."""
    return stat(
        "Overdue jobs",
        "Jobs that were due longer ago than their grace (setting `grace`, else five minutes) and did not start.",
        at_end(zero(f"sum({overdue(JOBS)})")),
        unit="locale",
        levels={1: "orange"},
    )


def fired() -> stats.Panel:
    """How often triggers fired."""
    return stat(
        "Fired",
        "How often triggers of the chosen schedulers fired in this time range.",
        at_end(total("trigger_events_total", SCHEDULERS, 'event="fired"')),
        unit="locale",
        no_value="not told",
    )


def misfired() -> stats.Panel:
    """How often they were too late to fire."""
    return stat(
        "Misfired",
        "How often triggers of the chosen schedulers were too late to fire in this time range.",
        at_end(total("trigger_events_total", SCHEDULERS, 'event="misfired"')),
        unit="locale",
        levels={1: "orange"},
        no_value="not told",
    )


def every_scheduler() -> timelines.Panel:
    """Whether schedulers were there."""
    up, running, known = (
        state(name, SCHEDULERS, by="scheduler")
        for name in ("scheduler_up", "scheduler_running", "reading_timestamp_seconds")
    )
    return timeline(
        "Schedulers",
        "Each scheduler over time: started and answering, paused or stopped, not answering, or silent for so long that "
        "its readings are gone.",
        over_time(f"{up} + ({running} or 0 * {up}) or -1 + 0 * {known}", "{{scheduler}}"),
        texts={
            "-1": ("silent", "dark-red"),
            "0": ("does not answer", "red"),
            "1": ("paused or stopped", "yellow"),
            "2": ("runs", "green"),
        },
        height=5,
    )


def states() -> timeseries.Panel:
    """Triggers in each state."""
    return graph(
        "Triggers by state",
        "Triggers of the chosen schedulers in each state.",
        over_time(f"sum by (state) ({state('triggers', SCHEDULERS, by='scheduler, state')})", "{{state}}"),
        unit="short",
        stacked=True,
        colours=STATES,
    )


def events() -> timeseries.Panel:
    """What triggers did."""
    return bars(
        "Trigger events",
        "How often triggers fired, were too late (misfired) or were vetoed, counted in each bar.",
        over_time(counted("trigger_events_total", SCHEDULERS, 'event!="completed"', by="event"), "{{event}}"),
        colours={"fired": "green", "misfired": "orange", "vetoed": "purple"},
        no_value="not told",
    )


def lateness() -> heatmaps.Panel:
    """How late runs start."""
    buckets = metric("run_start_delay_seconds_bucket", JOBS)
    return heatmap(
        "Lateness",
        "From when runs were due to when they started: how many fell into each span.",
        over_time(f"round(sum by (le) (rate({buckets}[$__rate_interval])) * $__interval_ms / 1000)"),
        unit="s",
        no_value="nothing was observed",
    )


def delays() -> timeseries.Panel:
    """The jobs that start latest."""
    buckets = metric("run_start_delay_seconds_bucket", JOBS)
    late = f"histogram_quantile(0.95, sum by ({BY_JOB}, le) (rate({buckets}[$__rate_interval])))"
    ever = f"histogram_quantile(0.95, sum by ({BY_JOB}, le) (rate({buckets}[$__range] @ end())))"
    panel = graph(
        "Latest jobs",
        "The ten jobs that started latest in this time range: what 95 % of their runs stay below.",
        over_time(f"{late} and on ({BY_JOB}) topk(10, {ever} >= 0)", "{{job_name}}"),
        unit="s",
        no_value="nothing was observed",
    )
    return coarse(panel)


def schedule() -> tables.Panel:
    """What is due when."""
    defined = f"max by ({BY_JOB}, schedule, timezone) ({metric('job_info', JOBS)})"
    return table(
        "Schedule",
        "Every job with its schedule, when it last started and when it is due next; a click on a heading sorts.",
        job_column(),
        scheduler_column(),
        label("schedule", "Schedule"),
        label("timezone", "Time zone", width=120),
        number("State", condition(JOBS), texts=CONDITIONS, width=130),
        ago("Previous run", state("job_last_run_timestamp_seconds", JOBS)),
        next_run_column(JOBS),
        number("Interval", state("job_interval_seconds", JOBS), "s", width=100, texts=IRREGULAR),
        number("Defined", defined, hidden=True),
        sort="Job",
        height=10,
    )


def abnormal() -> tables.Panel:
    """Triggers that need somebody."""
    by = f"{BY_JOB}, state"
    since = f"min by ({by}) ({metric('trigger_abnormal_since_timestamp_seconds', JOBS)})"
    return table(
        "Triggers in ERROR or BLOCKED",
        "Jobs with a trigger in such a state, and since when.",
        job_column(),
        scheduler_column(),
        label(
            "state", "State", width=110, texts={"ERROR": ("ERROR", "red"), "BLOCKED": ("BLOCKED", "orange")}
        ),
        ago("Since", since),
        sort="Since",
        width=12,
        height=7,
        no_value="no such trigger is known",
    )


def paused_jobs() -> tables.Panel:
    """Jobs that do not run until somebody resumes them."""
    is_paused = f"{state('job_paused', JOBS)} == 1"
    return table(
        "Paused jobs",
        "Jobs that are not due until somebody resumes them.",
        job_column(),
        scheduler_column(),
        ago("Last run", f"({state('job_last_run_timestamp_seconds', JOBS)} and on ({BY_JOB}) {is_paused})"),
        number("Paused", is_paused, hidden=True),
        sort="Job",
        width=12,
        height=7,
        no_value="no paused job is known",
    )


def _in_state(name: str, title: str, what: str, colour: str) -> stats.Panel:
    found = state("triggers", SCHEDULERS, f'state="{name}"', by="scheduler")
    return stat(
        title,
        f"Triggers of the chosen schedulers {what}.",
        at_end(f"sum({found})"),
        unit="locale",
        levels={1: colour},
        no_value="not told",
    )
