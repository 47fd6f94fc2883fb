"""Runs: the history of every run, filtered, with the way to each of them."""

from grafana_foundation_sdk.builders import stat as stats
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.builders.dashboard import CustomVariable, Dashboard

from dashboards.house import BACKFILL_PAGE, RUNBOOK_PAGE, link_to, page, row, same_on
from dashboards.infinity import (
    SPAN,
    TIMES,
    Ask,
    amount,
    answers,
    api_table,
    api_tiles,
    choices,
    chosen,
    duration,
    flag,
    moment,
    typed,
    word,
)
from dashboards.panels import OUTCOMES, SEVERITIES, Levels, Texts
from dashboards.tables import of_job

STATUS: Texts = {status: (status, colour) for status, colour in OUTCOMES.items()} | {
    "started": ("started", "light-blue"),
    "queued": ("queued", "text"),
}
"""The colours of runs by status, also while they have not ended."""
FATAL: Texts = {"true": ("failed", "red"), "false": ("reported", "orange")}
"""What became of the run of an exception."""
FAILING: Levels = {0: "text", 0.05: "orange", 0.1: "red"}
"""The colours of a share of failed runs."""
JOBS = {"task": "job_name", "scheduler": "scheduler"}
RUNS = chosen("/api/task/", **JOBS, entity="entity", slow="slow")
STATS = chosen("/api/task/stats", **JOBS, entity="entity")
ENTITIES = chosen("/api/entity/", **JOBS)
FILTERS = {**SPAN, "status": "${status:csv}", "q": "$q"}
MOST = "500"
"""Rows of the table: who wants more asks a narrower question."""

JOB_PAGE = of_job("job")
OF_JOB = f"{BACKFILL_PAGE}&job=${{__data.fields.Job:percentencode}}"
AGAIN: Texts = dict.fromkeys(STATUS, (" ", "")) | dict.fromkeys(("failed", "unknown"), ("again", "blue"))
"""Only what failed, or was lost, leads to where it is started again."""
RUN_PAGE = link_to("run", run_id="${__data.fields.Run}")


def dashboard() -> Dashboard:
    """The page."""
    return page(
        "runs",
        "Runs",
        "The history of every run that the filters leave, and the way to each of them.",
        row("", found(), standing(), numbers()),
        row("", history()),
        row("", by_job()),
        row("", unhealthy(), by_entity()),
        row("", alerts()),
        variables=[
            answers("scheduler", "Scheduler", "scheduler", "/api/job/?limit=1000", "data", "scheduler"),
            answers("job_name", "Job", "task", chosen("/api/task/unique-tasks", scheduler="scheduler")),
            choices("status", "Status", {status: status for status in STATUS}),
            slow(),
            typed("q", "Text"),
            answers("entity", "Entity", "entity", f"{ENTITIES}&limit=1000&{TIMES}", "data", "entity"),
        ],
        asks_api=True,
        refresh="10s",
        alerts=None,
    )


def slow() -> CustomVariable:
    """`$slow`: only runs that took longer than this; without a choice all."""
    limits = {"its job's p95": "p95", "1 s": "1000", "10 s": "10000", "1 min": "60000", "10 min": "600000"}
    return choices("slow", "Longer than", limits, many=False).all_value("slow=")


def found() -> stats.Panel:
    """How many there are."""
    return api_tiles(
        "Runs found",
        "All runs that the filters leave; exact up to 10 000, beyond that an estimate.",
        Ask(RUNS, "", amount("Runs", "total", "locale"), limit="1", **FILTERS),
        [amount("Runs", "total", "locale")],
        width=3,
    )


def standing() -> stats.Panel:
    """How many runs there are, and how many stand where."""
    columns = [
        amount("Total", "runs", "locale"),
        amount("Pending", "statuses.queued", "locale", no_value="0"),
        amount("Processing", "statuses.started", "locale", no_value="0"),
        amount("Completed", "statuses.success", "locale", no_value="0"),
        amount("Failed", "statuses.failed", "locale", no_value="0"),
    ]
    return api_tiles(
        "Where they stand",
        "All runs of the chosen jobs and entities in this time, whatever the other filters leave: how many wait, run, "
        "succeeded and failed. What waits where no run is told of yet is on the page Queues & workers.",
        Ask(STATS, "overall", *columns, **SPAN),
        columns,
        width=11,
    )


def numbers() -> stats.Panel:
    """What all runs of the chosen jobs add up to."""
    columns = [
        amount("Failing", "failure_rate", "percentunit", levels=FAILING),
        duration("Mean", "mean"),
        duration("p95", "percentiles.p95"),
        duration("Longest", "max"),
        amount("Slow", "slow", "locale", no_value="0"),
    ]
    return api_tiles(
        "All runs of the chosen jobs",
        "What all runs of the chosen jobs and entities in this time add up to, whatever the other filters leave. Slow "
        "are those that took longer than `slow_after` of the settings.",
        Ask(STATS, "overall", *columns, **SPAN),
        columns,
        width=10,
    )


