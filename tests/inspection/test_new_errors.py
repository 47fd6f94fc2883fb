"""Errors that are new, that came back, that come far more often: real rows through the real store."""

import itertools

import pytest
import yaml
from inspecting import HOUR, HOURLY, T0
from msgspec.structs import replace

from taskscope.inspection import new_errors
from taskscope.settings import Inspection
from taskscope.shipped import shipped


def test_an_error_is_new_once_goes_on_and_has_recovered_after_a_full_window_without_it(past):
    past.inspect()
    past.clock.now = T0 + 600
    past.fails()
    past.inspect()
    assert past.states() == [], "the hour has not ended"

    past.clock.now = T0 + HOUR
    past.inspect()
    (found,) = past.findings()
    assert (found.kind, found.level, found.state) == ("new_error", "warning", "open")
    assert found.started == int((T0 + 600) * 1000)
    assert found.details["count"] == 1
    assert "in f" in found.details["stack"]
    assert sum(value for _, value in found.distribution) == 1

    past.clock.now = T0 + 1.5 * HOUR
    past.fails(times=2)
    past.clock.now = T0 + 2 * HOUR
    past.inspect()
    (still,) = past.findings()
    assert (still.id, still.state, still.details["count"]) == (found.id, "open", 2)

    past.clock.now = T0 + 3 * HOUR - 1
    past.inspect()
    assert past.states() == [("new_error", "open")], "never before a full window has passed"
    past.wait()
    past.inspect()
    (over,) = past.findings()
    assert (over.state, over.recovered) == ("recovered", int((T0 + 3 * HOUR) * 1000))
    assert over.id == found.id


def test_an_error_that_is_known_is_not_new(file):
    past = file()
    past.fails()
    past.wait()
    past.inspect()
    past.wait(5)
    past.inspect()
    past.fails()
    past.wait()
    past.inspect()

    assert past.states() == [("new_error", "recovered")]


def test_an_error_without_a_message_is_called_by_its_class_or_reason_alone(file):
    past = file()
    past.store.apply([past.fact("failed", reason="timeout")])
    past.wait()
    past.inspect()

    (found,) = past.findings()
    assert found.object == "timeout"
    assert found.overview.startswith("timeout happened once.")


def test_what_failed_after_the_hour_in_which_it_was_due_is_found(past):
    past.wait()
    past.inspect()
    past.clock.now += 300
    past.fails(anchor=T0 + 3000)  # due before the hour that was inspected, failed after it
    past.wait()
    past.inspect()

    assert past.states() == [("new_error", "open")]


def test_what_was_told_too_late_is_found(past):
    past.wait()
    past.inspect()
    past.fails(at=T0 + 3590, anchor=T0 + 3590)  # told after the inspection of its hour
    past.wait()
    past.inspect()
    past.wait()
    past.inspect()

    assert past.states() == [("new_error", "recovered")], "and once"


def test_two_errors_of_two_jobs_are_two_findings(file):
    past = file()
    past.fails("f", job="a")
    past.fails("g", job="b")
    past.wait()
    past.inspect()

    assert sorted(one.job for one in past.findings()) == ["a", "b"]


def test_a_resolved_error_that_comes_back_is_a_regression(past):
    past.fails()
    past.wait()
    past.inspect()
    (first,) = past.findings()
    past.wait()
    past.store.act(bytes.fromhex(first.key), "resolve", round(past.clock() * 1000))
    past.inspect()
    past.wait(0.5)
    past.fails()
    past.wait(0.5)
    past.inspect()

    back = past.findings()[-1]
    assert (back.kind, back.level, back.state) == ("regression", "critical", "open")
    assert back.started == int((T0 + 2.5 * HOUR) * 1000)
    past.wait()
    past.inspect()
    assert past.states()[-1] == ("regression", "recovered")


def test_an_ignored_error_is_not_reported(file):
    past = file()
    past.fails()
    past.wait()
    (group,) = past.queries.errors_seen(0, 10**15, 10)
    past.store.act(group.fingerprint, "ignore", round(past.clock() * 1000))
    past.inspect()

    assert past.states() == []


