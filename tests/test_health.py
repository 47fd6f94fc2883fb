"""Checks and the score that they make. That they agree with the alerts: tests/alerts/test_health_agrees.py."""

import pytest

from healthy import health_of
from taskscope.bridges.fake import Clock
from taskscope.checks import CHECKS, Definition, Own
from taskscope.configure import HEALTH_CHECKS, load
from taskscope.errors import BadArgument
from taskscope.events import Defined, Fact, Job, Jobs, QueueState, SchedulerState, Trigger, WorkerState
from taskscope.facts import Change, row_of
from taskscope.live import Live
from taskscope.rules import rule_for
from taskscope.settings import Check, Health, JobRule, QueueRule, Settings
from taskscope.sinks.metrics import Metrics

NOW = 1_763_750_000.0


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
def live() -> Live:
    live = Live()
    live.fold([_up("s")])
    return live


def _up(scheduler, up=True):
    return SchedulerState(scheduler=scheduler, system="fake", at=NOW, up=up, running=up)


def _waits(ready, scheduler="s", queue="q"):
    return QueueState(scheduler=scheduler, queue=queue, at=NOW, ready=ready)


def _after(health, clock, seconds):
    """What health says then, having looked now."""
    health.scores()
    clock.advance(seconds)
    return {score.scheduler: score for score in health.scores()}


def _failing(score):
    return {result.check for result in score.checks if not result.ok}


def test_a_scheduler_of_which_all_is_well_has_all_points(live, clock):
    whole, scheduler = health_of(live, Settings(), clock).scores()

    assert (whole.scheduler, whole.score, whole.status) == ("", 100, "healthy")
    assert (scheduler.scheduler, scheduler.score) == ("s", 100)
    assert {result.check for result in scheduler.checks} == CHECKS.keys() - {
        "queue_backlog",  # it has no queue
        "worker_down",  # and no worker
        "store",
        "taskscope",
    }


def test_what_fails_has_to_fail_for_its_window_and_is_over_at_once(live, clock):
    live.fold([_waits(1001)])
    health = health_of(live, Settings(), clock)

    assert _after(health, clock, 890)["s"].score == 100
    assert _after(health, clock, 20)["s"].score == 80
    live.fold([_waits(1000)])
    assert _after(health, clock, 10)["s"].score == 100
    live.fold([_waits(1001)])
    assert _after(health, clock, 890)["s"].score == 100, "it begins anew"


def test_a_failing_check_says_for_what_since_when_and_against_which_limit(live, clock):
    live.fold([_waits(50), _waits(300, queue="mail"), _waits(7, queue="bulk")])
    settings = Settings(queues=(QueueRule(match="s/mail", backlog=200),))

    score = _after(health_of(live, settings, clock), clock, 1000)["s"]
    (backlog,) = [result for result in score.checks if result.check == "queue_backlog"]

    assert (backlog.value, backlog.threshold, backlog.objects) == (300, 200, ("mail",))
    assert (backlog.since, backlog.ok) == (NOW, False)


def test_the_deductions_are_those_of_the_guide_and_the_whole_loses_each_once(live, clock):
    down = [WorkerState(scheduler=name, worker="w", at=NOW, up=False) for name in ("s", "t")]
    live.fold([_up("t"), *down, _waits(5000)])

    scores = _after(health_of(live, Settings(), clock), clock, 1000)

    assert (scores["s"].score, scores["t"].score, scores[""].score) == (50, 70, 50)
    assert [scores[name].status for name in ("s", "t", "")] == ["degraded"] * 3


def test_the_score_never_falls_below_0(live, clock):
    live.fold([WorkerState(scheduler="s", worker="w", at=NOW, up=False), _up("s", up=False), _waits(5000)])
    health = Health(checks={name: Check(deduction=90) for name in ("worker_down", "queue_backlog")})

    assert _after(health_of(live, Settings(health=health), clock), clock, 1000)["s"].score == 0


def test_checks_are_set_for_all_and_for_one_scheduler(live, clock):
    live.fold([_up("t"), _waits(60), _waits(60, "t")])
    health = Health(
        healthy=95,
        checks={"queue_backlog": Check(threshold=50, window=10, deduction=1)},
        schedulers={
            "t": {"queue_backlog": Check(deduction=40, severity="info"), "stale_job": Check(enabled=False)}
        },
    )

    scores = _after(health_of(live, Settings(health=health), clock), clock, 20)

    assert (scores["s"].score, scores["t"].score, scores[""].score) == (99, 60, 60)
    assert scores[""].status == "degraded"
    assert "stale_job" not in {result.check for result in scores["t"].checks}
    assert {result.severity for result in scores["t"].checks if not result.ok} == {"info"}


