"""Who is told: routes, groups, muting and business hours of the shipped configuration, decided by Alertmanager."""

import re
import subprocess

import pytest
import yaml

from services.process import until
from services.receivers import ALERTS, seconds, shipped

CONFIG = ALERTS / "alertmanager/alertmanager.yml"
HISTORY, PAGER, TEAM, DIGEST = (f"taskscope-{name}" for name in ("history", "pager", "team", "digest"))
JOB = {"scheduler": "billing", "job_name": "nightly"}


@pytest.fixture
def settings(inbox, tmp_path):
    """The shipped configuration, made fast and told to the inbox."""
    return shipped(inbox, tmp_path)


def routes(route):
    """A route and all below it."""
    return [route, *(each for child in route.get("routes", ()) for each in routes(child))]


def test_amtool_finds_nothing_wrong(amtool):
    done = subprocess.run([amtool, "check-config", CONFIG], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "1 templates" in done.stdout


def test_alertmanager_loads_it_as_it_is_without_any_secret(alertmanager):
    settings = yaml.safe_load(CONFIG.read_text())

    alertmanager.configure(settings | {"templates": [str(CONFIG.parent / "templates/*.tmpl")]})

    assert len(alertmanager.get("receivers")) == 5


@pytest.mark.parametrize(
    ("receivers", "labels"),
    [
        ([HISTORY, PAGER], {"alertname": "TaskscopeJobFailing", "severity": "critical"}),
        ([HISTORY, PAGER], {"alertname": "TaskscopeJobOverdue", "severity": "critical", **JOB}),
        ([HISTORY, PAGER], {"alertname": "TaskscopeDown", "severity": "critical"}),
        ([HISTORY, TEAM], {"alertname": "TaskscopeJobFailing", "severity": "warning", **JOB}),
        ([HISTORY, TEAM], {"alertname": "TaskscopeJobOverdue", "severity": "warning", **JOB}),
        ([HISTORY, DIGEST], {"alertname": "TaskscopeSchedulerPaused", "severity": "info"}),
        ([HISTORY, TEAM], {"alertname": "TaskscopeJobFailing", "severity": "sev2"}),
        ([HISTORY, TEAM], {"alertname": "TaskscopeJobFailing"}),
        (["taskscope-watchdog"], {"alertname": "TaskscopeWatchdog", "severity": "info"}),
        ([TEAM], {"alertname": "NodeFilesystemFull", "severity": "critical"}),
    ],
)
def test_an_alert_reaches(amtool, receivers, labels):
    pairs = [f"{name}={value}" for name, value in labels.items()]
    verify = f"--verify.receivers={','.join(receivers)}"

    command = [amtool, "config", "routes", "test", f"--config.file={CONFIG}", verify, *pairs]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


def test_no_secret_and_no_foreign_address_is_in_it():
    text = CONFIG.read_text()

    assert not [line for line in text.splitlines() if "password:" in line or "_key:" in line]
    addresses = [word for word in text.split() if "://" in word]
    assert all("://localhost:" in one or ".example.org" in one for one in addresses)


def test_every_repetition_is_a_multiple_of_the_group_interval():
    everything = routes(yaml.safe_load(CONFIG.read_text())["route"])[1]

    for route in routes(everything):
        full = everything | route
        times, rest = divmod(seconds(full["repeat_interval"]), seconds(full["group_interval"]))
        assert (times > 1, rest) == (True, 0), route  # else it comes late by up to a whole interval


def test_the_dead_mans_switch_calls_again_and_again_and_tells_nobody_else(alertmanager, inbox, settings):
    alertmanager.configure(settings)

    alertmanager.tell([{"labels": {"alertname": "TaskscopeWatchdog", "severity": "info"}}])

    until(lambda: len(inbox.at("/taskscope-watchdog")) >= 3)
    assert {one.path for one in inbox.notifications} == {"/taskscope-watchdog"}


def test_many_overdue_jobs_of_a_scheduler_are_one_page(alertmanager, inbox, settings):
    alertmanager.configure(settings)
    overdue = {"alertname": "TaskscopeJobOverdue", "severity": "critical", "scheduler": "billing"}

    alertmanager.tell([{"labels": overdue | {"job_name": f"job-{number}"}} for number in range(50)])

    until(lambda: inbox.at("/pagerduty"))
    until(lambda: sum(len(one.body["alerts"]) for one in inbox.at("/taskscope-history")) >= 50)
    assert len({one.body["dedup_key"] for one in inbox.at("/pagerduty")}) == 1


def test_failing_jobs_are_a_page_each(alertmanager, inbox, settings):
    alertmanager.configure(settings)
    failing = {"alertname": "TaskscopeJobFailing", "severity": "critical", "scheduler": "billing"}

    alertmanager.tell([{"labels": failing | {"job_name": f"job-{number}"}} for number in range(3)])

    until(lambda: len({one.body["dedup_key"] for one in inbox.at("/pagerduty")}) == 3)


@pytest.mark.parametrize(
    ("name", "severity"),
    [("SchedulerPaused", "info"), ("SchedulerPaused", "warning"), ("JobNoSuccess", "warning")],
)
@pytest.mark.parametrize("open_now", [True, False])
def test_business_hours_let_through_and_hold_back(alertmanager, inbox, tmp_path, name, severity, open_now):
    settings = shipped(inbox, tmp_path, uncommented="active_time_intervals")
    settings["time_intervals"][0]["time_intervals"] = [{} if open_now else {"years": ["2000"]}]
    alertmanager.configure(settings)

    alertmanager.tell([{"labels": {"alertname": f"Taskscope{name}", "severity": severity, **JOB}}])

    if open_now:
        until(lambda: inbox.mails)
    else:
        until(lambda: inbox.at("/taskscope-history"))
        with pytest.raises(pytest.fail.Exception, match="did not happen"):
            until(lambda: inbox.mails, timeout=1)


@pytest.fixture
def joined(tmp_path):
    """A configuration that somebody has, with the parts that docs/alerting.md says to copy."""
    ours = yaml.safe_load(CONFIG.read_text())
    route = {
        "receiver": "ops",
        "group_by": ["..."],
        "routes": [{"matchers": ['severity="critical"'], "receiver": "night"}],
    }
    theirs = {"route": route, "receivers": [{"name": "ops"}, {"name": "night"}]}
    theirs["route"]["routes"].insert(0, ours["route"]["routes"][0])
    theirs["receivers"] += ours["receivers"]
    joined = theirs | {name: ours[name] for name in ("inhibit_rules", "time_intervals", "global")}
    joined["templates"] = [str(CONFIG.parent / "templates/*.tmpl")]
    (tmp_path / "joined.yml").write_text(yaml.safe_dump(joined))
    return tmp_path / "joined.yml"


@pytest.mark.parametrize(
    ("receivers", "labels"),
    [
        (f"{HISTORY},{PAGER}", ["alertname=TaskscopeJobFailing", "severity=critical"]),
        ("taskscope-watchdog", ["alertname=TaskscopeWatchdog", "severity=info"]),
        ("night", ["alertname=NodeDown", "severity=critical"]),
        ("ops", ["alertname=NodeFull", "severity=warning"]),
    ],
)
def test_it_joins_a_configuration_that_one_has(amtool, joined, receivers, labels):
    routes_test = [amtool, "config", "routes", "test", f"--config.file={joined}"]

    done = subprocess.run(
        [*routes_test, f"--verify.receivers={receivers}", *labels], capture_output=True, check=False
    )

    assert done.returncode == 0, done.stdout


def test_no_foreign_alert_is_ever_muted():
    rules = yaml.safe_load(CONFIG.read_text())["inhibit_rules"]

    for matchers in (rule[side] for rule in rules for side in ("source_matchers", "target_matchers")):
        assert any(one.startswith(('alertname=~"Taskscope', 'alertname="Taskscope')) for one in matchers)


def test_the_documentation_names_every_receiver_and_everything_that_mutes():
    page = (ALERTS.parent / "docs/alerting.md").read_text()
    config = yaml.safe_load(CONFIG.read_text())

    sources = [one for rule in config["inhibit_rules"] for one in rule["source_matchers"]]
    muting = {name for one in sources for name in re.findall(r"Taskscope\w+", one)} - {"Taskscope"}
    assert len(muting) >= 5
    assert [name for name in muting if f"`{name}`" not in page] == []
    assert [one["name"] for one in config["receivers"] if f"`{one['name']}`" not in page] == []
