"""The pipeline: nothing is lost, doubled or blocked, whatever is away or broken."""

import threading
import time
from urllib.request import urlopen

import pytest

from services.process import free_port, until
from taskscope import Exporter, Sink
from taskscope.events import Fact
from taskscope.settings import Retention, Source
from taskscope.sinks.history.records import Filter
from taskscope.testing import FakeScheduler, Recorder


def counters(exporter):
    """What the page says: sample name with labels to value."""
    exporter.refresh()
    page = b"".join(exporter.metrics.render().blocks).decode()
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in page.splitlines() if line[0] != "#")
    }


def runs_total(exporter, status="success"):
    found = [
        value
        for name, value in counters(exporter).items()
        if "runs_total{" in name and f'status="{status}"' in name
    ]
    return sum(found)


def fact(native="n", **fields):
    now = time.time()
    return Fact(
        **{"scheduler": "s", "native": native, "status": "success", "at": now, "anchor": now, "job": "j"}
        | fields
    )


@pytest.fixture
def scheduler():
    return FakeScheduler()


def test_while_the_store_is_away_gauges_go_on_counters_stand_still_and_catch_up(
    scheduler, postgres_server, postgres_url
):
    job = scheduler.job("nightly")
    with Exporter(scheduler, history=postgres_url, port=None) as exporter:
        job.run()
        until(lambda: runs_total(exporter) == 1)

        postgres_server.stop()
        job.run()
        in_progress = job.start()
        until(lambda: exporter.degraded.get("store"), what="a sentence about the store")
        running = 'taskscope_runs_in_progress{job_name="nightly",scheduler="fake"}'
        until(lambda: counters(exporter)[running] == 1, what="the run in progress")
        assert counters(exporter)["taskscope_store_up"] == 0
        assert runs_total(exporter) == 1
        assert counters(exporter)["taskscope_pipeline_lag_seconds"] > 0

        postgres_server.start()
        in_progress.end()
        until(lambda: runs_total(exporter) == 3, timeout=60, what="catching up")
        assert counters(exporter)["taskscope_store_up"] == 1
        assert exporter.degraded == {}
        assert exporter.pipeline.dropped == {}


def test_a_burst_is_let_through_first_and_not_for_long(scheduler):
    over = threading.Event()

    def pour():
        while not over.is_set():
            scheduler.burst(700)
            time.sleep(0.02)

    with Exporter(scheduler, history=None, port=None, queue_size=10_000_000) as exporter:
        burst = threading.Thread(target=pour)
        burst.start()
        try:
            until(
                lambda: exporter.pipeline.lag > 0.2, what="events that are held back, and whose age is told"
            )
            assert runs_total(exporter) == 0
            until(lambda: runs_total(exporter) > 0, what="runs that count while others pour in")
            assert burst.is_alive()
        finally:
            over.set()
            burst.join()
        until(lambda: not exporter.pipeline.backlog, what="the end of what waits")
    assert exporter.pipeline.dropped == {}


def test_where_all_is_watched_from_outside_no_program_needs_rests(monkeypatch):
    monkeypatch.setattr("taskscope.burst.HOLD", 1e6)
    monkeypatch.setattr("taskscope.pipeline._REST", 1e6)
    outside = Source(system="celery", target=f"redis://127.0.0.1:{free_port()}/0")

    with Exporter(outside, history=None, port=None) as exporter:
        for run in range(10_000):
            exporter.pipeline.emit(fact(f"{run}"))
        until(lambda: not exporter.pipeline.backlog, what="the end of what waits")
        assert runs_total(exporter) == 10_000


def test_a_store_that_hangs_holds_up_neither_the_program_nor_a_scrape(
    scheduler, postgres_server, postgres_url
):
    job = scheduler.job("nightly")
    with Exporter(scheduler, history=postgres_url, port=0) as exporter:
        job.run()
        until(lambda: runs_total(exporter) == 1)

        postgres_server.pause()
        begin = time.monotonic()
        job.start()
        with urlopen(f"{exporter.url}/metrics", timeout=5) as answer:
            assert answer.status == 200
        assert time.monotonic() - begin < 2

        postgres_server.resume()


def test_a_history_that_cannot_be_opened_at_start_is_opened_later_and_nothing_is_lost(scheduler, tmp_path):
    place = tmp_path / "not-yet"
    place.write_text("a file stands where the directory should be")
    job = scheduler.job("nightly")
    with Exporter(scheduler, history=f"sqlite:///{place}/runs.db", port=None) as exporter:
        job.run()
        assert "store" in exporter.degraded
        assert 'taskscope_runs_total{job_name="nightly",scheduler="fake",status="success"}' not in counters(
            exporter
        )

        place.unlink()
        place.mkdir()
        until(lambda: runs_total(exporter) == 1, timeout=60)
        assert exporter.degraded == {}