def test_what_holds_of_a_trigger_and_of_a_due_job_counts_from_when_it_began(live, clock):
    broken = Job(name="b", key="b", triggers=(Trigger(key="b", state="ERROR"),))
    late = Job(name="l", key="l", next_run=NOW - 3600, triggers=(Trigger(key="l", state="WAITING"),))
    live.fold([Jobs(scheduler="s", at=NOW - 500, jobs=(broken, late))])

    (_, score) = health_of(live, Settings(), clock).scores()

    assert _failing(score) == {"trigger_error", "stale_job"}
    since = {result.check: result.since for result in score.checks}
    assert (since["trigger_error"], since["stale_job"]) == (NOW - 500, NOW - 3300)


def test_a_removed_and_a_paused_job_are_not_stale(live, clock):
    late = Job(name="l", key="l", next_run=NOW - 3600)
    live.fold([Jobs(scheduler="s", at=NOW - 5, jobs=(late,)), Jobs(scheduler="s", at=NOW - 4, jobs=())])
    live.fold([Jobs(scheduler="s", at=NOW, jobs=(Job(name="p", key="p", next_run=NOW - 3600, paused=True),))])

    assert _failing(health_of(live, Settings(), clock).scores()[1]) == set()


def test_a_scheduler_whose_readings_are_gone_is_down(live, clock):
    live.fold([Jobs(scheduler="s", at=NOW, jobs=())])
    live.expire(NOW + 3600)

    assert _failing(_after(health_of(live, Settings(), clock), clock, 200)["s"]) == {"scheduler_down"}


def test_an_object_whose_words_change_is_the_same_object(live, clock):
    own = {"store": "connection refused", "degraded": {"port": "9750 is taken"}}
    health = health_of(live, Settings(), clock, **own)
    live.fold([WorkerState(scheduler="s", worker=name, at=NOW, up=False) for name in "ab"])
    assert _failing(_after(health, clock, 200)["s"]) == set()

    own |= {"store": "is starting up", "degraded": {"port": "9750 is still taken"}}
    live.fold([WorkerState(scheduler="s", worker="c", at=NOW, up=False)])  # 3 workers, not 2
    health = _with_own(health, **own)
    scores = _after(health, clock, 200)

    assert _failing(scores["s"]) == {"worker_down"}
    assert _failing(scores[""]) == {"worker_down", "store", "taskscope"}


def _with_own(health, **own):
    health._own = lambda now: Own(now=now, **own)
    return health


def test_jobs_that_only_tell_of_themselves_have_health_and_no_scheduler_that_could_be_down(live, clock):
    job = Job(name="backup", key="backup", next_run=NOW - 7200)
    live.fold([Defined(scheduler="cron", at=NOW - 7300, job=job)])

    score = _after(health_of(live, Settings(), clock), clock, 300)["cron"]

    assert {result.check for result in score.checks} == {
        "failure_rate",
        "stale_job",
        "stuck_run",
        "trigger_error",
    }
    assert _failing(score) == {"stale_job"}


def test_a_job_that_is_late_is_held_to_the_grace_of_its_rule(live, clock):
    live.fold([Jobs(scheduler="s", at=NOW, jobs=(Job(name="l", key="l", next_run=NOW - 1000),))])
    settings = Settings(jobs=(JobRule(match="l", grace=900),))

    score = _after(health_of(live, settings, clock), clock, 10)["s"]

    (stale,) = [result for result in score.checks if not result.ok]
    assert (stale.check, stale.limit, stale.threshold) == ("stale_job", 300, 900)


@pytest.mark.parametrize(
    ("usual", "longest"), [(1.0, 301), (3_600.0, 3_900), (None, 1_800)], ids=["quick", "long", "unknown"]
)
def test_a_run_is_stuck_at_once_when_it_takes_5_minutes_longer_than_usual(live, clock, usual, longest):
    live.fold([Fact(scheduler="s", native="n", status="started", at=NOW, anchor=NOW, job="j")])
    health = health_of(live, Settings(), clock)
    health._usual = lambda key: usual

    assert _failing(_after(health, clock, longest)["s"]) == set()
    score = _after(health, clock, 6)["s"]

    (stuck,) = [result for result in score.checks if not result.ok]
    assert (stuck.check, stuck.threshold, stuck.since) == ("stuck_run", longest, NOW + longest)
    assert stuck.objects == ("j (n)",)


@pytest.mark.parametrize(
    ("rule", "alert"),
    [({"grace": 900}, "TaskscopeJobOverdue"), ({"grace": 9e9, "expect_every": 60}, "TaskscopeJobNoSuccess")],
)
def test_a_check_names_the_alert_that_its_reason_fires(live, clock, rule, alert):
    live.fold([Jobs(scheduler="s", at=NOW - 900, jobs=(Job(name="l", key="l", next_run=NOW - 1000),))])
    health = health_of(live, Settings(jobs=(JobRule(match="l", **rule),)), clock)

    (stale,) = [result for result in _after(health, clock, 100)["s"].checks if not result.ok]

    assert (stale.check, stale.alert) == ("stale_job", alert)


