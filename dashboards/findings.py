"""Findings: what inspections found to be new, slow or silent, and one of these in full."""

from grafana_foundation_sdk.builders import logs, timeseries
from grafana_foundation_sdk.builders import stat as stats
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.house import API, link_to, page, row, same_on, schedulers
from dashboards.infinity import (
    SPAN,
    Ask,
    amount,
    api_bars,
    api_table,
    api_tiles,
    duration,
    findings,
    flag,
    moment,
    typed,
    word,
)
from dashboards.panels import SEVERITIES, Texts, at_end, furnished, graph, over_time, stat
from dashboards.promql import SCHEDULERS, metric
from dashboards.tables import ago, label, number, table

FINDING = "/api/finding/$finding"
OPEN: Texts = {"open": ("open", "red"), "recovered": ("recovered", "green")}
KIND: Texts = {
    "new_error": ("new error", ""),
    "regression": ("regression", ""),
    "error_rise": ("error rise", ""),
    "slow_job": ("slow job", ""),
    "silence": ("silence", ""),
}
THIS_PAGE = same_on("findings", finding="${__data.fields.Finding}")
JOB_PAGE = link_to("job", job_name="${__data.fields.Job}", scheduler="${__data.fields.Scheduler}")


def dashboard() -> Dashboard:
    """The page."""
    return page(
        "findings",
        "Findings",
        "What did inspections find to be new, slow or silent, and how does it go on?",
        row("", open_findings(), each_kind(), inspections()),
        row("", found()),
        row("", open_over_time(), settings()),
        row("One finding", which(), lasted(), said()),
        row("", distribution(), stack_trace()),
        row("", history(), related()),
        variables=[schedulers(), typed("finding", "Finding")],
        asks_api=True,
        since="now-24h",
        alerts='scheduler=~"$scheduler|"',
        annotations=[findings()],
    )


def _open(*matchers: str) -> str:
    """What is open, by kind: every replica says the same."""
    return f"max by (scheduler, kind) ({metric('findings', *matchers)})"


def open_findings() -> stats.Panel:
    """How many are open."""
    return stat(
        "Open findings",
        "Findings of the chosen schedulers that go on.",
        at_end(f"sum({_open(SCHEDULERS)})"),
        unit="short",
        levels={0: "green", 1: "orange"},
        no_value="no inspection found anything",
    )


def each_kind() -> stats.Panel:
    """How many of each kind."""
    return stat(
        "By kind",
        "Findings that go on, by what was found.",
        at_end(f"sum by (kind) ({_open(SCHEDULERS)})", "{{kind}}"),
        unit="short",
        width=10,
        levels={0: "text", 1: "orange"},
        no_value="none",
    )


def inspections() -> tables.Panel:
    """When each inspection looked last."""
    last = "max by (inspection) (taskscope_inspection_last_timestamp_seconds)"
    return table(
        "Inspections",
        "When each inspection looked last, how long that took, and whether it gave up.",
        label("inspection", "Inspection"),
        ago("Last", last),
        ago("Next", "max by (inspection) (taskscope_inspection_next_timestamp_seconds)"),
        number("Took", "max by (inspection) (taskscope_inspection_duration_seconds)", "s", width=70),
        number(
            "Gave up",
            "max by (inspection) (taskscope_inspection_failed)",
            texts={"0": ("no", "green"), "1": ("yes", "red")},
            width=75,
        ),
        sort="Inspection",
        width=10,
        height=4,
        no_value="the settings name no inspection",
    )


def found() -> tables.Panel:
    """What was found in this time."""
    columns = [
        moment("Since", "started_at", width=160),
        moment("Until", "recovered_at", width=160, no_value="now"),
        duration("For", "duration", width=80),
        word("State", "state", texts=OPEN, width=85),
        word("Level", "level", texts=SEVERITIES, width=80),
        word("Kind", "kind", texts=KIND, width=95),
        word("Job", "task", width=150, link=JOB_PAGE),
        word("Scheduler", "scheduler", width=95),
        word("What", "overview", link=THIS_PAGE),
        moment("Told", "notified_at", width=160, no_value="no"),
        word("Inspection", "inspection", width=95),
        word("Finding", "id", width=70, link=THIS_PAGE),
    ]
    return api_table(
        "Findings",
        "Findings of all schedulers that were open in this time. A click on what was found shows it in full below. "
        "Told is when Alertmanager first took it.",
        Ask("/api/finding/", "data", *columns, limit="200", **SPAN),
        columns,
        height=12,
        no_value="nothing was found",
    )


