"""Findings told to a real Alertmanager: while they are open, when they recover, whatever happens to it meanwhile."""

import time

import pytest
from inspecting import HOUR, HOURLY, Past
from msgspec.structs import replace

from services.ingesting import NONSENSE, saying
from services.process import until
from taskscope.errors import Unavailable
from taskscope.events import Defined, Job, SchedulerState
from taskscope.inspection.teller import Teller
from taskscope.settings import JobRule, Notify

QUIET = {"route": {"receiver": "none"}, "receivers": [{"name": "none"}]}


@pytest.fixture
def told(tmp_path):
    """A history whose hours are the last ones, and what tells of it: Alertmanager goes by the clock on the wall."""
    pasts = []

    def begun(url, hours=3, **notify):
        rules = replace(HOURLY, notify=Notify(**notify))
        past = Past(f"sqlite:///{tmp_path / 'runs.db'}", hourly=rules)
        pasts.append(past)
        past.clock.now = (time.time() // HOUR - hours) * HOUR
        jobs = (JobRule(match="job", team="ops"),)
        links = {"taskscope": "http://ts:1/", "grafana": "http://g:2", "config": "http://git/ts.yaml"}
        past.settings = replace(
            past.settings,
            alertmanager=url,
            jobs=jobs,
            links=links,
            labels={"cluster": "eu", "severity": "none"},
        )
        return past, Teller(past.settings, past.queries, past.tell, past.live, past.clock)

    yield begun
    for past in pasts:
        past.close()


def known(alertmanager):
    return {(one["labels"]["alertname"], one["status"]["state"]): one for one in alertmanager.alerts()}


def test_the_team_is_that_of_the_rules_of_that_moment(told, alertmanager):
    past, teller = told(alertmanager.configure(QUIET))
    past.fails()
    past.wait()
    past.inspect()
    past.clock.now = time.time()
    teller.adopt(replace(past.settings, jobs=(JobRule(match="job", team="dev"),)))
    assert teller.tell() == 1

    assert known(alertmanager)["TaskscopeFoundNewError", "active"]["labels"]["team"] == "dev"


def test_a_finding_is_told_with_all_it_takes_to_look_at_it_and_is_resolved_when_it_recovers(
    told, alertmanager
):
    past, teller = told(alertmanager.configure(QUIET), receivers=("ops", "dev"))
    past.fails()
    past.wait()
    past.inspect()
    past.clock.now = time.time() - 60  # never ahead of the wall: what ends in a minute is not resolved
    assert teller.tell() == 1

    (found,) = past.findings()
    assert found.told == round(past.clock() * 1000)
    alert = known(alertmanager)["TaskscopeFoundNewError", "active"]
    assert alert["labels"] == {
        "alertname": "TaskscopeFoundNewError",
        "cluster": "eu",
        "severity": "warning",
        "scheduler": "s",
        "job_name": "job",
        "inspection": "hourly",
        "finding": found.subject.hex(),
        "receiver": "ops,dev",
        "team": "ops",
    }
    said = alert["annotations"]
    assert "in f" in said["stack"]
    assert said["error_url"] == f"http://g:2/d/taskscope-groups?var-fingerprint={found.key}"
    assert said["run_url"] == f"http://g:2/d/taskscope-run?var-run_id={found.details['run']}"
    assert said["dashboard_url"].startswith("http://g:2/d/taskscope-findings?var-finding=")
    assert said["config_url"] == "http://git/ts.yaml"
    assert said["runbook_url"] == "http://ts:1/runbook#taskscopefoundnewerror"
    assert time.time() + 200 < _seconds(alert["endsAt"]) < time.time() + 400, (
        "it holds until it is told again"
    )

    before = _seconds(alert["endsAt"])
    past.clock.now += 60
    assert teller.tell() == 1
    assert _seconds(known(alertmanager)["TaskscopeFoundNewError", "active"]["endsAt"]) > before, "told again"
    past.inspect()
    assert past.states() == [("new_error", "recovered")]
    teller.tell()
    until(lambda: not known(alertmanager), timeout=10, what="the alert being resolved")


def test_alertmanager_may_be_away_and_hears_of_it_when_it_is_back(told, alertmanager):
    url = alertmanager.configure(QUIET)
    alertmanager.stop()
    past, teller = told(url, hours=2)
    past.fails()
    past.wait()
    past.inspect()
    with pytest.raises(Unavailable, match="Alertmanager does not answer"):
        teller.tell()
    assert past.findings()[0].told == 0
    past.wait()
    past.inspect()
    assert past.states() == [("new_error", "recovered")], "meanwhile it is over"

    alertmanager.start()
    past.clock.now = time.time()
    assert teller.tell() == 1
    assert ("TaskscopeFoundNewError", "active") in known(alertmanager), "nobody had heard of it"


def test_one_that_is_no_alertmanager_is_said(told):
    with saying(NONSENSE[0]) as url:
        past, teller = told(url)
        past.fails()
        past.wait()
        past.inspect()
        with pytest.raises(Unavailable, match="Alertmanager does not answer"):
            teller.tell()


def test_a_wrong_address_is_said(told, alertmanager):
    past, teller = told(alertmanager.configure(QUIET) + "/nowhere")
    past.fails()
    past.wait()
    past.inspect()

    with pytest.raises(Unavailable, match="Alertmanager answers 404"):
        teller.tell()


def test_levels_say_what_is_told(told, alertmanager):
    past, teller = told(alertmanager.configure(QUIET), levels=("critical",))
    past.fails()
    past.wait()
    past.inspect()

    assert teller.tell() == 0
    assert known(alertmanager) == {}


def test_within_its_silence_the_same_is_not_told_again(told, alertmanager):
    past, teller = told(alertmanager.configure(QUIET), hours=12, silence=6 * HOUR)
    hours = [True, False, True, True, False, False, False, True]  # in which the job is slow
    past.runs(2000, 1.0)
    past.wait()
    new = []
    for slow in hours:
        past.runs(20, 9.0 if slow else 1.0)
        past.wait()
        past.inspect()
        before = {one.id for one in past.findings() if one.told}
        teller.tell()
        new.append(len({one.id for one in past.findings() if one.told} - before))

    assert past.states() == [("slow_job", "recovered"), ("slow_job", "recovered"), ("slow_job", "open")]
    assert new == [1, 0, 0, 0, 0, 0, 0, 1], "told again when the silence of the first is over"


def test_what_a_job_fails_for_is_told_with_the_run_and_its_error(told, alertmanager):
    past, teller = told(alertmanager.configure(QUIET))
    teller.adopt(replace(past.settings, links={"taskscope": "http://ts:1"}))  # no Grafana is known
    past.fails(entity="shop-7")
    past.wait()
    past.inspect()
    past.clock.now = time.time()
    assert teller.tell() == 2, "the error is new as well"

    alert = known(alertmanager)["TaskscopeFoundFailingEntity", "active"]
    (found,) = [one for one in past.findings() if one.kind == "failing_entity"]
    assert (alert["labels"]["severity"], alert["labels"]["finding"]) == ("critical", found.subject.hex())
    said = alert["annotations"]
    assert said["summary"] == "shop-7 of job job fails"
    assert said["run_url"] == f"http://ts:1/api/task/{found.details['run']}"
    assert said["error_url"].startswith("http://ts:1/api/error/")
    assert said["runbook_url"] == "http://ts:1/runbook#taskscopefoundfailingentity"
    assert "in f" in said["stack"]


def test_an_alert_keeps_its_labels_when_the_program_has_died(told, alertmanager):
    past, teller = told(alertmanager.configure(QUIET))
    past.clock.now = time.time() // HOUR * HOUR - HOUR
    belongs = {"environment": "prod"}
    reading = SchedulerState(
        scheduler="s", system="fake", at=past.clock(), up=True, running=True, labels=belongs
    )
    past.live.fold([reading, Defined(scheduler="s", at=past.clock(), job=Job(name="job", key="1"))])
    past.fails()
    past.wait()
    past.inspect()
    past.clock.now = time.time()
    past.live.expire(past.clock())
    assert not past.live.schedulers
    teller.tell()

    alert = known(alertmanager)["TaskscopeFoundNewError", "active"]
    assert alert["labels"]["environment"] == "prod"


def _seconds(text):
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()
