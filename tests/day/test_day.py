"""The scripted day is what the tests of dashboards and rules believe it to be."""

import json
import time
from urllib.request import urlopen

import pytest

from day.script import HOUR
from services.process import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.xdist_group("day")]


def asked(day, path):
    with urlopen(f"{day.api}{path}", timeout=10) as answer:
        return json.load(answer)


def test_prometheus_and_the_api_tell_the_same_story(day):
    def kept():
        stats = asked(day, f"/api/task/stats?from={day.begin - HOUR}&to={day.end + HOUR}")
        return {
            (row["task"], status): runs
            for row in stats["data"]
            for status, runs in row["statuses"].items()
            if runs and status not in ("started", "queued")
        }

    def counted():
        series = day.prometheus.query('taskscope_runs_total{instance="web-1:9750"} > 0')
        return {
            (one["metric"]["job_name"], one["metric"]["status"]): float(one["value"][1]) for one in series
        }

    until(lambda: kept() == counted(), what="the same numbers")
    assert {status for _, status in kept()} == {"success", "failed", "retried", "skipped", "unknown"}


@pytest.mark.parametrize(
    ("promql", "finds"),
    [
        ("max by (scheduler) (taskscope_scheduler_up) == 0", {"mailbox"}),
        ('max by (job_name) (taskscope_trigger_abnormal_since_timestamp_seconds{state="ERROR"})', {"archive"}),
        ("max by (job_name) (taskscope_job_paused) == 1", {"old_feed"}),
        ("max by (reason) (taskscope_runs_skipped_total)", {"misfire", "overlap", "coalesced"}),
        ("max by (job_name) (taskscope_job_last_success_timestamp_seconds) == 0", {
            "archive", "charge_cards", "compact", "weekly_digest",
        }),
        ('max by (job_name) (taskscope_runs_in_progress{scheduler="reports"}) > 0', {"rebuild_index"}),
        ("up == 0", {"web-2:9750"}),
    ],
)  # fmt: skip
def test_at_its_end_the_day_has(day, promql, finds):
    found = day.prometheus.query(promql, time=day.end)
    labels = ("job_name", "reason", "scheduler", "instance")
    assert {next(one["metric"][name] for name in labels if name in one["metric"]) for one in found} == finds


def test_the_alerts_of_the_day_are_known_to_prometheus_and_to_the_api(day):
    firing = day.prometheus.query('ALERTS{alertstate="firing"}', time=day.end)
    past = day.prometheus.query('ALERTS{alertstate="firing"}', time=day.end - 4.5 * HOUR)
    told = asked(day, "/api/monitoring/alerts")["data"]

    active = {one["name"] for one in told if one["status"] == "active"}
    assert active == {one["metric"]["alertname"] for one in firing}
    recovered = {one["name"] for one in told if one["status"] == "recovered"}
    assert recovered == {"TaskscopeJobMisfired", "TaskscopePipelineLagging"}
    assert {"TaskscopeJobMisfired"} <= {one["metric"]["alertname"] for one in past}


def test_the_slow_jobs_exemplars_lead_to_runs(day):
    def exemplars():
        return day.prometheus.get(
            "query_exemplars",
            query='taskscope_run_duration_seconds_bucket{job_name="render_pictures"}',
            start=day.begin,
            end=time.time(),
        )

    until(exemplars, what="a scrape")
    run_id = exemplars()[0]["exemplars"][0]["labels"]["run_id"]
    assert asked(day, f"/api/task/{run_id}")["task"] == "render_pictures"
