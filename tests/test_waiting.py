"""Runs that wait for the store."""

import pytest

from taskscope.errors import BadEvent
from taskscope.events import Fact
from taskscope.facts import RANK
from taskscope.waiting import Waiting

NOW = 1_700_000_000.0


def fact(native, status="started", **fields):
    return Fact(**{"scheduler": "s", "native": native, "status": status, "at": NOW, "job": "j", "anchor": NOW} | fields)


def test_facts_of_one_run_wait_as_one_row():
    waiting = Waiting(10)

    waiting.add(fact("a"), NOW)
    waiting.add(fact("a", "success", duration=1.0, started=NOW), NOW)

    [row] = waiting.batch(10)
    assert row.rank == RANK["success"]


def test_a_batch_is_ordered_by_id_and_stays_until_it_is_done():
    waiting = Waiting(10)
    for second in (3, 1, 2):
        waiting.add(fact(str(second), anchor=NOW + second), NOW)

    rows = waiting.batch(10)
    assert [row.id for row in rows] == sorted(row.id for row in rows)
    assert waiting.batch(10) == rows

    waiting.done(rows, NOW + 1)
    assert waiting.batch(10) == []
    assert waiting.since == 0.0


def test_beyond_the_limit_new_runs_are_refused_and_waiting_ones_go_on():
    waiting = Waiting(1)

    assert waiting.add(fact("a"), NOW)
    assert not waiting.add(fact("b"), NOW)
    assert waiting.add(fact("a", "success"), NOW)
    assert len(waiting) == 1


def test_a_bad_fact_leaves_nothing_behind():
    waiting = Waiting(10)

    with pytest.raises(BadEvent, match="duration"):
        waiting.add(fact("a", "success", duration=-1.0), NOW)

    assert len(waiting) == 0


def test_the_oldest_waiting_row_says_since_when():
    waiting = Waiting(10)
    waiting.add(fact("a"), NOW)
    waiting.add(fact("b"), NOW + 5)

    assert waiting.since == NOW