def test_what_overflows_is_counted_and_the_program_goes_on(scheduler, tmp_path):
    place = tmp_path / "blocked"
    place.write_text("")
    with Exporter(scheduler, history=f"sqlite:///{place}/runs.db", port=None, queue_size=100) as exporter:
        for _ in range(300):
            scheduler.job("j").run()

        until(lambda: sum(exporter.pipeline.dropped.values()), what="a drop")
        assert exporter.pipeline.backlog <= 2 * 100
        assert counters(exporter)['taskscope_events_dropped_total{reason="overflow"}'] > 0


def test_one_bad_event_hurts_only_itself(tmp_path):
    seen = Recorder()
    with Exporter(sinks=[seen], history=f"sqlite:///{tmp_path}/runs.db", port=None) as exporter:
        for event in (
            fact("a"),
            fact("b", duration=float("nan"), started=1.0),
            fact("c", anchor=1.0),
            fact("d", at=float("inf"), anchor=None),
            fact("e", job="surrogate \ud800 and NUL \0"),
            fact("f", attempt=2**80),
            fact("g", details={"huge": 2**100}),
            fact("h"),
        ):
            exporter.pipeline.emit(event)
        seen.wait_for(lambda: any(fact.native == "h" for fact in seen.facts))
        until(lambda: exporter.pipeline.backlog == 0)

        assert {change.row.job for change in seen.changes} == {
            "j",
            "surrogate ? and NUL \N{REPLACEMENT CHARACTER}",
        }
        assert exporter.pipeline.dropped["bad"] == 4
        assert exporter.pipeline.failure is None


class Broken(Sink):
    """Fails whenever it can."""

    def arrived(self, events):
        raise RuntimeError("arrived")

    def committed(self, changes):
        raise RuntimeError("committed")

    def close(self):
        raise RuntimeError("close")


def test_a_broken_sink_is_counted_logged_once_and_keeps_nothing_from_the_others(scheduler, caplog):
    seen = Recorder()
    with Exporter(scheduler, sinks=[Broken(), seen], history=None, port=None) as exporter:
        for _ in range(5):
            scheduler.job("j").run()
            seen.wait_for(lambda: exporter.pipeline.backlog == 0)
        until(lambda: runs_total(exporter) == 5)
        assert counters(exporter)['taskscope_sink_errors_total{sink="Broken"}'] >= 2

    assert len([record for record in caplog.records if "Broken" in record.message]) == 3


def test_emit_from_many_threads_loses_nothing(scheduler):
    with Exporter(scheduler, history=None, port=None) as exporter:
        threads = [threading.Thread(target=scheduler.burst, args=(500,)) for _ in range(4)]
        for number in range(10):
            scheduler.job(f"burst-{number}")
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        until(lambda: runs_total(exporter) == 2000)


def test_counters_and_memories_go_on_after_a_restart(scheduler, tmp_path):
    history = f"sqlite:///{tmp_path}/runs.db"
    with Exporter(scheduler, history=history, port=None) as exporter:
        scheduler.job("j").run()
        scheduler.job("j").run(fails=ValueError("no"))
        until(lambda: runs_total(exporter, "failed") == 1)
        before = counters(exporter)

    with Exporter(FakeScheduler(), names=["fake"], history=history, port=None) as exporter:
        after = counters(exporter)

    for name in (
        "runs_total",
        "job_last_success",
        "job_last_failure",
        "job_consecutive",
        "job_first_seen",
        "duration_seconds_sum",
    ):
        kept = {key: value for key, value in before.items() if name in key and 'job_name="j"' in key}
        assert kept
        assert kept.items() <= after.items()


def test_close_carries_everything_that_was_told(scheduler, tmp_path):
    seen = Recorder()
    with Exporter(scheduler, sinks=[seen], history=f"sqlite:///{tmp_path}/runs.db", port=None):
        scheduler.burst(3000)

    assert len({change.row.id for change in seen.changes}) == 3000


def test_close_asks_the_store_once_more_however_long_it_was_away(scheduler, tmp_path):
    place = tmp_path / "away"
    place.write_text("")
    with Exporter(scheduler, history=f"sqlite:///{place}/runs.db", port=None) as exporter:
        for _ in range(50):
            scheduler.job("j").run()
        until(lambda: exporter.pipeline._backoff._after >= 8, what="long pauses between attempts")
        place.unlink()
        place.mkdir()

    assert exporter.pipeline.backlog == 0
    assert exporter.pipeline.dropped == {}


