"""From a job that fails to the message that it is well again: real processes, shipped rules and configuration."""

import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit
from urllib.request import Request, urlopen

import pytest
import yaml

from services.process import free_port, until
from services.receivers import ALERTS, seconds, shipped

PROGRAM = Path(__file__).parents[1] / "programs" / "scripted.py"
JOB = "close & report"  # which is not the same in a link
PATIENCE = 100  # a rule's `for` of 5 minutes takes 3 seconds; much faster, and the start is an outage
TOKEN = "secret of token"  # what the configuration's file holds


class Taskscope:
    """The program under test, whose job fails and succeeds when it is told to."""

    def __init__(self, directory):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, str(PROGRAM), f"sqlite:///{directory}/runs.db", str(self.port), TOKEN, JOB]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout.readline() == "ready\n"

    def job(self, outcome):
        self._process.stdin.write(f"{outcome}\n")
        self._process.stdin.flush()

    def get(self, path, **parameters):
        request = Request(
            f"{self.url}{path}?{urlencode(parameters)}", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        with urlopen(request, timeout=10) as answer:
            return answer.read().decode()

    def alerts(self, **filters):
        return json.loads(self.get("/api/monitoring/alerts", **filters))["data"]

    def kill(self):
        self._process.kill()

    def end(self):
        self._process.communicate(timeout=30)


@pytest.fixture
def taskscope(tmp_path):
    program = Taskscope(tmp_path)
    yield program
    program.end()


@pytest.fixture
def rule_files(tmp_path):
    """The shipped rules, with less patience."""
    return [_hurried(path, tmp_path / path.name) for path in sorted(ALERTS.glob("*.yml"))]


@pytest.fixture
def watched(taskscope, rule_files, prometheus, alertmanager, inbox, tmp_path):
    """A Prometheus that finds taskscope well, and whose alerts reach the inbox and taskscope itself."""
    settings = shipped(inbox, tmp_path)
    history = next(one for one in settings["receivers"] if one["name"] == "taskscope-history")
    webhook = history["webhook_configs"][0]
    history["webhook_configs"].append(webhook | {"url": f"{taskscope.url}/api/monitoring/webhook"})
    alertmanager.configure(settings)
    prometheus.scrape(
        [f"127.0.0.1:{taskscope.port}"], 0.25, rule_files, alertmanagers=[f"127.0.0.1:{alertmanager.port}"]
    )
    until(lambda: inbox.at("/taskscope-watchdog"), what="the dead man's switch")
    until(lambda: prometheus.query(f'taskscope_job_last_success_timestamp_seconds{{job_name="{JOB}"}} > 0'))
    until(lambda: not prometheus.query('ALERTS{alertname!="TaskscopeWatchdog"}'), what="a healthy start")
    return prometheus


def _hurried(source, target):
    rules = yaml.safe_load(source.read_text())
    for group in rules["groups"]:
        group.pop("interval", None)
        for rule in group["rules"]:
            for key in {"for", "keep_firing_for"} & rule.keys():
                rule[key] = f"{round(seconds(rule[key]) / PATIENCE * 1000)}ms"
    target.write_text(yaml.safe_dump(rules))
    return target


def told(inbox, path, status, name="TaskscopeJobLastRunFailed"):
    """The alerts of this name that a receiver was sent with this status."""
    alerts = [one for notification in inbox.at(path) for one in notification.body["alerts"]]
    return [one for one in alerts if (one["labels"]["alertname"], one["status"]) == (name, status)]


def heard(inbox, title):
    """The messages to the team that begin so."""
    messages = [one.body["attachments"][0] for one in inbox.at("/slack")]
    return [message for message in messages if message["title"].startswith(title)]


@pytest.mark.slow
def test_a_job_fails_and_recovers_and_everybody_hears_of_both(taskscope, watched, alertmanager, inbox):
    taskscope.job("fails")

    until(lambda: told(inbox, "/taskscope-history", "firing"), what="the alert")
    alert = told(inbox, "/taskscope-history", "firing")[0]
    assert alert["labels"] == {
        "alertname": "TaskscopeJobLastRunFailed",
        "severity": "warning",
        "scheduler": "billing",
        "job_name": JOB,
        "team": "payments",
    }
    assert JOB in alert["annotations"]["description"]
    dashboard = urlsplit(alert["annotations"]["dashboard_url"])
    assert dashboard.path == "/d/taskscope-job"
    assert parse_qs(dashboard.query) == {"var-scheduler": ["billing"], "var-job_name": [JOB]}
    runbook = urlsplit(alert["annotations"]["runbook_url"])
    assert f'id="{runbook.fragment}"' in taskscope.get(runbook.path)
    until(lambda: heard(inbox, "[WARNING] TaskscopeJobLastRunFailed") and inbox.mails, what="a message")
    (message,) = heard(inbox, "[WARNING] TaskscopeJobLastRunFailed")
    assert message["title"] == "[WARNING] TaskscopeJobLastRunFailed: billing/close &amp; report"
    until(lambda: heard(inbox, "[WARNING] TaskscopeNewError"), what="that it never failed so before")
    runs = urlsplit(re.search(r"<([^|>]*)\|Runs>", message["text"])[1])
    assert (runs.path, parse_qs(runs.query)["var-job_name"]) == ("/d/taskscope-runs", [JOB])
    until(lambda: taskscope.alerts(status="active"), what="the alert in the API")
    told_of = {one["name"] for one in taskscope.alerts(job=JOB)}
    assert told_of == {"TaskscopeJobLastRunFailed", "TaskscopeNewError"}

    taskscope.job("succeeds")

    until(lambda: told(inbox, "/taskscope-history", "resolved"), what="the recovery")
    until(lambda: heard(inbox, "[RESOLVED] TaskscopeJobLastRunFailed"), what="the recovery told to the team")
    until(lambda: taskscope.alerts(status="recovered"), what="the recovery in the API")
    (past,) = taskscope.alerts(name="TaskscopeJobLastRunFailed")
    assert (past["scheduler"], past["job_name"], past["severity"]) == ("billing", JOB, "warning")
    assert past["started_at"] < past["recovered_at"]
    assert past["duration"] > 0
    assert {one["labels"]["job_name"] for one in alertmanager.alerts(filter='job_name=~".+"')} <= {JOB}
    assert not inbox.at("/pagerduty")


@pytest.mark.slow
def test_a_dead_process_pages_for_itself_and_not_for_each_of_its_jobs(
    taskscope, watched, alertmanager, inbox
):
    taskscope.job("is due")
    until(lambda: watched.value(f'taskscope:job_next_run_timestamp_seconds:max{{job_name="{JOB}"}}'))

    taskscope.kill()

    def state(name, severity):
        found = alertmanager.alerts(filter=[f'alertname="{name}"', f'severity="{severity}"'])
        return [one["status"]["state"] for one in found]

    until(lambda: state("TaskscopeJobOverdue", "critical") == ["suppressed"], what="a muted alert")
    until(lambda: state("TaskscopeSchedulerAbsent", "info") == ["suppressed"], what="the critical one")
    paged = {"TaskscopeDown", "TaskscopeSchedulerAbsent"}
    until(lambda: {one.body["payload"]["class"] for one in inbox.at("/pagerduty")} == paged)
