from histories import NOW, batch, done, row

from taskscope.counts import JobState
from taskscope.events import Error
from taskscope.settings import Settings
from taskscope.sinks.history import memory
from taskscope.sinks.history.memory import MemoryStore


def test_runs_are_merged_and_counted_once():
    store = MemoryStore(Settings())

    store.apply([row(1, "started")])
    first = store.apply([done(1)])
    again = store.apply([done(1)])

    assert first.totals["s", "job"].statuses == {"success": 1}
    assert first.changes[0].row.started == int(NOW * 1000)
    assert (again.changes, again.totals) == ([], {})
    assert store.totals() == first.totals


def test_open_runs_are_kept_however_many_end_and_ended_ones_are_let_go():
    store = MemoryStore(Settings(), kept=10)
    store.apply([row(0, "started", due=NOW - 5)])

    for number in range(1, 100):
        store.apply([done(number)])
    changes = store.apply([row(0, "success", started=NOW, duration=1.0)]).changes

    assert changes[0].row.due == int((NOW - 5) * 1000)
    assert len(store._ended) == 10
    assert not store._open


def test_jobs_that_ran_last_are_counted_however_many_names_there_were(monkeypatch):
    monkeypatch.setattr(memory, "OPEN", 10)
    store = MemoryStore(Settings(job_budget=5))

    for number in range(100):
        store.apply([done(number, job=f"job-{number}"), done(1000 + number, job="steady")])

    assert len(store.totals()) == 10
    assert store.totals()["s", "steady"].statuses == {"success": 100}
    assert ("s", "job-99") in store.totals()


def test_heavy_texts_are_told_once_and_not_kept():
    store = MemoryStore(Settings())

    (change,) = store.apply([row(1, "failed", error=Error(kind="E", stack="s" * 60_000))]).changes

    assert change.row.detail is not None
    assert all(known.detail is None for known in store._ended.values())


def test_nothing_outlives_the_process():
    store = MemoryStore(Settings())
    store.open()
    store.apply([row(1, "started")], {("s", "job"): JobState(first_seen=NOW)})

    assert store.states() == {}
    store.close()


def test_runs_of_a_process_that_falls_silent_are_lost_and_others_are_not():
    store = MemoryStore(Settings())
    runs = [row(1, "started", instance="a:1:u"), row(2, "started", instance="b:2:u"), row(3, "started")]
    store.apply(batch(runs))
    store.beat(["a:1:u", "b:2:u"], NOW)
    store.beat(["b:2:u"], NOW + 20)

    assert store.lost(NOW + 30, 30) == []
    (lost,) = store.lost(NOW + 31, 30)
    assert lost.id == runs[0].id
    assert store.apply([lost]).changes[0].row.status == "unknown"
    assert [silent.id for silent in store.lost(NOW + 60, 30)] == [runs[1].id]