def history() -> tables.Panel:
    """The runs, newest first."""
    columns = [
        moment("Due or enqueued", "created_at", width=155),
        word("Job", "task", link=JOB_PAGE, width=118),
        word("Scheduler", "scheduler", width=82),
        word("Status", "status", texts=STATUS, link=RUN_PAGE, width=72),
        word("Reason", "reason", width=65),
        duration("Duration", "duration", width=75),
        flag("Slow", "slow", texts={"true": ("slow", "orange"), "false": (" ", "")}, link=RUN_PAGE, width=50),
        word("Exception", "exception", width=115),
        word("Message", "message"),
        word("Entity", "entity", width=85),
        word("Key", "key", width=85),
        word("Result", "result", width=95),
        moment("Ended", "ended_at", width=155),
        amount("Attempt", "attempt", "none", width=68),
        word("Backfill", "status", texts=AGAIN, link=OF_JOB, width=70),
        word("Run", "id", link=RUN_PAGE, width=55),
    ]
    return api_table(
        "Runs",
        f"The newest {MOST} runs that the filters leave, by when they were due, else enqueued, else started. A click "
        "on a status or an id shows the run in full. "
        "A run is marked slow when it took longer than `slow_after` of the settings for its job. *again* leads to "
        "where the work of a failed run's job is started again for its entity, if its program has a function for that.",
        Ask(RUNS, "data", *columns, limit=MOST, **FILTERS),
        columns,
        height=18,
        no_value="no such runs",
    )


def by_job() -> tables.Panel:
    """What the runs of each job add up to."""
    columns = [
        word("Job", "task", link=JOB_PAGE),
        word("Scheduler", "scheduler", width=95),
        amount("Runs", "runs", width=75),
        amount("Success", "statuses.success", no_value="0", width=75),
        amount("Failed", "statuses.failed", no_value="0", width=85),
        amount("Retried", "statuses.retried", no_value="0", width=75),
        amount("Skipped", "statuses.skipped", no_value="0", width=75),
        amount("Lost", "statuses.unknown", no_value="0", width=65),
        amount("Failing", "failure_rate", "percentunit", levels=FAILING, width=75),
        duration("Mean", "mean", width=85),
        duration("p50", "percentiles.p50", width=85),
        duration("p95", "percentiles.p95", width=85),
        duration("Longest", "max", width=85),
        amount("Slow", "slow", width=60),
    ]
    return api_table(
        "By job",
        "What the runs of each chosen job and of the chosen entities in this time add up to, whatever the other "
        "filters leave.",
        Ask(STATS, "data", *columns, **SPAN),
        columns,
        sort="Failed",
        descending=True,
        height=12,
    )


def unhealthy() -> stats.Panel:
    """How many entities are not well."""
    columns = [amount("Unhealthy", "unhealthy", "locale", levels={0: "green", 1: "red"})]
    return api_tiles(
        "Unhealthy entities",
        "Shops, tenants, databases … of which something has failed since their latest success.",
        Ask(ENTITIES, "", *columns, **SPAN),
        columns,
        width=4,
        height=8,
    )


def by_entity() -> tables.Panel:
    """How the runs about each entity went."""
    columns = [
        word("Entity", "entity", link=same_on("runs", entity="${__data.fields.Entity:percentencode}")),
        word("Scheduler", "scheduler", width=120),
        flag(
            "State", "healthy", texts={"true": ("healthy", "green"), "false": ("unhealthy", "red")}, width=95
        ),
        amount("Pending", "pending", "locale", width=85),
        amount("Processing", "processing", "locale", width=95),
        amount("Completed", "completed", "locale", width=95),
        amount("Failed", "failed", "locale", width=85),
        moment("Last run", "last_run_at", width=160),
        flag(
            "Backfill",
            "healthy",
            texts=dict.fromkeys(("true", "false"), ("again", "blue")),
            link=BACKFILL_PAGE,
            width=75,
        ),
    ]
    return api_table(
        "By entity",
        "What the kept runs of the chosen jobs in this time were about, and how they went; lost ones count as failed. "
        "A click on an entity chooses it; *again* leads to where work about it is started again.",
        Ask(ENTITIES, "data", *columns, limit=MOST, **SPAN),
        columns,
        width=20,
        no_value="no run says what it was about",
    )


def alerts() -> tables.Panel:
    """The alerts that Alertmanager told of."""
    columns = [
        moment("Since", "started_at", width=160),
        moment("Until", "recovered_at", width=160, no_value="now"),
        duration("For", "duration", width=90),
        word("Severity", "severity", texts=SEVERITIES, width=90),
        word("Alert", "name", width=250, link=RUNBOOK_PAGE),
        word("About", "object"),
        word("Summary", "summary"),
    ]
    return api_table(
        "Alerts",
        "Alerts of all jobs that were active in this time, as Alertmanager told them to taskscope's webhook. A click "
        "on a name shows what to do.",
        Ask("/api/monitoring/alerts", "data", *columns, limit="100", **SPAN),
        columns,
        no_value="no alert was told",
    )