def test_an_error_that_comes_far_more_often_than_usual_rises(past):
    for _ in range(20):
        past.fails(times=2)
        past.wait()
        past.inspect()
    past.fails(times=9)
    past.wait()
    past.inspect()
    assert ("error_rise", "open") not in past.states()

    past.wait(2)
    past.inspect()
    past.fails(times=12)
    past.wait()
    past.inspect()
    rise = past.findings()[-1]
    assert (rise.kind, rise.details["count"]) == ("error_rise", 12)
    assert rise.details["usual"] == pytest.approx(49 / 23, abs=0.1)

    past.fails(times=2)
    past.wait()
    past.inspect()
    assert past.states()[-1] == ("error_rise", "recovered"), "it is usual again"


def test_a_new_error_that_goes_on_may_rise_and_is_not_said_to_be_unseen(file):
    past = file()
    for _ in range(30):
        past.fails()
        past.wait()
        past.inspect()
    (new,) = past.findings()
    assert new.overview == "ValueError: no happened once. It is new since 2025-11-21 18:00 UTC."

    past.fails(times=500)
    past.wait()
    past.inspect()
    assert past.states() == [("new_error", "open"), ("error_rise", "open")]
    assert past.findings()[-1].details["count"] == 500


@pytest.mark.parametrize(("hours", "minutes"), [(1, 1), (2, 5), (24, 60), (168, 180), (8760, 1440)])
def test_its_distribution_has_steps_that_suit_the_window(file, hours, minutes):
    past = file(all=replace(HOURLY, window=hours * HOUR))
    for minute, times in ((3, 1), (4, 5), (50, 2)):
        past.clock.now = T0 + minute * 60
        past.fails(times=times)
    past.clock.now = T0 + HOUR
    past.inspect()

    (found,) = past.findings()
    times = [at for at, _ in found.distribution]
    assert {later - at for at, later in itertools.pairwise(times)} == {minutes * 60_000}
    assert len(times) <= 1000
    assert times[-1] == int(T0 * 1000) + 3_600_000 - minutes * 60_000 or minutes > 60
    assert sum(count for _, count in found.distribution) == 8
    if minutes == 1:
        assert dict(found.distribution)[int(T0 * 1000) + 4 * 60_000] == 5
        assert len(times) == 120


def test_what_was_not_seen_in_the_look_back_is_new(begin):
    past = begin(short=replace(HOURLY, look_back=12 * HOUR), long=HOURLY)
    past.fails()
    past.wait()
    past.inspect()
    past.wait(20)
    past.inspect()
    past.fails()
    past.wait()
    past.inspect()

    told = [(one.inspection, one.state) for one in past.findings()]
    assert sorted(told) == [("long", "recovered"), ("short", "open"), ("short", "recovered")]
    assert past.findings()[-1].overview.endswith("It was not seen in the 12 h before.")


@pytest.mark.parametrize(
    ("rules", "jobs"),
    [
        ({"jobs": ("a*",)}, {"a1"}),
        ({"jobs": ("s/b",)}, {"b"}),
        ({"schedulers": ("oth*",)}, {"c"}),
        ({"queues": ("fast",)}, {"b"}),
        ({"versions": ("2.*",)}, {"c"}),
        ({"schedulers": ("s",), "versions": ("2.*",)}, set()),
        ({"jobs": ("!a*", "!other/c")}, {"b"}),
        ({"jobs": ("s/*", "!b")}, {"a1"}),
        ({"schedulers": ("!oth*",)}, {"a1", "b"}),
        ({"queues": ("!fast",)}, {"a1", "c"}),
        ({"queues": ("f*", "!fast")}, set()),
        ({"versions": ("!2.*",)}, {"a1", "b"}),
        ({"looks": ("silence",)}, set()),
        ({}, {"a1", "b", "c"}),
    ],
)
def test_filters_say_what_is_inspected(file, rules, jobs):
    past = file(hourly=Inspection(**rules))
    past.fails(job="a1")
    past.fails(job="b", queue="fast")
    past.fails(job="c", scheduler="other", version="2.1")
    past.wait()
    past.inspect()

    assert {one.job for one in past.findings()} == jobs


@pytest.mark.parametrize(
    ("kind", "alert"), [("new_error", "TaskscopeNewError"), ("regression", "TaskscopeErrorRegression")]
)
def test_a_finding_is_as_loud_as_the_rule_that_notices_the_same(kind, alert):
    groups = yaml.safe_load((shipped("alerts") / "errors.yml").read_text())["groups"]
    (rule,) = [rule for group in groups for rule in group["rules"] if rule.get("alert") == alert]

    assert rule["labels"]["severity"] == new_errors._KINDS[kind].level
