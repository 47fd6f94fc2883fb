"""Health: how the whole is doing, which checks fail, since when, and what to do."""

from grafana_foundation_sdk.builders import stat as stats
from grafana_foundation_sdk.builders import statetimeline as timelines
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.builders import timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.house import RUNBOOK_PAGE, page, row, same_on, schedulers
from dashboards.infinity import Ask, amount, api_table, flag, moment, word
from dashboards.panels import SEVERITIES, Levels, at_end, graph, over_time, stat, timeline
from dashboards.promql import SCHEDULERS, metric

WHOLE = 'scheduler=""'
"""All schedulers together with taskscope itself."""
BANDS: Levels = {0: "red", 50: "orange", 80: "green"}
"""Unhealthy, degraded, healthy, as the settings have it at first."""
PASSED = {"true": ("passed", "green"), "false": ("fails", "red")}


def dashboard() -> Dashboard:
    """The page."""
    return page(
        "health",
        "Health",
        "How is the whole doing, which checks fail, since when, and what is there to do?",
        row("", score(), status(), failing_checks(), each_scheduler()),
        row("", checks()),
        row("", scores(), checks_over_time()),
        variables=[schedulers()],
        asks_api=True,
        refresh="10s",
        alerts='scheduler=~"$scheduler|"',
    )


def score(width: int = 4) -> stats.Panel:
    """The score of the whole; of several taskscopes that of the worst."""
    return stat(
        "Health",
        "100 less what failing checks deduct, for all schedulers together with taskscope itself. From 80 on all is "
        "well, below 50 it is not (settings `health.healthy` and `health.degraded`).",
        at_end(f"min({metric('health_score', WHOLE)})"),
        unit="short",
        levels=BANDS,
        no_value="not known",
        link=same_on("health"),
        width=width,
    )


def status(width: int = 4) -> stats.Panel:
    """The score in a word, by the borders that the settings draw."""
    said = {
        rank: metric("health_status", WHOLE, f'status="{name}"')
        for rank, name in enumerate(("unhealthy", "degraded", "healthy"), 1)
    }
    worst = " or ".join(f"{rank} * (max({one}) == 1)" for rank, one in said.items())
    return stat(
        "Status",
        "What the score means.",
        at_end(worst),
        unit="short",
        levels={1: "red", 2: "orange", 3: "green"},
        texts={"1": ("Unhealthy", "red"), "2": ("Degraded", "orange"), "3": ("Healthy", "green")},
        size=20,
        no_value="not known",
        link=same_on("health"),
        width=width,
    )


def failing_checks(width: int = 4) -> stats.Panel:
    """How many checks fail."""
    checks = f"min by (scheduler, check) ({metric('health_check')})"
    return stat(
        "Failing checks",
        "Checks that fail now, of all schedulers and of taskscope itself.",
        at_end(f"sum(({checks}) == bool 0)"),
        unit="short",
        levels={1: "orange"},
        no_value="not known",
        link=same_on("health"),
        width=width,
    )


def each_scheduler() -> stats.Panel:
    """The score of each scheduler."""
    return stat(
        "Schedulers",
        "The score of each chosen scheduler by its own checks.",
        at_end(f"min by (scheduler) ({metric('health_score', SCHEDULERS)})", "{{scheduler}}"),
        unit="short",
        width=12,
        levels=BANDS,
        no_value="no scheduler is known",
    )


def checks() -> tables.Panel:
    """Every check, those that fail first."""
    columns = [
        word("Check", "check", width=125, link=RUNBOOK_PAGE),
        word("Scheduler", "scheduler", width=90),
        flag("State", "ok", texts=PASSED, width=65),
        amount("Now", "value", "none", width=65),
        amount("Limit", "threshold", "none", width=55),
        word("Unit", "unit", width=95),
        moment("Since", "since", width=158),
        word("Severity", "severity", texts=SEVERITIES, width=75),
        word("For", "objects.0", width=110),
        word("What it means", "meaning", wraps=True),
        word("What to do", "advice", wraps=True),
        word("Alert", "alert", hidden=True),
    ]
    return api_table(
        "Checks",
        "Every check of all schedulers and of taskscope itself, those that fail first: what was measured last, beyond "
        "what it fails, since when it does, the first that it does so for, and what to do then. A click on a check "
        "shows more of that.",
        Ask("/api/monitoring/health", "checks", *columns),
        columns,
        height=16,
        no_value="no check is known",
    )


def scores() -> timeseries.Panel:
    """The scores over time."""
    return graph(
        "Health over time",
        "The score of each chosen scheduler, and of the whole.",
        over_time(f"min by (scheduler) ({metric('health_score', SCHEDULERS)})", "{{scheduler}}"),
        over_time(f"min({metric('health_score', WHOLE)})", "the whole"),
        unit="short",
        height=10,
        no_value="not known",
    ).fill_opacity(0)


def checks_over_time() -> timelines.Panel:
    """When each check failed."""
    of_schedulers = f"min by (scheduler, check) ({metric('health_check', SCHEDULERS)})"
    own = f"min by (check) ({metric('health_check', WHOLE)})"
    return timeline(
        "Checks over time",
        "The checks of the chosen schedulers and of taskscope itself that failed at some time in this time range: "
        "when each was passed, and when it failed.",
        over_time(_failed(of_schedulers, SCHEDULERS, "scheduler, check"), "{{check}} of {{scheduler}}"),
        over_time(_failed(own, WHOLE, "check"), "{{check}}"),
        texts={"1": ("passed", "green"), "0": ("fails", "red")},
        width=12,
        height=10,
        no_value="no check failed",
    )


def _failed(checks: str, matchers: str, by: str) -> str:
    """Of these checks those that failed at some time in the time range."""
    ever = f"min by ({by}) (min_over_time({metric('health_check', matchers)}[$__range] @ end()))"
    return f"{checks} and on ({by}) ({ever} == 0)"
