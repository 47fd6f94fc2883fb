"""Findings in the history: what was told stays told, what is past goes, and what is open stays."""

from inspecting import HOUR, T0
from msgspec.structs import replace

from taskscope.settings import Retention, Settings
from taskscope.sinks.history.findings import remove
from taskscope.sinks.history.retention import Retention as Sweeper


def test_that_it_was_told_outlives_that_it_is_found_again(past):
    past.fails()
    past.wait()
    past.inspect()
    (found,) = past.findings()
    past.store.tell_findings([found.id], 5)
    past.store.tell_findings([found.id], 7)
    past.store.record_findings([replace(found, overview="again", told=0)])

    (kept,) = past.findings()
    assert (kept.told, kept.overview) == (5, "again")


def _three(past):
    for place in ("one", "two", "three"):
        past.fails(place)
        past.wait()
        past.inspect()
    past.wait()
    past.inspect()
    past.fails("last")
    past.wait()
    past.inspect()
    assert [state for _, state in past.states()] == ["recovered"] * 3 + ["open"]


def test_only_so_many_past_ones_are_kept(past):
    _three(past)
    with past.store.transaction() as connection:
        assert remove(connection, Retention(max_findings=2), past.clock()) == 1
        assert remove(connection, Retention(max_findings=2), past.clock()) == 0

    assert [state for _, state in past.states()] == ["recovered"] * 2 + ["open"]


def test_past_ones_go_with_age_in_a_pass_of_retention(file):
    past = file()
    _three(past)
    past.store.settings = replace(Settings(), retention=Retention(errors=10 * HOUR))
    sweeper = Sweeper(past.store)
    sweeper.prune(T0 + 12 * HOUR)
    assert len(past.findings()) == 4
    sweeper = Sweeper(past.store)
    sweeper.prune(T0 + 12.5 * HOUR)

    assert len(past.findings()) == 3
    assert past.states()[-1] == ("new_error", "open")


def test_what_names_hold_does_no_harm(past):
    past.fails(job="b\x00d \ud800 'q'")
    past.wait()
    past.inspect()

    (found,) = past.findings()
    assert found.job.startswith("b")
    assert past.queries.finding(found.id) == found
