import random
from typing import Any

import pytest
from histories import NOW, batch, done, opened, row, select

from taskscope.events import Error
from taskscope.settings import Retention as Rules
from taskscope.settings import Settings
from taskscope.sinks.history.retention import Retention
from taskscope.sinks.history.sql import SqlStore

DAY = 86_400.0
OLD = NOW - 40 * DAY
"""Older than the default maximum age."""


def rules(**chosen: Any) -> Settings:
    return Settings(service="tests", retention=Rules(**{"max_runs": None, "max_age": None} | chosen))


def old(number: int, age: float = 40 * DAY, **known: Any) -> Any:
    """A run that ended that long ago."""
    return done(number, at=NOW - age, anchor=NOW - age, **known)


def fill(url: str, rows: Any, at: float = OLD) -> None:
    """Store these runs as of then, in a history whose retention does nothing yet."""
    with opened(url, rules(), clock=at) as store:
        store.apply(batch(rows))


def prune(store: SqlStore, now: float = NOW) -> int:
    planned = Retention(store).plan(now)
    removed = Retention(store).prune(now)
    assert sum(planned.values()) == removed, "what was planned is what went"
    assert Retention(store).plan(now) == {}
    return removed


def kept(url: str) -> list[str]:
    """The jobs of the runs that are stored, oldest first."""
    query = "SELECT job.name FROM run JOIN job ON job.id = run.job ORDER BY run.id"
    return [name for (name,) in select(url, query)]


def test_runs_beyond_the_maximum_age_go_with_their_details(history_url: str):
    error = Error(kind="E", message="m")
    failed = [
        row(n, "failed", at=NOW - age, anchor=NOW - age, error=error)
        for n, age in ((1, 31 * DAY), (2, 29 * DAY))
    ]
    fill(history_url, [*failed, old(3)])

    with opened(history_url, rules(max_age=30 * DAY)) as store:
        assert prune(store) == 2

    assert select(history_url, "SELECT count(*) FROM run") == [(1,)]
    assert select(history_url, "SELECT count(*) FROM detail") == [(1,)]


def test_open_runs_stay_however_old(history_url: str):
    fill(
        history_url,
        [row(1, "started", anchor=OLD, job="started"), row(2, "queued", anchor=OLD, job="queued"), old(3)],
    )

    with opened(history_url, rules(max_age=DAY, max_runs=1, max_runs_per_job=1)) as store:
        assert prune(store) == 1

    assert sorted(kept(history_url)) == ["queued", "started"]


def test_an_old_run_whose_last_fact_is_young_stays(history_url: str):
    fill(history_url, [row(1, "started", anchor=OLD), old(2)])
    with opened(history_url, rules(max_age=DAY, max_runs=1), clock=NOW - 60) as store:
        store.apply([row(1, "unknown", anchor=OLD)])

        assert prune(store) == 1
        assert prune(store, NOW + 3600) == 1


def test_runs_anchored_within_the_dedup_window_stay_beyond_the_newest_n_too(history_url: str):
    fill(history_url, [old(number, age=60) for number in range(5)], at=NOW - 60)

    with opened(history_url, rules(max_runs=2)) as store:
        assert prune(store) == 0
        assert prune(store, NOW + 7200) == 3


@pytest.mark.parametrize("chunk", [1, 3, 500])
def test_exactly_the_newest_n_stay(history_url: str, chunk: int):
    fill(history_url, [old(number, age=40 * DAY - number, job=f"j{number:02}") for number in range(20)])

    with opened(history_url, rules(max_runs=7, chunk=chunk)) as store:
        assert prune(store) == 13

    assert kept(history_url) == [f"j{number:02}" for number in range(13, 20)]


def test_old_open_runs_do_not_make_newer_ones_go(history_url: str):
    open_runs = [row(number, "started", anchor=OLD - 100 + number, job="open") for number in range(5)]
    fill(history_url, [*open_runs, *[old(number, job="ended") for number in range(10, 20)]])

    with opened(history_url, rules(max_runs=10)) as store:
        assert prune(store) == 0


def test_every_job_keeps_its_own_newest_n(history_url: str):
    busy = [old(number, age=40 * DAY - number, job="busy") for number in range(50)]
    fill(history_url, [*busy, *[old(number, job="rare") for number in range(60, 63)]])

    with opened(history_url, rules(max_runs_per_job=4)) as store:
        assert prune(store) == 46

    assert sorted(kept(history_url)) == ["busy"] * 4 + ["rare"] * 3


def test_jobs_have_ages_of_their_own_shorter_and_longer(history_url: str):
    jobs = ("beat", "pay", "s-wide", "other")
    runs = [
        old(number * 10 + index, age=age, job=job)
        for number, age in enumerate((2 * DAY, 20 * DAY, 200 * DAY))
        for index, job in enumerate(jobs)
    ]
    fill(history_url, runs, at=NOW - 2 * DAY)
    ages = {"be*": DAY, "pay": 400 * DAY, "s/s-*": 3 * DAY}

    with opened(history_url, rules(max_age=30 * DAY, max_age_per_job=ages)) as store:
        assert Retention(store).plan(NOW) == {("s", "beat"): 3, ("s", "s-wide"): 2, ("s", "other"): 1}
        assert prune(store) == 6

    assert sorted(kept(history_url)) == ["other", "other", "pay", "pay", "pay", "s-wide"]


