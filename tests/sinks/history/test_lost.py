import os
import socket

import pytest
from histories import NOW, batch, done, opened, python, row, select

from taskscope.facts import Bit, Row
from taskscope.identity import run_id
from taskscope.sinks.history.lost import place
from taskscope.sinks.history.retention import Retention
from taskscope.sinks.history.sql import SqlStore

ELSEWHERE = "another-host:7:0190"
HERE = socket.gethostname()


def started(number: int, instance: str, at: float = NOW) -> Row:
    return row(number, "started", at=at, instance=instance)


def lost(store: SqlStore, now: float) -> list[bytes]:
    return [found.id for found in store.lost(now, after=30)]


def the_run(number: int) -> bytes:
    return run_id("s", str(number), 0, int(NOW * 1000))


def test_runs_of_a_process_that_is_silent_are_lost_and_those_of_its_sibling_are_not(store: SqlStore):
    store.beat([ELSEWHERE], NOW)
    store.beat(["another-host:8:0191"], NOW + 25)
    store.apply(batch([started(1, ELSEWHERE), started(2, "another-host:8:0191")]))

    assert lost(store, NOW + 30) == []
    assert lost(store, NOW + 31) == [the_run(1)]


def test_a_process_that_speaks_again_is_not_silent(store: SqlStore):
    store.beat([ELSEWHERE], NOW)
    store.apply([started(1, ELSEWHERE)])
    store.beat([ELSEWHERE], NOW + 60)

    assert lost(store, NOW + 80) == []


def test_a_process_nobody_ever_heard_of_is_silent_since_its_run_started(store: SqlStore):
    store.apply(batch([started(1, ELSEWHERE, NOW), started(2, ELSEWHERE, NOW + 20)]))

    assert lost(store, NOW + 29) == []
    assert lost(store, NOW + 40) == [the_run(1)]


def test_runs_of_a_pid_that_is_gone_from_this_host_are_lost_at_once(store: SqlStore):
    with python("pass") as other:
        other.wait()
    gone, alive = f"{HERE}:{other.pid}:0190", f"{HERE}:{os.getppid()}:0191"
    for instance in (gone, alive):
        store.beat([instance], NOW)
    store.apply(batch([started(1, gone), started(2, alive)]))

    assert lost(store, NOW) == [the_run(1)]


def test_runs_that_ended_or_name_no_process_are_never_lost(store: SqlStore):
    store.apply(batch([done(1, instance=ELSEWHERE), started(2, ""), row(3, "queued")]))

    assert lost(store, NOW + 10_000) == []


def test_runs_that_waited_inside_a_process_that_is_gone_are_lost_with_it(store: SqlStore):
    store.apply(batch([row(1, "queued", instance=ELSEWHERE)]))

    assert len(lost(store, NOW + 10_000)) == 1


def test_what_is_lost_can_be_applied_and_is_lost_once(store: SqlStore, history_url: str):
    store.apply(batch([started(1, ELSEWHERE), row(2, "started", job="", instance=ELSEWHERE)]))

    rows = list(store.lost(NOW + 60, 30))
    applied = store.apply(rows)

    assert sorted((found.scheduler, found.job, found.status) for found in rows) == [
        ("s", "", "unknown"),
        ("s", "job", "unknown"),
    ]
    assert [change.added for change in applied.changes] == [Bit.LOST, Bit.LOST]
    assert applied.totals["s", "job"].statuses == {"unknown": 1}
    assert lost(store, NOW + 60) == []
    assert select(history_url, "SELECT DISTINCT rank FROM run") == [(2,)]


def test_processes_silent_for_a_day_are_forgotten(history_url: str):
    with opened(history_url) as store:
        store.beat([ELSEWHERE], NOW - 90_000)
        store.beat(["another-host:8:0191"], NOW)

        Retention(store).prune(NOW)

    assert select(history_url, "SELECT pid FROM instance") == [(8,)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("host:12:uuid", ("host", 12)),
        ("celery@worker", ("celery@worker", 0)),
        ("a:b:c", ("a:b:c", 0)),
        ("a:99999999999999:c", ("a:99999999999999:c", 0)),
    ],
)
def test_an_instance_that_names_no_pid_has_none(text: str, found: tuple[str, int]):
    assert place(text) == found
