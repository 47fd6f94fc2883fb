"""Jobs that ran regularly and stopped."""

import pytest
from inspecting import HOUR, T0

from taskscope.events import Job, Jobs


def _regularly(past, hours=10):
    for _ in range(hours):
        past.runs()
        past.remember()
        past.wait()
        past.inspect()


def test_a_job_that_ran_every_hour_and_stopped_is_silent_until_it_runs_again(past):
    _regularly(past)  # last at hour 9
    past.wait()
    past.inspect()
    past.wait()
    past.inspect()
    assert past.states() == [], "three gaps are not over"

    past.wait()
    past.inspect()
    (found,) = past.findings()
    assert (found.kind, found.state) == ("silence", "open")
    assert found.started == int((T0 + 9 * HOUR) * 1000), "it is silent since its last run"
    assert found.details["usual_gap_seconds"] == 3600
    past.wait(24 * 40)
    past.inspect()
    assert past.states() == [("silence", "open")], "also when nothing of its past is left"

    past.runs()
    past.remember()
    past.wait()
    past.inspect()
    assert past.states() == [("silence", "recovered")]


@pytest.mark.parametrize("state", [{"paused": True}, {"removed": T0 + 20 * HOUR}, {"interval": 86_400.0}])
def test_of_a_job_that_is_not_meant_to_run_nothing_is_said(file, state):
    past = file()
    _regularly(past)
    past.remember(last_run=T0 + 9 * HOUR, **state)
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
    past.remember(last_run=T0 + 9 * HOUR, paused=True)
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
    past.wait(40)
    past.inspector = past.another(watched=past.clock())
    past.inspect()
    assert past.states() == [], "it comes back, and nothing ran meanwhile as far as anybody knows"

    past.wait(3)
    past.inspect()
    assert past.states() == []
    past.wait()
    past.inspect()
    assert past.states() == [("silence", "open")]
