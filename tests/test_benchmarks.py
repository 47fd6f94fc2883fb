"""Benchmarks run when somebody asks for figures, once in a while: here each that has a size runs a small one."""

import pytest
from benchmarks import api, apscheduler_overhead, history_size, ingest, queries, render, throughput

pytestmark = pytest.mark.slow


def test_a_page_of_metrics_is_the_same_as_that_of_the_peer():
    figures = render.main((1_000,))["1000"]

    assert figures["text"]["ratio"] > 0
    assert figures["memory_mib"]["ours"] > 0


def test_the_api_answers_every_question_of_its_benchmark(tmp_path, monkeypatch):
    monkeypatch.setattr(api, "ROUNDS", 3)
    url = f"sqlite:///{tmp_path}/runs.db"
    queries.fill(url, api.DEPTH + 1_000)

    assert all(figures["p95"] > 0 for figures in api.times(url).values())


def test_what_is_sent_is_counted(tmp_path):
    assert ingest.measure(f"sqlite:///{tmp_path}/runs.db", senders=2, events=2_000)["events_per_second"] > 0


def test_no_run_of_a_fast_scheduler_is_dropped():
    figures = throughput.measure(2.0)

    assert figures["dropped"] == 0
    assert figures["counted"] == figures["runs"] > 0


def test_a_history_is_filled_and_pruned():
    figures = history_size.measure(10_000)

    assert figures["retention_runs_per_second"] > 0
    assert figures["bytes_per_run"] < 150


def test_all_runs_of_each_kind_take_place(monkeypatch):
    for kind in (apscheduler_overhead.watched, apscheduler_overhead.peer):
        monkeypatch.setattr(apscheduler_overhead, "JOBS", 100)
        assert apscheduler_overhead.dispatch(kind)["jobs_per_second"] > 0
