"""Run: one run in full."""

from grafana_foundation_sdk.builders import bargauge, logs
from grafana_foundation_sdk.builders import common as build
from grafana_foundation_sdk.builders import stat as stats
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.builders.dashboard import Dashboard, FieldColor
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models.dashboard import FieldColorModeId

from dashboards.house import API, link_to, page, row
from dashboards.infinity import (
    Ask,
    amount,
    api_table,
    api_text,
    api_tiles,
    duration,
    in_order,
    moment,
    typed,
    word,
)
from dashboards.panels import Texts, furnished
from dashboards.runs import FATAL, JOB_PAGE, STATUS

RUN = "/api/task/$run_id"
CATEGORIES: Texts = {
    "task_error": ("task error", "red"),
    "code": ("code", ""),
    "database": ("database", ""),
    "nosql": ("NoSQL", ""),
    "mq": ("MQ", ""),
    "external": ("external service", ""),
    "other": ("other", ""),
}
"""Exceptions by where they come from."""
THERE = "${__data.fields.Address}"


def dashboard() -> Dashboard:
    """The page."""
    return page(
        "run",
        "Run",
        "One run in full. Its id comes with a link: from the page Runs, from an exemplar, from a message.",
        row("", which(), outcome()),
        row("", times(), spent()),
        row("", failure()),
        row("", exceptions()),
        row("", stack_trace(), details()),
        row("", stacks()),
        row("", place(), elsewhere(RUN, "run")),
        variables=[typed("run_id", "Run")],
        asks_api=True,
        since="now-24h",
        refresh="10s",
        alerts=None,
    )


def which() -> stats.Panel:
    """What ran."""
    columns = [
        word("Job", "task", link=JOB_PAGE, no_value="choose a run on the page Runs"),
        word("Scheduler", "scheduler"),
    ]
    return api_tiles("Run", "What ran.", Ask(RUN, "", *columns), columns, width=10)


def outcome() -> stats.Panel:
    """How it went."""
    columns = [
        word("Status", "status", texts=STATUS),
        word("Reason", "reason", no_value="none"),
        duration("Duration", "duration", no_value="not known"),
        word("Slow", "slow", texts={"true": ("slow", "orange"), "false": ("no", "")}, no_value="no limit"),
        amount("Attempt", "attempt", "none"),
    ]
    return api_tiles(
        "Outcome",
        "How it went. It is slow when it took longer than `slow_after` of the settings; attempt 0 is the first.",
        Ask(RUN, "", *columns),
        columns,
        width=14,
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
        .transformations([in_order(columns)])
        .orientation(common.VizOrientation.HORIZONTAL)
        .display_mode(common.BarGaugeDisplayMode.BASIC)
        .reduce_options(build.ReduceDataOptions().calcs(["lastNotNull"]))
        .color_scheme(FieldColor().mode(FieldColorModeId.FIXED).fixed_color("blue"))
        .min(0)
    )


def place() -> tables.Panel:
    """Where it ran, what it was about and what came of it."""
    columns = [
        word("Queue", "queue", width=140),
        word("Worker", "worker", width=180),
        word("Entity", "entity", width=160),
        word("Key", "key", width=160),
        word("Result", "result", width=200),
        word("Instance", "instance"),
        word("Trace", "trace_id"),
    ]
    description = "Where it ran, what it was about, what came of it, and the trace that it belongs to."
    return api_table("Where", description, Ask(RUN, "", *columns), columns, height=4)


def elsewhere(question: str, about: str, width: int = 24) -> tables.Panel:
    """Where else to look, as the settings say."""
    columns = [word("Link", "name", width=160, link=THERE), word("Address", "url", link=THERE)]
    description = f"The templates of the setting `links` for this {about}: its logs, its trace, its host."
    return api_table(
        "Elsewhere",
        description,
        Ask(question, "links", *columns),
        columns,
        width=width,
        height=4,
        no_value="the settings name no links (`links:`), or of none all fields are known",
    )


def failure() -> tables.Panel:
    """What it failed with."""
    columns = [
        word("Exception", "exception", width=300),
        word("Message", "message"),
        word("Attributes", "task_details.ex-data"),
    ]
    description = "What it failed with, and the exception's own attributes."
    return api_table("Error", description, Ask(RUN, "", *columns), columns, height=4)


def exceptions() -> tables.Panel:
    """What it failed of and what it reported, as it happened."""
    columns = [
        duration("After", "offset", width=90),
        word("It", "fatal", texts=FATAL, width=85),
        word("Type", "category", texts=CATEGORIES, width=100),
        word("Exception", "exception", width=250),
        word("Message", "message"),
        word("Service", "service", width=120),
        word("Instance", "instance", width=150),
        word("Error", "error", link=link_to("groups", fingerprint="${__data.fields.Error}"), width=150),
    ]
    description = (
        "What it failed of, and the exceptions that it reported and survived, in the order in which they happened. A "
        "click on an error shows when else it happened; the stack of each stands below."
    )
    return api_table(
        "Exceptions", description, Ask(RUN, "exceptions", *columns), columns, height=5, no_value="none"
    )


def stack_trace() -> logs.Panel:
    """The traceback, line by line."""
    description = "The traceback with its causes, innermost frame last."
    return api_text("Stack trace", description, RUN, "due_at", "stack_trace", width=16)


def stacks() -> logs.Panel:
    """The traceback of each exception."""
    description = (
        "The traceback of each exception above at the time at which it happened, the earliest first."
    )
    return api_text(
        "Stack traces of exceptions",
        description,
        RUN,
        "at",
        "stack_trace",
        width=24,
        height=10,
        root="exceptions",
    )


def details() -> logs.Panel:
    """What the scheduler or the job added."""
    description = "What the scheduler or the job added, such as arguments and results."
    panel = api_text("Details", description, RUN, "due_at", "details", width=8)
    return panel.prettify_log_message(True)
