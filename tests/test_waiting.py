"""Runs that wait for the store."""

import math

from taskscope.events import Error, Fact
from taskscope.facts import RANK
from taskscope.waiting import Waiting

NOW = 1_700_000_000.0


def fail(why):
    raise AssertionError(why)


def fact(native, status="started", **fields):
    return Fact(
        **{"scheduler": "s", "native": native, "status": status, "at": NOW, "job": "j", "anchor": NOW}
        | fields
    )


def test_facts_of_one_run_wait_as_one_row():
    waiting = Waiting(10, fail)

    waiting.add(fact("a"), NOW)
    waiting.add(fact("a", "success", duration=1.0, started=NOW), NOW)

    [row] = waiting.batch(10)
    assert row.rank == RANK["success"]


def test_a_batch_is_ordered_by_id_and_stays_until_it_is_done():
    waiting = Waiting(10, fail)
    for second in (3, 1, 2):
        waiting.add(fact(str(second), anchor=NOW + second), NOW)

    rows = waiting.batch(10)
    assert [row.id for row in rows] == sorted(row.id for row in rows)
    assert waiting.batch(10) == rows

    waiting.done(rows, NOW + 1)
    assert waiting.batch(10) == []
    assert waiting.since == 0.0


def test_beyond_the_limit_new_runs_are_refused_and_waiting_ones_go_on():
    waiting = Waiting(1, fail)

    assert waiting.add(fact("a"), NOW)
    assert not waiting.add(fact("b"), NOW)
    assert waiting.add(fact("a", "success"), NOW)
    assert len(waiting) == 1


def test_a_bad_fact_is_refused_alone():
    refused = []
    waiting = Waiting(10, lambda run, why: refused.append(why))

    for status, fields in (
        ("queued", {}),
        ("success", {"duration": math.nan}),
        ("started", {"started": NOW}),
    ):
        waiting.add(fact("a", status, **fields), NOW)

    [row] = waiting.batch(10)
    assert row.rank == RANK["started"]
    assert len(refused) == 1


def test_a_run_that_is_told_very_often_takes_no_more_room():
    waiting = Waiting(10, fail)

    for _ in range(1000):
        waiting.add(fact("a"), NOW)

    assert len(waiting) <= 2
    assert len(waiting.batch(10)) == 1


def test_the_oldest_waiting_row_says_since_when():
    waiting = Waiting(10, fail)
    waiting.add(fact("a"), NOW)
    waiting.add(fact("b"), NOW + 5)

    assert waiting.since == NOW


def test_stacks_that_wait_are_bounded_and_runs_stay():
    waiting = Waiting(10_000, fail)
    stack = "x" * 60_000

    for number in range(2_000):
        waiting.add(fact(str(number), "failed", error=Error(kind="E", stack=stack)), NOW)
    rows = waiting.batch(2_000)

    assert len(rows) == 2_000
    assert {row.exception for row in rows} == {"E"}
    assert sum(len(row.detail.stack) for row in rows) <= 64 * 2**20

    waiting.done(rows, NOW)
    waiting.add(fact("later", "failed", error=Error(kind="E", stack=stack)), NOW)
    assert waiting.batch(1)[0].detail.stack == stack
