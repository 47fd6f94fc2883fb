"""Jobs that became slow, against durations that the test itself gave them."""

import pytest
from inspecting import HOUR, T0


def _usual(past, hours=6, duration=2.0, times=10):
    for _ in range(hours):
        past.runs(times, duration)
        past.wait()


def test_a_job_whose_p95_is_twice_its_own_past_is_slow_and_recovers(past):
    _usual(past)
    past.inspect()
    assert past.states() == []
    past.runs(18, 2.0)
    past.runs(2, 9.0)
    past.wait()
    past.inspect()

    (found,) = past.findings()
    assert (found.kind, found.started) == ("slow_job", int((T0 + 6 * HOUR) * 1000))
    assert found.details["p95_seconds"] == pytest.approx(9.0, rel=0.05)
    assert found.details["usual_seconds"] == pytest.approx(2.0, rel=0.05)
    assert found.details["runs"] == 20
    past.runs(20, 2.0)
    past.wait()
    past.inspect()
    assert past.states() == [("slow_job", "recovered")]


def test_what_stays_slow_does_not_become_usual_within_its_look_back(file):
    past = file()
    _usual(past)
    for _ in range(24):
        past.runs(20, 9.0)
        past.wait()
        past.inspect()

    assert past.states() == [("slow_job", "open")]


@pytest.mark.parametrize(
    ("before", "times", "duration"),
    [
        ((2.0, 10), 20, 3.5),  # not twice as slow
        ((2.0, 10), 4, 9.0),  # too few to say so
        ((2.0, 3), 20, 9.0),  # too few to compare with
        ((0.1, 10), 20, 0.9),  # less than a second more
    ],
)
def test_what_is_no_slow_job(file, before, times, duration):
    past = file()
    _usual(past, duration=before[0], times=before[1])
    past.inspect()
    past.runs(times, duration)
    past.wait()
    past.inspect()

    assert past.states() == []
