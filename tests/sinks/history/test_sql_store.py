import pytest
import sqlalchemy as sa
from histories import NOW, batch, done, opened, row, select, stored

from taskscope.counts import Counts, JobState
from taskscope.events import Error, JobKey
from taskscope.settings import Settings
from taskscope.sinks.history import ledger, names, sql
from taskscope.sinks.history.sql import SqlStore


def test_totals_come_back_after_a_restart_and_are_counted_on(history_url: str):
    with opened(history_url) as store:
        before = store.apply([done(1), done(2, job="other")][:1]).totals
    with opened(history_url) as store:
        assert store.totals() == before
        after = store.apply([done(3)]).totals

    assert after["s", "job"].statuses == {"success": 2}
    assert after["s", "job"].histograms["duration"].count == 2


def test_states_come_back_after_a_restart(history_url: str):
    state = JobState(first_seen=1.5, last_success=NOW, consecutive_failures=3, paused=True)
    with opened(history_url) as store:
        store.apply([], {("s", "never ran"): state, ("s", "job"): JobState()})
        store.apply([], {("s", "job"): JobState(removed=NOW)})

    with opened(history_url) as store:
        assert store.states() == {("s", "never ran"): state, ("s", "job"): JobState(removed=NOW)}


def test_counts_go_to_the_job_that_the_label_names_and_the_row_keeps_its_own(
    store: SqlStore, history_url: str
):
    def label(key: JobKey) -> JobKey:
        return (key[0], "_other")

    totals = store.apply(batch([done(1, job="a"), done(2, job="b")]), label=label).totals

    assert {job: counts.statuses for job, counts in totals.items()} == {("s", "_other"): {"success": 2}}
    assert store.totals() == totals
    assert sorted(columns[2] for columns in stored(history_url).values()) == ["a", "b"]


def test_a_run_without_a_name_counts_when_it_gets_one(store: SqlStore):
    assert store.apply([done(1, job="")]).totals == {}

    totals = store.apply([row(1, "queued")]).totals

    assert totals["s", "job"].statuses == {"success": 1}


def test_exceptions_beyond_the_limit_are_counted_together(history_url: str):
    with opened(history_url, Settings(names_per_job=2)) as store:
        for number in range(4):
            totals = store.apply([row(number, "failed", error=Error(kind=f"E{number}"))]).totals

    assert totals["s", "job"].exceptions == {"E0": 1, "E1": 1, "_other": 2}


def test_an_empty_batch_changes_nothing(store: SqlStore, history_url: str):
    applied = store.apply([])

    assert (applied.changes, applied.totals, applied.expired) == ([], {}, 0)
    assert select(history_url, "SELECT count(*) FROM run") == [(0,)]


def test_jobs_beyond_what_is_remembered_are_counted_right_and_leave_little_in_memory(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(names, "REMEMBERED", 500)
    monkeypatch.setattr(sql, "_COUNTS_REMEMBERED", 500)
    monkeypatch.setattr(sql, "_ROLLUPS_REMEMBERED", 500)
    with opened(sqlite_url) as store:
        for turn in range(2):
            for start in range(0, 2_000, 400):
                jobs = range(start, start + 400)
                store.apply(batch(done(job, job=f"job{job}", anchor=NOW + turn) for job in jobs))
        remembered = [store._jobs.ids, store._jobs.keys, store._counters._known, store._rollups._known]
        totals = store.totals()

    assert len(totals) == 2_000
    assert all(counts.statuses == {"success": 2} for counts in totals.values())
    assert max(map(len, remembered)) <= 500


def test_names_that_were_forgotten_in_the_middle_of_a_batch_are_looked_up_again(
    history_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(names, "REMEMBERED", 3)
    monkeypatch.setattr(names, "_CHUNK", 2)
    monkeypatch.setattr(ledger, "_CHUNK", 2)
    with opened(history_url) as store:
        for status in ("started", "failed"):
            rows = batch(row(number, status, job=f"j{number}", queue=f"q{number}") for number in range(9))
            changes = store.apply(rows).changes

    told = {(change.row.job, change.row.queue) for change in changes}
    assert told == {(f"j{number}", f"q{number}") for number in range(9)}
    assert {columns[2] for columns in stored(history_url).values()} == {f"j{number}" for number in range(9)}


def test_two_replicas_count_apart_and_merge_each_run_once(postgres_url: str):
    with opened(postgres_url) as one, opened(postgres_url) as other:
        one.apply([row(1, "started")])
        other.apply([done(1)])
        one.apply([done(1)])

        assert one.totals()["s", "job"].statuses == {}
        assert other.totals()["s", "job"].statuses == {"success": 1}
    assert len(stored(postgres_url)) == 1


def test_a_replica_that_comes_back_takes_up_its_own_counts(postgres_url: str):
    with opened(postgres_url) as store:
        before = store.apply([done(1)]).totals

    with opened(postgres_url) as store:
        assert store.totals() == before


def test_readers_see_all_of_a_batch_or_nothing(store: SqlStore, history_url: str):
    with pytest.raises(ZeroDivisionError):
        store.apply([done(1)], label=lambda key: 1 / 0)  # type: ignore[arg-type,return-value]

    assert select(history_url, "SELECT count(*) FROM run") == [(0,)]
    assert store.apply([done(1)]).totals["s", "job"].statuses == Counts(statuses={"success": 1}).statuses


def test_what_is_committed_survives_a_power_cut(store: SqlStore, history_url: str):
    with store.transaction() as connection:

        def setting(name: str) -> object:
            return connection.exec_driver_sql(name).scalar()

        if history_url.startswith("sqlite"):
            assert (setting("PRAGMA journal_mode"), setting("PRAGMA synchronous")) == ("wal", 2), "2 is FULL"
        else:
            assert setting("SHOW synchronous_commit") == "on"


def test_nothing_that_is_asked_every_few_seconds_walks_through_a_table_that_grows(sqlite_url: str):
    with opened(sqlite_url) as store:
        store.apply(batch(done(number) for number in range(100)))
    asked: list[tuple[str, tuple[object, ...]]] = []

    with opened(sqlite_url) as store:
        listen = (store._database._engine, "before_cursor_execute", lambda *told: asked.append(told[2:4]))
        sa.event.listen(*listen)
        list(store.lost(NOW, 30))
        store.apply(batch([done(1), done(200, instance="new")]))
        sa.event.remove(*listen)
        with store.transaction() as connection:
            plans = [
                step.detail
                for statement, parameters in asked
                if statement.startswith(("SELECT", "WITH", "UPDATE", "DELETE"))
                for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            ]

    assert "SEARCH run USING INDEX run_unsuccessful (rank=?)" in plans
    assert not [
        step for step in plans if step.startswith(("SCAN run", "SCAN rollup", "SCAN counter", "SCAN job"))
    ]