def open_over_time() -> timeseries.Panel:
    """How many were open when."""
    return graph(
        "Open findings over time",
        "Findings of the chosen schedulers that were open, by what was found.",
        over_time(f"sum by (kind) ({_open(SCHEDULERS)})", "{{kind}}"),
        unit="short",
        stacked=True,
        no_value="none",
    )


def settings() -> tables.Panel:
    """How it is inspected."""
    columns = [
        word("Inspection", "name", width=110),
        flag("On", "enabled", texts={"true": ("on", "green"), "false": ("off", "")}, width=50),
        word("Schedule", "schedule", width=100),
        word("Time zone", "timezone", width=110),
        moment("Looked up to", "through", width=165),
        amount("Open", "open", width=60),
        word("Gave up because", "failure"),
    ]
    return api_table(
        "How it is inspected",
        "The inspections of the settings. `GET /api/inspection/NAME` exports one.",
        Ask("/api/inspection/", "data", *columns),
        columns,
        width=12,
        height=8,
        no_value="the settings name no inspection",
    )


def which() -> stats.Panel:
    """What was found."""
    columns = [
        word("Finding", "title", no_value="choose a finding above"),
        word("Object", "object"),
        word("State", "state", texts=OPEN),
    ]
    return api_tiles("Finding", "What was found.", Ask(FINDING, "", *columns), columns, width=24)


def lasted() -> tables.Panel:
    """From when to when."""
    columns = [
        moment("Since", "started_at"),
        moment("Last seen", "last_seen_at"),
        moment("Recovered", "recovered_at"),
        duration("For", "duration"),
        moment("Told", "notified_at"),
    ]
    return api_table("When", "From when to when.", Ask(FINDING, "", *columns), columns, width=12, height=4)


def said() -> tables.Panel:
    """What there is to say of it."""
    columns = [
        word("Overview", "overview"),
        word("Error", "error", width=150),
        word("Version", "attributes.version", width=80),
        word("Place", "attributes.place", width=180),
    ]
    return api_table(
        "Overview",
        "What was found, and its attributes.",
        Ask(FINDING, "", *columns),
        columns,
        width=12,
        height=4,
    )


def distribution() -> timeseries.Panel:
    """How it is distributed over time."""
    columns = [moment("Time", "at"), amount("Value", "value")]
    return api_bars(
        "Distribution",
        "By hours, up to the end of the window in which it was last found: occurrences of an error, runs of a silent "
        "job, p95 in seconds of a slow one.",
        Ask(FINDING, "distribution", *columns, form="timeseries"),
        columns,
        width=12,
        height=12,
        no_value="choose a finding",
    )


def stack_trace() -> logs.Panel:
    """Where the error happened."""
    question = Ask(FINDING, "", moment("timestamp", "started_at"), word("body", "stack_trace"), form="logs")
    return (
        furnished(
            logs.Panel(),
            "Stack trace",
            "The end of the error's latest stack trace.",
            [question],
            "short",
            12,
            12,
            "none",
        )
        .datasource(API)
        .wrap_log_message(True)
        .show_time(False)
        .enable_log_details(False)
    )


def history() -> tables.Panel:
    """The same thing at other times."""
    columns = [
        moment("Since", "started_at", width=165),
        moment("Until", "recovered_at", width=165, no_value="now"),
        duration("For", "duration", width=90),
        word("State", "state", texts=OPEN, width=90),
        word("What", "overview"),
        word("Finding", "id", width=70, link=THIS_PAGE),
    ]
    return api_table(
        "History",
        "When the same was found about the same, this time included.",
        Ask(FINDING, "history", *columns),
        columns,
        width=12,
        height=9,
    )


def related() -> tables.Panel:
    """What may have to do with it."""
    columns = [
        moment("Since", "started_at", width=165),
        word("Level", "level", texts=SEVERITIES, width=80),
        word("What", "title", link=THIS_PAGE),
        word("Object", "object"),
        word("Finding", "id", width=70, link=THIS_PAGE),
    ]
    return api_table(
        "Related findings",
        "Findings within a day that share an attribute, the job, or scheduler and hour; what shares most first.",
        Ask(FINDING, "related", *columns),
        columns,
        width=12,
        height=9,
        no_value="none",
    )