@pytest.mark.parametrize("seed", range(6))
def test_what_is_planned_is_what_goes_whatever_rules_come_together(history_url: str, seed: int):
    chosen = random.Random(seed)
    runs = []
    for number in range(60):
        status = chosen.choices(("success", "started"), (9, 1))[0]
        ended = NOW - chosen.uniform(0.1, 60) * DAY
        runs.append(row(number, status, at=ended, anchor=ended, job=chosen.choice("abc")))
    fill(history_url, runs, at=NOW - DAY)
    ages = {"a": chosen.choice((1, 30, 90)) * DAY, "b": chosen.choice((5, 50)) * DAY}
    counts = {"max_runs": chosen.choice((None, 15, 30)), "max_runs_per_job": chosen.choice((None, 4, 12))}

    with opened(history_url, rules(max_age_per_job=ages, **counts)) as store:
        assert prune(store) > 0


def test_duplicates_that_come_after_retention_change_neither_rows_nor_counters(history_url: str):
    told = batch([old(number, job=f"j{number % 2}") for number in range(10)])
    fill(history_url, told)
    with opened(history_url, rules(max_age=DAY)) as store:
        before = store.totals()
        assert prune(store) == 10

        again = store.apply(told)

        assert (again.expired, again.changes, again.totals) == (10, [], {})
        assert store.totals() == before
    with opened(history_url, rules()) as store:
        assert store.apply(told).expired == 10, "also after a restart"
        assert store.apply([old(99, age=50)]).expired == 0, "a younger run is none of them"
    assert select(history_url, "SELECT count(*) FROM run") == [(1,)]


def test_facts_about_old_runs_that_are_still_there_are_merged(history_url: str):
    fill(history_url, [row(1, "started", at=OLD, anchor=OLD), old(2)])
    with opened(history_url, rules(max_age=DAY)) as store:
        assert prune(store) == 1

        ended = store.apply([done(1, anchor=OLD)])

    assert (ended.expired, ended.totals["s", "job"].statuses) == (0, {"success": 2})


def test_a_job_with_an_age_of_its_own_does_not_make_facts_of_others_expire(history_url: str):
    fill(history_url, [old(1, age=3 * DAY, job="beat")])
    with opened(history_url, rules(max_age_per_job={"beat": DAY})) as store:
        assert prune(store) == 1

        beat = store.apply([old(1, age=3 * DAY, job="beat")])
        unnamed = store.apply([old(1, age=3 * DAY, job="")])
        other = store.apply([old(2, age=4 * DAY, job="other")])

    assert [applied.expired for applied in (beat, unnamed, other)] == [1, 1, 0]


def test_another_replica_knows_at_once_what_was_removed(postgres_url: str):
    told = [old(1)]
    with opened(postgres_url, rules(max_age=DAY), clock=OLD) as one, opened(postgres_url, rules()) as other:
        one.apply(told)
        assert prune(one) == 1

        assert other.apply(told).expired == 1


def test_old_rollups_go_and_counts_stay(history_url: str):
    fill(history_url, [old(1, age=401 * DAY), old(2, age=399 * DAY)])

    with opened(history_url, rules()) as store:
        Retention(store).prune(NOW)
        assert store.totals()["s", "job"].statuses == {"success": 2}

    hours = select(history_url, "SELECT hours, at FROM rollup")
    assert sorted(size for size, _ in hours) == [1, 24]


def test_a_pass_is_made_of_short_steps_with_merges_in_between(history_url: str):
    fill(history_url, [old(number, age=40 * DAY - number) for number in range(100)])
    with opened(history_url, rules(max_age=DAY, chunk=10)) as store:
        retention, steps = Retention(store), []
        while (removed := retention.step(NOW)) is not None:
            steps.append(removed)
            store.apply([done(1_000 + len(steps))])

    assert sum(steps) == 100
    assert max(steps) == 10
    assert len(kept(history_url)) == len(steps)


def test_a_pass_that_failed_begins_again(history_url: str):
    fill(history_url, [old(number) for number in range(5)])
    with opened(history_url, rules(max_age=DAY, chunk=1)) as store:
        retention = Retention(store)
        assert retention.step(NOW) is not None
        with pytest.raises(Exception, match="cannot be written"), store.transaction() as connection:
            connection.exec_driver_sql("SELECT nothing FROM nowhere")

        assert retention.prune(NOW) == 5


def test_progress_is_told_piece_by_piece(history_url: str):
    fill(history_url, [old(number, age=40 * DAY - number) for number in range(25)])
    told: list[int] = []
    with opened(history_url, rules(max_age=DAY, chunk=10)) as store:
        Retention(store).prune(NOW, told.append)

    assert [removed for removed in told if removed] == [10, 10, 5]


def test_a_clock_that_jumps_ahead_deletes_nothing_until_it_has_stood_by_it_for_a_day(history_url: str):
    fill(history_url, [old(1, age=10 * DAY)])
    with opened(history_url, rules(max_age=30 * DAY)) as store:
        passed = [0.0]
        retention = Retention(store, monotonic=lambda: passed[0])
        retention.prune(NOW)
        for now, seconds in ((NOW + 365 * DAY, 60.0), (NOW + 366 * DAY - 60, DAY - 60)):
            passed[0] = seconds
            assert retention.prune(now) == 0

        passed[0] = DAY + 120
        assert retention.prune(NOW + 366 * DAY + 120) == 1
