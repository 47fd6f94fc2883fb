"""Findings: what inspections found to be new, slow, silent or failing, and one of these in full."""

from grafana_foundation_sdk.builders import logs, timeseries
from grafana_foundation_sdk.builders import stat as stats
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.builders.dashboard import Dashboard, FieldColor, QueryVariable
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models.dashboard import FieldColorModeId

from dashboards.house import API, link_to, page, row, same_on
from dashboards.infinity import (
    SPAN,
    Ask,
    amount,
    answers,
    api_bars,
    api_table,
    api_tiles,
    choices,
    chosen,
    duration,
    findings,
    flag,
    moment,
    typed,
    word,
)
from dashboards.panels import SEVERITIES, Texts, at_end, furnished, graph, over_time, stat
from dashboards.promql import SCHEDULERS, metric
from dashboards.run import elsewhere
from dashboards.tables import ago, label, number, table

FINDING = "/api/finding/$finding"
OPEN: Texts = {"open": ("open", "red"), "recovered": ("recovered", "green")}
KINDS = {
    "new_error": "orange",
    "regression": "red",
    "error_rise": "yellow",
    "slow_job": "blue",
    "silence": "purple",
    "failing_entity": "dark-red",
}
"""The colours of findings by kind."""
KIND: Texts = {kind: (kind.replace("_", " "), "") for kind in KINDS}
FINDINGS = chosen("/api/finding/", inspection="inspection", scheduler="scheduler")
THIS_PAGE = same_on("findings", finding="${__data.fields.Finding}")
ITS_FINDINGS = same_on("findings", inspection="${__data.fields.Inspection}")
ERROR_PAGE = link_to("groups", fingerprint="${__data.fields.Error}")
JOB_PAGE = link_to("job", job_name="${__data.fields.Job}", scheduler="${__data.fields.Scheduler}")
ITS_SETTINGS = "${__data.fields.Settings}"
RUN_PAGE = link_to("run", run_id="${__data.fields.Run}")


def dashboard() -> Dashboard:
    """The page."""
    return page(
        "findings",
        "Findings",
        "What did inspections find to be new, slow, silent or failing, and how does it go on?",
        row("", open_findings(), each_kind(), inspections()),
        row("", found()),
        row("", open_over_time(), settings()),
        row("One finding", which(), said(), lasted()),
        row("", elsewhere(FINDING, "finding")),
        row("", distribution(), stack_trace()),
        row("", history(), related()),
        variables=[
            scheduler(),
            answers("inspection", "Inspection", "inspection", "/api/inspection/", "data", "name"),
            choices("kind", "Kind", {text: kind for kind, (text, _) in KIND.items()}),
            choices("level", "Level", {text: level for level, (text, _) in SEVERITIES.items()}),
            typed("finding", "Finding"),
        ],
        asks_api=True,
        since="now-24h",
        alerts='scheduler=~"$scheduler|"',
        annotations=[findings()],
    )


def scheduler() -> QueryVariable:
    """`$scheduler`; all are all by name, since both Prometheus and the API are asked by it."""
    return answers(
        "scheduler", "Scheduler", "scheduler", "/api/job/?limit=1000", "data", "scheduler"
    ).all_value("")


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
        width=8,
        levels={0: "text", 1: "orange"},
        no_value="none",
    ).text_mode(common.BigValueTextMode.VALUE_AND_NAME)


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
        width=12,
        height=4,
        no_value="the settings name no inspection",
    )


def found() -> tables.Panel:
    """What was found in this time."""
    columns = [
        moment("Since", "started_at", width=155),
        moment("Until", "recovered_at", width=155, no_value="now"),
        duration("For", "duration", width=75),
        word("State", "state", texts=OPEN, width=80),
        word("Level", "level", texts=SEVERITIES, width=70),
        word("Kind", "kind", texts=KIND, width=85),
        word("Job", "task", width=120, link=JOB_PAGE),
        word("Scheduler", "scheduler", width=85),
        word("What", "overview", link=THIS_PAGE),
        word("Inspection", "inspection", width=85),
        word("Finding", "id", width=70, link=THIS_PAGE),
    ]
    return api_table(
        "Findings",
        "Findings of the chosen schedulers, inspections, kinds and levels that were open in this time. A click "
        "on what was found shows it in full below.",
        Ask(FINDINGS, "data", *columns, limit="200", kind="${kind:csv}", level="${level:csv}", **SPAN),
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
        colours=KINDS,
        stacked=True,
        no_value="none",
    )


def settings() -> tables.Panel:
    """How it is inspected."""
    columns = [
        word("Inspection", "name", width=90, link=ITS_FINDINGS),
        flag("On", "enabled", texts={"true": ("on", "green"), "false": ("off", "")}, width=45),
        word("Schedule", "schedule", width=90),
        word("Time zone", "timezone", width=90),
        moment("Looked up to", "through", width=155),
        amount("Open", "open", width=50),
        word("Gave up because", "failure", wraps=True),
        word("Settings", "config_url", width=90, link=ITS_SETTINGS),
    ]
    return api_table(
        "How it is inspected",
        "The inspections of the settings. A click on one shows its findings, one on its settings where they are edited "
        "(`links: {config: ...}`). `GET /api/inspection/NAME` exports one.",
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


def said() -> tables.Panel:
    """What there is to say of it."""
    columns = [
        word("Overview", "overview"),
        amount("Times", "details.count", "locale", width=70),
        word("Error", "error", width=145, link=ERROR_PAGE),
        word("Run", "run", width=100, link=RUN_PAGE),
        word("Version", "attributes.version", width=80),
        word("Place", "attributes.place", width=180),
        word("Settings", "config_url", width=90, link=ITS_SETTINGS),
    ]
    return api_table(
        "Overview",
        "What was found, and its attributes. A click on an error shows when else it happened, one on a run the latest "
        "in which it did, one on the settings where its inspection is edited.",
        Ask(FINDING, "", *columns),
        columns,
        height=4,
    )


def lasted() -> tables.Panel:
    """From when to when."""
    columns = [
        moment("Since", "started_at", width=165),
        moment("Last seen", "last_seen_at", width=165),
        moment("Recovered", "recovered_at", width=165, no_value="not yet"),
        duration("For", "duration", width=100),
        moment("Told", "notified_at", width=165, no_value="no"),
        word("Receiver", "receivers.0"),
    ]
    description = (
        "From when to when, when Alertmanager was first told of it, and whom the settings name for that."
    )
    return api_table("When", description, Ask(FINDING, "", *columns), columns, height=4)


def distribution() -> timeseries.Panel:
    """How it is distributed over time."""
    columns = [moment("Time", "at"), amount("Value", "value")]
    return api_bars(
        "Distribution",
        "The window in which it was last found (an hour by minutes, a day by hours) and as much before it: "
        "occurrences of an error, runs of a silent job, p95 in seconds of a slow one, failures of an entity.",
        Ask(FINDING, "distribution", *columns, form="timeseries"),
        columns,
        width=12,
        height=12,
        no_value="choose a finding",
    ).color_scheme(FieldColor().mode(FieldColorModeId.FIXED).fixed_color("orange"))


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
