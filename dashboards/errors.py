"""Errors: how often runs fail, with what, and where."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.house import jobs, page, row, schedulers
from dashboards.panels import OUTCOMES, bars, over_time
from dashboards.promql import FAILED, JOBS, counted


def dashboard() -> Dashboard:
    """The page."""
    return page(
        "errors",
        "Errors",
        "How often runs fail, with what, and where.",
        row(
            "",
            bars(
                "Failed runs",
                "Runs that failed or got lost, counted in each bar.",
                over_time(counted("runs_total", JOBS, FAILED, by="status"), "{{status}}"),
                colours=OUTCOMES,
            ),
        ),
        variables=[schedulers(), jobs()],
    )