@pytest.mark.parametrize(
    ("own", "alert"),
    [({"lag": 90.0}, "TaskscopePipelineLagging"), ({"degraded": {"port": "taken"}}, "TaskscopeDegraded")],
)
def test_taskscope_itself_names_the_alert_that_its_reason_fires(live, clock, own, alert):
    whole = _after(health_of(live, Settings(), clock, **own), clock, 400)[""]

    assert [result.alert for result in whole.checks if not result.ok] == [alert]


def test_the_rules_of_a_job_are_looked_for_once_until_they_change(live, clock, monkeypatch):
    asked = []
    monkeypatch.setattr("taskscope.health.rule_for", lambda *args: asked.append(args) or rule_for(*args))
    live.fold([Jobs(scheduler="s", at=NOW, jobs=(Job(name="l", key="l", next_run=NOW - 1000),))])
    health = health_of(live, Settings(jobs=(JobRule(match="l", grace=900),)), clock)
    for _ in range(3):
        assert _failing(_after(health, clock, 10)["s"]) == {"stale_job"}
    assert len(asked) == 1

    health.adopt(Settings(jobs=(JobRule(match="l", grace=5000),)))
    assert _failing(_after(health, clock, 10)["s"]) == set()


def test_a_threshold_for_queues_reaches_check_and_metric(live, clock):
    live.fold([_waits(1500)])
    settings = Settings(health=Health(schedulers={"s": {"queue_backlog": Check(threshold=20_000)}}))
    metrics = Metrics(settings)

    metrics.sync(live, NOW)

    assert _failing(_after(health_of(live, settings, clock), clock, 1000)["s"]) == set()
    page = b"".join(metrics.render().blocks).decode()
    assert 'taskscope_queue_limit_messages{queue="q",scheduler="s"} 20000' in page


def test_taskscope_itself_counts_for_the_whole_and_not_for_a_scheduler(live, clock):
    own = {"store": "the disk is full", "degraded": {"port": "9750 is taken"}}

    scores = _after(health_of(live, Settings(), clock, **own), clock, 400)

    assert _failing(scores[""]) == {"store", "taskscope"}
    assert (scores[""].score, scores["s"].score) == (70, 100)
    named = {name for result in scores[""].checks for name in result.objects}
    assert named == {"the disk is full", "port: 9750 is taken"}


def test_how_runs_ended_is_kept_by_the_minute_and_for_the_window(live, clock):
    health = health_of(live, Settings(), clock)
    row = row_of(Fact(scheduler="s", native="n", status="failed", at=NOW, job="j"), bytes(16))
    for _ in range(1000):
        health.committed([Change(row=row, added=row.facts)])
        clock.advance(0.01)

    assert len(health._ended) <= 2
    assert _failing(_after(health, clock, 10)["s"]) == {"failure_rate"}
    assert _failing(_after(health, clock, 3700)["s"]) == set()
    assert health._ended == {}


def test_the_settings_know_every_check_and_whether_it_has_a_threshold():
    assert {name: check.threshold is not None for name, check in CHECKS.items()} == HEALTH_CHECKS


@pytest.mark.parametrize("check", CHECKS.values(), ids=lambda check: check.name)
def test_every_check_says_what_to_do_and_is_described(check: Definition):
    from pathlib import Path

    page = (Path(__file__).parents[1] / "docs" / "health.md").read_text()

    (line,) = [line for line in page.splitlines() if line.startswith(f"| `{check.name}`")]
    assert f"| {check.severity} | {check.deduction} |" in line
    assert check.alert.removeprefix("Taskscope") in line
    assert check.advice.endswith(".")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"checks": {"backlog": {}}}, "health.checks.backlog is no check of health; there are worker_down, "),
        (
            {"schedulers": {"s": {"store": {"severity": "loud"}}}},
            "health.schedulers.s.store.severity must be critical",
        ),
        (
            {"checks": {"worker_down": {"threshold": 1}}},
            "health.checks.worker_down.threshold must be left out: this check asks for yes or no",
        ),
        (
            {"schedulers": {"s": {"trigger_error": {"threshold": 0}}}},
            "health.schedulers.s.trigger_error.threshold must be left out",
        ),
        ({"healthy": 40}, "health.degraded must not be above health.healthy"),
        ({"checks": {"store": {"deduction": 101}}}, "health.checks.store.deduction must be"),
    ],
)
def test_settings_of_health_that_cannot_be_are_explained(wrong, sentence):
    with pytest.raises(BadArgument, match=sentence):
        load(path=None, environ={}, health=wrong)


def test_a_rule_for_queues_with_an_unknown_severity_is_explained():
    with pytest.raises(
        BadArgument, match=r"queues\[0\].severity must be critical, warning or info, not 'loud'"
    ):
        load(path=None, environ={}, queues=[{"match": "*", "severity": "loud"}])
