from histories import NOW, batch, done, row

from taskscope.counts import JobState
from taskscope.events import Error
from taskscope.settings import Settings
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


def test_heavy_texts_are_told_once_and_not_kept():
    store = MemoryStore(Settings())

    (change,) = store.apply([row(1, "failed", error=Error(kind="E", stack="s" * 60_000))]).changes

    assert change.row.detail is not None
    assert all(known.detail is None for known in store._ended.values())


def test_nothing_outlives_the_process():
    store = MemoryStore(Settings())
    store.open()
    store.beat("host:1:uuid", NOW)
    store.apply(batch([row(1, "started", instance="host:1:uuid")]), {("s", "job"): JobState(first_seen=NOW)})

    assert list(store.lost(NOW + 100, 30)) == []
    assert store.states() == {}
    store.close()
