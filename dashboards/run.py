"""Run: one run in full."""

from grafana_foundation_sdk.builders import bargauge, logs
from grafana_foundation_sdk.builders import common as build
from grafana_foundation_sdk.builders import stat as stats
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.builders.dashboard import Dashboard, FieldColor
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models.dashboard import FieldColorModeId

from dashboards.house import API, api, page, row
from dashboards.infinity import Ask, amount, api_table, api_tiles, duration, moment, typed, word
from dashboards.panels import furnished
from dashboards.runs import JOB_PAGE, STATUS

RUN = "/api/task/$run_id"


def dashboard() -> Dashboard:
    """The page."""
    return page(
        "run",
        "Run",
        "One run in full. Its id comes with a link: from the page Runs, from an exemplar, from a message.",
        row("", summary()),
        row("", times(), spent()),
        row("", place(), failure()),
        row("", stack_trace()),
        row("", details()),
        variables=[api(), typed("run_id", "Run")],
        since="now-24h",
        refresh="10s",
    )


def summary() -> stats.Panel:
    """What one wants to know first."""
    columns = [
        word("Job", "task", link=JOB_PAGE),
        word("Scheduler", "scheduler"),
        word("Status", "status", texts=STATUS),
        word("Reason", "reason", no_value="none"),
        duration("Duration", "duration", no_value="not known"),
        amount("Attempt", "attempt", "none"),
    ]
    return api_tiles(
        "Run",
        "What ran and how it went. Attempt 0 is the first.",
        Ask(RUN, "", *columns),
        columns,
        width=24,
    )


def times() -> tables.Panel:
    """When it did what."""
    columns = [
        moment("Due", "due_at"),
        moment("Enqueued", "enqueued_at"),
        moment("Started", "started_at"),
        moment("Ended", "ended_at"),
    ]
    return api_table("When", "When it did what.", Ask(RUN, "", *columns), columns, width=14, height=4)


def spent() -> bargauge.Panel:
    """Where the time went."""
    columns = [
        duration("Start delay", "start_delay"),
        duration("Queue wait", "queue_wait"),
        duration("Run", "duration"),
    ]
    description = "From due to started, from enqueued to started, and from started to ended."
    return (
        furnished(
            bargauge.Panel(), "How long", description, [Ask(RUN, "", *columns)], "ms", 10, 4, "not known"
        )
        .datasource(API)
        .orientation(common.VizOrientation.HORIZONTAL)
        .display_mode(common.BarGaugeDisplayMode.BASIC)
        .reduce_options(build.ReduceDataOptions().calcs(["lastNotNull"]))
        .color_scheme(FieldColor().mode(FieldColorModeId.FIXED).fixed_color("blue"))
        .min(0)
    )


def place() -> tables.Panel:
    """Where it ran and what it was about."""
    columns = [
        word("Queue", "queue"),
        word("Worker", "worker"),
        word("Instance", "instance"),
        word("Entity", "entity"),
        word("Trace", "trace_id"),
    ]
    description = "Where it ran, what it was about, and the trace that it belongs to."
    return api_table("Where", description, Ask(RUN, "", *columns), columns, width=12, height=5)


def failure() -> tables.Panel:
    """What it failed with."""
    columns = [word("Exception", "exception"), word("Message", "message"), word("Attributes", "data")]
    description = "What it failed with, and the exception's own attributes."
    return api_table("Error", description, Ask(RUN, "", *columns), columns, width=12, height=5)


def stack_trace() -> logs.Panel:
    """The traceback, line by line."""
    columns = [moment("timestamp", "ended_at"), word("body", "stack_trace")]
    question = Ask(RUN, "", *columns, form="logs")
    description = "The traceback with its causes, innermost frame last."
    return (
        furnished(logs.Panel(), "Stack trace", description, [question], "short", 24, 14, "none")
        .datasource(API)
        .wrap_log_message(True)
        .show_time(False)
        .enable_log_details(False)
    )


def details() -> tables.Panel:
    """What the scheduler or the job added."""
    columns = [word("Details", "details")]
    description = "What the scheduler or the job added, such as arguments and results."
    return api_table("Details", description, Ask(RUN, "", *columns), columns, height=6)
