"""Jobs that ran regularly and stopped."""

import pytest
from inspecting import HOUR, T0

from taskscope.events import Job, Jobs
from taskscope.settings import Inspection

ALONE = Inspection(looks=("silence",))
LAST = T0 + 24 * HOUR
DAYS = 24
OFFICE = [hour for hour in range(21 * DAYS) if hour // 24 % 7 < 5 and 9 <= hour % 24 <= 16]
NIGHTLY = range(2, 21 * DAYS, 24)
MON_FRI = [hour for hour in NIGHTLY if hour // 24 % 7 < 5]


def _by_hours(past, ran, times=1, until=0, **state):
    """What happens from hour to hour: it runs in those that are given."""
    for hour in range(until or ran[-1] + 2):
        if hour in ran:
            past.runs(times)
            past.remember(**state)
        past.wait()
        past.inspect()


def _regularly(past, hours=25):
    for _ in range(hours):
        past.runs()
        past.remember()
        past.wait()
        past.inspect()


def test_a_job_that_ran_every_hour_and_stopped_is_silent_until_it_runs_again(past):
    _regularly(past)  # last at hour 24
    past.wait()
    past.inspect()
    past.wait()
    past.inspect()
    assert past.states() == [], "three gaps are not over"

    past.wait()
    past.inspect()
    (found,) = past.findings()
    assert (found.kind, found.state) == ("silence", "open")
    assert found.started == int(LAST * 1000), "it is silent since its last run"
    assert found.details["usual_gap_seconds"] == 3600
    past.wait(24 * 40)
    past.inspect()
    assert past.states() == [("silence", "open")], "also when nothing of its past is left"

    past.runs()
    past.remember()
    past.wait()
    past.inspect()
    assert past.states() == [("silence", "recovered")]


@pytest.mark.parametrize("state", [{"paused": True}, {"removed": T0 + 30 * HOUR}, {"interval": 86_400.0}])
def test_of_a_job_that_is_not_meant_to_run_nothing_is_said(file, state):
    past = file()
    _regularly(past)
    past.remember(last_run=LAST, **state)
    past.wait(20)
    past.inspect()

    assert past.states() == []


def test_a_job_that_is_resumed_is_not_silent_for_the_time_in_which_it_was_paused(file):
    past = file()
    _regularly(past)
    for paused in (True, False):
        past.wait(10)
        past.live.fold(
            [Jobs(scheduler="s", at=past.clock(), jobs=(Job(name="job", key="1", paused=paused),))]
        )
    past.wait(3)
    past.inspect()
    assert past.states() == []

    past.wait(2)
    past.inspect()
    assert past.states() == [("silence", "open")]


def test_a_job_that_is_paused_is_not_silent_any_more(file):
    past = file()
    _regularly(past)
    past.wait(4)
    past.inspect()
    past.remember(last_run=LAST, paused=True)
    past.wait()
    past.inspect()

    assert past.states() == [("silence", "recovered")]


def test_a_job_that_is_in_the_middle_of_a_long_run_is_not_silent(file):
    past = file()
    _regularly(past)
    past.store.apply([past.fact("started", started=past.clock())])
    past.remember()
    past.wait(20)
    past.inspect()

    assert past.states() == []


def test_a_job_that_ran_a_few_times_only_is_not_regular(file):
    past = file()
    _regularly(past, hours=4)
    past.wait(20)
    past.inspect()

    assert past.states() == []


def test_when_taskscope_itself_was_away_nobody_is_silent_until_it_has_waited_for_it(past):
    _regularly(past)
    past.restart(40)
    past.inspect()
    assert past.states() == [], "it comes back, and nothing ran meanwhile as far as anybody knows"

    past.restart(0.5)
    past.wait(1.5)
    past.inspect()
    assert past.states() == [], "nor is the first absence forgotten after a second"
    past.wait(2)
    past.inspect()
    assert past.states() == [("silence", "open")]


def test_silence_is_found_where_taskscope_restarts_every_day(past):
    for day in range(12):
        if day < 10:
            past.runs()
            past.remember()
        past.wait(23)
        past.inspect()
        assert past.states() == []
        past.restart(0.1)
        past.wait(0.9)
    past.wait(1)
    past.inspect()

    assert past.states() == [("silence", "open")]


@pytest.mark.parametrize(("ran", "times"), [(NIGHTLY, 40), (MON_FRI, 40), (OFFICE, 1)])
def test_a_job_that_keeps_its_nights_or_weekends_is_not_silent_in_them(file, ran, times):
    past = file(hourly=ALONE)
    _by_hours(past, ran, times)

    assert past.states() == []


@pytest.mark.parametrize(
    ("ran", "most"),  # hours after the last run: the longest usual gap and two usual ones
    [
        (range(2, 300, 6), 18),
        (NIGHTLY, 3 * DAYS),
        (MON_FRI, 5 * DAYS),
        (OFFICE, 5 * DAYS),
    ],
)
def test_a_job_that_really_stops_is_found_when_it_never_used_to_wait_so_long(file, ran, most):
    past = file(hourly=ALONE)
    _by_hours(past, ran, until=ran[-1] + most)
    assert past.states() == []

    past.wait()
    past.inspect()
    assert past.states() == [("silence", "open")]


def test_one_outage_long_ago_does_not_make_a_job_one_that_waits_so_long(file):
    past = file(hourly=ALONE)
    _by_hours(past, [hour for hour in range(20 * DAYS) if not 30 <= hour < 66], until=20 * DAYS + 3)

    assert past.states() == [("silence", "recovered"), ("silence", "open")]


def test_a_job_is_not_silent_before_it_is_due(file):
    past = file(hourly=ALONE)
    _regularly(past)
    past.remember(last_run=LAST, next_run=T0 + 45 * HOUR)
    past.wait(20)
    past.inspect()
    assert past.states() == []

    past.wait(1)
    past.inspect()
    assert past.states() == [("silence", "open")], "it was due, and a grace is over"


def test_a_job_that_is_due_again_and_again_and_never_runs_is_silent(file):
    past = file(hourly=ALONE)
    _regularly(past)
    past.wait(4)
    past.remember(last_run=LAST, next_run=past.clock() + HOUR / 2, interval=HOUR)
    past.inspect()

    assert past.states() == [("silence", "open")]


def test_runs_that_somebody_starts_now_and_then_make_no_regular_job(file):
    burst, seldom = file(hourly=ALONE), range(0)
    burst.wait(5)
    for _ in range(6):
        burst.runs()
        burst.remember()
        burst.clock.now += 80
    burst.clock.now = T0 + 6 * HOUR
    _by_hours(burst, seldom, until=40)
    assert burst.states() == []

    _by_hours(burst, [0, 1, 2, 40, 41, 200, 203, 204], until=500)
    assert burst.states() == []


def test_a_history_that_is_told_newest_first_has_its_gaps_all_the_same(file):
    past = file(hourly=ALONE)
    past.clock.now = T0 + 100 * HOUR
    told = [
        past.fact("success", at=T0 + hour * HOUR, started=T0 + hour * HOUR, duration=1.0)
        for hour in range(0, 96, 24)
    ]
    past.store.apply(told)
    past.remember(last_run=T0 + 72 * HOUR, first_seen=T0 + 99 * HOUR)
    past.inspect()

    assert past.states() == []