def test_what_cannot_be_saved_at_close_is_counted_and_said(scheduler, tmp_path, caplog):
    place = tmp_path / "away"
    place.write_text("")
    with Exporter(scheduler, history=f"sqlite:///{place}/runs.db", port=None) as exporter:
        for _ in range(50):
            scheduler.job("j").run()

    assert exporter.pipeline.dropped == {"unsaved": 50}
    assert "50 events were not saved" in caplog.text


def test_a_row_that_the_store_stumbles_over_is_dropped_alone(scheduler, tmp_path, caplog):
    with Exporter(scheduler, history=f"sqlite:///{tmp_path}/runs.db", port=None) as exporter:
        apply = exporter.store.apply

        def stumble(rows, *more):
            if any(row.job == "poison" for row in rows):
                raise KeyError("a fault of ours")
            return apply(rows, *more)

        exporter.store.apply = stumble
        for name in ("a", "poison", "b", "c"):
            scheduler.job(name).run()

        until(lambda: runs_total(exporter) == 3)
        assert exporter.pipeline.dropped == {"bad": 1}
        assert "a fault of ours" in caplog.text


def test_a_run_that_is_found_lost_is_older_than_the_success_since_then(scheduler, tmp_path):
    history = f"sqlite:///{tmp_path}/runs.db"
    with Exporter(scheduler, history=history, port=None):
        scheduler.job("j").start()

    quick = {"heartbeat": 0.1, "lost_after": 0.3, "poll_interval": 0.1}
    with Exporter(scheduler, history=history, port=None, **quick) as exporter:
        scheduler.job("j").run()
        until(
            lambda: runs_total(exporter, "unknown") == 1,
            what="finding the run that was open at the first close",
        )
        seen = counters(exporter)

    labels = '{job_name="j",scheduler="fake"}'
    assert seen[f"taskscope_job_consecutive_failures{labels}"] == 0
    last_success = seen[f"taskscope_job_last_success_timestamp_seconds{labels}"]
    assert seen[f"taskscope_job_last_failure_timestamp_seconds{labels}"] < last_success


def test_the_number_of_rows_is_never_negative(tmp_path):
    old, history = FakeScheduler(), f"sqlite:///{tmp_path}/runs.db"
    with Exporter(old, history=history, port=None):
        old.burst(500)

    rules = Retention(max_runs=100, interval=0.1)
    with Exporter(history=history, port=None, retention=rules, dedup_window=0.1) as exporter:
        seen = []
        until(lambda: seen.append(counters(exporter)["taskscope_store_rows"]) or seen[-1] == 100)

    assert min(rows for rows in seen if rows) >= 100  # 0 until the history is open


def test_without_scrapes_jobs_that_left_make_room(tmp_path, monkeypatch):
    monkeypatch.setattr("taskscope.pipeline._SYNC", 0.1)
    scheduler, settings = FakeScheduler(), {"job_budget": 20, "job_ttl": 0.2, "poll_interval": 0.1}
    with Exporter(scheduler, history=None, port=None, **settings) as exporter:
        for number in range(60):
            scheduler.job(f"short-{number}").run()
            time.sleep(0.02)
            scheduler.remove(f"short-{number}")
        until(lambda: len(exporter.live.jobs) == 0, what="all short jobs leaving")
        time.sleep(0.3)
        scheduler.job("nightly").run()

        until(lambda: ("fake", "nightly") in exporter.store.totals())


def test_a_lost_run_says_so_in_the_history(scheduler, tmp_path):
    history = f"sqlite:///{tmp_path}/runs.db"
    with Exporter(scheduler, history=history, port=None):
        scheduler.job("j").start()
        scheduler.job("k").run(fails=ValueError("no"))

    quick = {"heartbeat": 0.1, "lost_after": 0.3}
    with Exporter(history=history, port=None, **quick) as exporter:
        until(lambda: exporter.queries.runs(Filter(status=("unknown",)), limit=9).runs)
        [run] = exporter.queries.runs(Filter(reason=("lost",)), limit=9).runs
        both = exporter.queries.runs(Filter(reason=("lost", "error")), limit=9).runs

    assert (run.job, run.status, run.reason, run.ended) == ("j", "unknown", "lost", None)
    assert {run.job for run in both} == {"j", "k"}
