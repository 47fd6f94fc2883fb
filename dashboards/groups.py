"""Error groups: errors that are the same, the way from each to its occurrences, and from these to their runs."""

from grafana_foundation_sdk.builders import logs, timeseries
from grafana_foundation_sdk.builders import stat as stats
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.house import page, row, same_on
from dashboards.infinity import (
    SPAN,
    Ask,
    amount,
    answers,
    api_bars,
    api_table,
    api_text,
    api_tiles,
    choices,
    chosen,
    duration,
    moment,
    since,
    typed,
    word,
)
from dashboards.panels import Texts
from dashboards.runs import FATAL, JOB_PAGE, RUN_PAGE, STATUS

STATES: Texts = {
    "open": ("open", "orange"),
    "regressed": ("regressed", "red"),
    "resolved": ("resolved", "green"),
    "ignored": ("ignored", "text"),
}
"""The colours of groups by state."""
GROUPS = chosen("/api/error/", task="job_name", scheduler="scheduler")
MOST_FREQUENT = chosen("/api/error/trend", task="job_name", scheduler="scheduler")
GROUP = "/api/error/$fingerprint"
FILTERS = {**SPAN, "state": "${state:csv}", "q": "$q"}
THIS = same_on("groups", fingerprint="${__data.fields.Fingerprint}")
MOST = "200"
"""Rows of a table: who wants more asks a narrower question."""


def dashboard() -> Dashboard:
    """The page."""
    return page(
        "groups",
        "Error groups",
        "Errors that are the same, the way from each to its occurrences, and from these to their runs.",
        row("", found(), seen()),
        row("", most_frequent()),
        row("", groups()),
        row("The chosen error", which(), numbers()),
        row("", occurrences(), trend()),
        row("", stack_trace(), places(), releases()),
        variables=[
            answers("scheduler", "Scheduler", "scheduler", "/api/job/?limit=1000", "data", "scheduler"),
            answers("job_name", "Job", "task", chosen("/api/task/unique-tasks", scheduler="scheduler")),
            choices("state", "State", {state: state for state in STATES}),
            typed("q", "Text"),
            typed("fingerprint", "Error"),
        ],
        asks_api=True,
        since="now-24h",
        alerts=None,
    )


def found() -> stats.Panel:
    """How many there are."""
    columns = [amount("Errors", "total", "locale")]
    question = Ask(GROUPS, "", *columns, limit="1", **FILTERS)
    return api_tiles(
        "Errors found", "Error groups seen in this time that the filters leave.", question, columns, width=5
    )


def seen() -> stats.Panel:
    """The one seen last."""
    columns = [
        word("Error", "exception", no_value="none"),
        word("Job", "task"),
        moment("Seen", "last_seen"),
        word("State", "state", texts=STATES),
    ]
    question = Ask(GROUPS, "data", *columns, limit="1", **FILTERS)
    return api_tiles("Seen last", "The error that was seen last.", question, columns, width=19)


def most_frequent() -> timeseries.Panel:
    """The errors that happened most, over time."""
    columns = [moment("Time", "at"), word("Error", "label"), amount("Value", "occurrences")]
    return api_bars(
        "Ten most frequent errors",
        "How often those errors happened, over time, that the filters leave and that happened most in this time: runs "
        "that failed of them and exceptions that runs reported, by when the runs were due.",
        Ask(MOST_FREQUENT, "data", *columns, form="timeseries", **FILTERS),
        columns,
        width=24,
        height=9,
        no_value="no such error",
    )


def groups() -> tables.Panel:
    """The groups, those seen last first."""
    columns = [
        moment("Last seen", "last_seen", width=155),
        word("State", "state", texts=STATES, width=70),
        word("Exception", "exception", width=140, link=THIS),
        word("Place", "place", width=115),
        word("Message", "message"),
        word("Name", "name", width=70),
        word("Job", "task", link=JOB_PAGE, width=120),
        word("Scheduler", "scheduler", width=85),
        amount("Failed", "count", "locale", width=65),
        amount("Reported", "captured", "locale", width=80),
        moment("First seen", "first_seen", width=155),
        word("Fingerprint", "fingerprint", link=THIS, width=75),
    ]
    return api_table(
        "Error groups",
        f"The {MOST} errors seen last in this time that the filters leave, with all that was counted of them since "
        "they were first seen: runs that failed, and exceptions that runs reported and survived. A click on a class or "
        "a fingerprint shows the error below.",
        Ask(GROUPS, "data", *columns, limit=MOST, **FILTERS),
        columns,
        height=12,
        no_value="no such error",
    )


def which() -> stats.Panel:
    """Which error."""
    columns = [
        word("Exception", "exception", no_value="choose an error above"),
        word("Place", "place", no_value="not known"),
        word("Job", "task"),
        word("State", "state", texts=STATES),
    ]
    return api_tiles("Error", "Which error this is.", Ask(GROUP, "", *columns), columns, width=24)


def numbers() -> stats.Panel:
    """How often and when."""
    columns = [
        amount("Failed", "count", "locale"),
        amount("Reported", "captured", "locale"),
        since("First seen", "first_seen"),
        since("Last seen", "last_seen"),
    ]
    description = "How often it happened since it was first seen, and when that was."
    return api_tiles("How often", description, Ask(GROUP, "", *columns), columns, width=24)


def occurrences() -> tables.Panel:
    """Its occurrences, newest first."""
    columns = [
        moment("At", "at", width=155),
        word("Run", "run", link=RUN_PAGE, width=130),
        word("It", "fatal", texts=FATAL, width=85),
        word("Status", "status", texts=STATUS, width=80),
        duration("After", "offset", width=85),
        word("Message", "message"),
        word("Worker", "worker", width=110),
        word("Instance", "instance", width=110),
    ]
    return api_table(
        "Occurrences",
        f"The newest {MOST} occurrences in runs of this time that are still kept. A click on a run shows it in full; "
        "it failed of the error, or reported it so long after its begin and went on.",
        Ask(GROUP, "occurrences", *columns, limit=MOST, **SPAN),
        columns,
        width=17,
        height=12,
        no_value="none of this time",
    )


def trend() -> tables.Panel:
    """How often over time."""
    columns = [
        moment("From", "at", width=155),
        amount("Failed", "count", "locale", width=75),
        amount("Reported", "captured", "locale", width=85),
    ]
    return api_table(
        "Trend",
        "How often it happened over time, by when the runs were due; also of runs that are not kept any more.",
        Ask(GROUP, "trend", *columns, **SPAN),
        columns,
        sort="From",
        descending=True,
        width=7,
        height=12,
    )


def stack_trace() -> logs.Panel:
    """The stack of its latest occurrence."""
    description = "The stack trace of its latest occurrence, innermost frame last."
    return api_text("Latest stack trace", description, GROUP, "last_seen", "stack_trace", width=12, height=12)


def places() -> tables.Panel:
    """Where it was seen."""
    return names("Instances", "Instance", "The processes in which it was seen, the latest first.")


def releases() -> tables.Panel:
    """In which releases it was seen."""
    description = "The releases in which it was seen, the latest first, as the setting `version` names them."
    return names("Versions", "Version", description)


def names(title: str, one: str, description: str) -> tables.Panel:
    """Where it was seen, and when last."""
    columns = [word(one, "name"), moment("Last seen", "last_seen", width=155)]
    question = Ask(GROUP, title.lower(), *columns)
    return api_table(title, description, question, columns, width=6, height=12)
