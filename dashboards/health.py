"""Health: how the whole is doing, which checks fail, since when, and what to do."""

from grafana_foundation_sdk.builders import stat as stats
from grafana_foundation_sdk.builders import statetimeline as timelines
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.builders import timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.house import page, row, same_on, schedulers
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


def status() -> stats.Panel:
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
        no_value="not known",
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
    columns = (
        word("Check", "check", width=130),
        word("Scheduler", "scheduler", width=120),
        flag("State", "ok", texts=PASSED, width=80),
        amount("Now", "value", "none", width=90),
        amount("Limit", "threshold", "none", width=80),
        moment("Since", "since", width=165),
        word("Severity", "severity", texts=SEVERITIES, width=90),
        word("What it means", "meaning"),
        word("What to do", "advice"),
    )
    return api_table(
        "Checks",
        "Every check of all schedulers and of taskscope itself, those that fail first: what was measured last, beyond "
        "what it fails, since when it does, and what to do then.",
        Ask("/api/monitoring/health", "checks", *columns),
        columns,
        height=12,
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
        no_value="not known",
    )


def checks_over_time() -> timelines.Panel:
    """When each check failed."""
    failing = f"min by (scheduler, check) ({metric('health_check', SCHEDULERS)})"
    own = f"min by (check) ({metric('health_check', WHOLE)})"
    return timeline(
        "Checks over time",
        "Each check of the chosen schedulers and of taskscope itself: when it was passed, and when it failed.",
        over_time(failing, "{{check}} of {{scheduler}}"),
        over_time(own, "{{check}}"),
        texts={"1": ("passed", "green"), "0": ("fails", "red")},
        width=12,
        height=8,
        no_value="not known",
    )
