"""Workers that are watched from inside: exact, with whole exceptions, and the same runs as from outside."""

import os
import subprocess
import sys
import time
from collections import Counter
from datetime import timedelta
from functools import reduce, wraps
from pathlib import Path
from typing import Any

import pytest
import redis
import rq_jobs
from ledger import NEAR
from rq import Queue, Retry, SimpleWorker, Worker
from rq.command import send_stop_job_command
from rq_watching import Watching, queue, short, worker

from services.process import until
from taskscope import BadArgument, Exporter, current_run
from taskscope.bridges import made
from taskscope.events import Fact, QueueState, WorkerState
from taskscope.facts import merge, row_of
from taskscope.identity import run_id, text
from taskscope.live import Live
from taskscope.settings import Settings, Source
from taskscope.sinks.history.queries import Queries
from taskscope.sinks.history.records import Filter
from taskscope.testing import Recorder


def rows(history: str) -> list[Any]:
    queries = Queries(history, Settings())
    try:
        found = queries.runs(Filter(), limit=100).runs
        return [queries.run(row.id) for row in found]
    finally:
        queries.close()


def same_id(fact: Fact) -> bytes:
    return run_id("rq", fact.native, fact.attempt, round(fact.anchor * 1000))


@pytest.mark.parametrize(
    "kind",
    ["WatchedWorker", "WatchedSimpleWorker", pytest.param("WatchedSpawnWorker", marks=pytest.mark.slow)],
)
def test_every_attempt_is_the_same_run_inside_and_outside(
    redis_url: str, ledger: Any, tmp_path: Path, kind: str
):
    jobs, watching = queue(redis_url), Watching(redis_url)
    history, twice = f"sqlite:///{tmp_path}/runs.db", str(tmp_path / "twice")
    watching.poll()
    settings = {"TASKSCOPE_HISTORY": history, "TASKSCOPE_PORT": "null"}
    with worker(redis_url, kind=f"taskscope.bridges.rq.{kind}", **settings):
        jobs.enqueue(rq_jobs.work, ledger.path, 0.2)
        jobs.enqueue(rq_jobs.fail, ledger.path)
        jobs.enqueue(rq_jobs.too_long, ledger.path, job_timeout=1)
        jobs.enqueue(rq_jobs.fail_twice, twice, retry=Retry(max=3))
        expected = Counter(
            {
                ("work", "success", ""): 1,
                ("fail", "failed", "error"): 1,
                ("too_long", "failed", "timeout"): 1,
                ("fail_twice", "retried", "error"): 2,
                ("fail_twice", "success", ""): 1,
            }
        )
        if kind != "WatchedSimpleWorker":  # which would die itself
            jobs.enqueue(rq_jobs.exit_at_once, ledger.path)
            jobs.enqueue(rq_jobs.kill_itself, ledger.path)
            stopped = jobs.enqueue(rq_jobs.until_gate, ledger.path, str(tmp_path / "gate"))
            watching.until(lambda: stopped.get_status() == "started" and ledger.lines("begin", "until_gate"))
            send_stop_job_command(jobs.connection, stopped.id)
            expected[("exit_at_once", "failed", "worker_lost")] = 1
            expected[("kill_itself", "failed", "killed")] = 1
            expected[("until_gate", "failed", "cancelled")] = 1
        watching.ended(expected.total())

    stored = rows(history)
    assert Counter(map(short, stored)) == Counter(map(short, watching.ends)) == expected
    assert {row.id for row in stored} == {same_id(fact) for fact in watching.ends}
    assert len(ledger.lines("begin")) + Path(twice).read_text().count('"begin"') == expected.total()
    (failed,) = [row for row in stored if row.job == "rq_jobs.fail"]
    assert (failed.exception, failed.message) == ("ValueError", "cannot go on:\n  a second line")
    assert "KeyError: 'missing'" in failed.stack


def test_times_are_those_that_the_job_wrote_down(redis_url: str, ledger: Any, tmp_path: Path):
    history = f"sqlite:///{tmp_path}/runs.db"
    jobs, settings = queue(redis_url), {"TASKSCOPE_HISTORY": history, "TASKSCOPE_PORT": "null"}
    with worker(redis_url, kind="taskscope.bridges.rq.WatchedWorker", **settings):
        for _ in range(3):
            jobs.enqueue(rq_jobs.work, ledger.path, 0.3, description="A name of its own")
        until(lambda: jobs.finished_job_registry.count == 3)

    begins, ends = ledger.lines("begin"), ledger.lines("end")
    for row, begin, end in zip(reversed(rows(history)), begins, ends, strict=True):
        assert row.job == "rq_jobs.work"
        assert -0.001 <= begin["at"] - row.started / 1000 < 4 * NEAR
        assert 0 <= row.duration / 1e6 - (end["at"] - begin["at"]) < 4 * NEAR
        assert row.enqueued <= row.started
        assert begin["run"] == end["run"] == text(row.id)


def test_two_workers_with_one_history_lose_nothing(redis_url: str, ledger: Any, tmp_path: Path):
    history = f"sqlite:///{tmp_path}/runs.db"
    jobs, settings = queue(redis_url), {"TASKSCOPE_HISTORY": history, "TASKSCOPE_PORT": "null"}
    kind = "taskscope.bridges.rq.WatchedWorker"
    with worker(redis_url, kind=kind, **settings), worker(redis_url, kind=kind, **settings):
        for _ in range(20):
            jobs.enqueue(rq_jobs.work, ledger.path, 0.05)
        until(lambda: jobs.finished_job_registry.count == 20)

    stored = rows(history)
    assert {row.status for row in stored} == {"success"}
    assert sorted(text(row.id) for row in stored) == sorted(line["run"] for line in ledger.lines("begin"))
    assert len({row.worker for row in stored}) == 2


def test_a_worker_may_send_what_it_sees_to_a_collector(redis_url: str, ledger: Any, tmp_path: Path):
    jobs, source = queue(redis_url), Source(system="rq", target=redis_url)
    history = f"sqlite:///{tmp_path}/runs.db"
    with Exporter(source, names=["rq"], history=history, port=0, poll_interval=0.2) as collector:
        settings = {"TASKSCOPE_FORWARD": collector.url, "TASKSCOPE_PORT": "null", "TASKSCOPE_HISTORY": "null"}
        with worker(redis_url, kind="taskscope.bridges.rq.WatchedWorker", **settings):
            for _ in range(10):
                jobs.enqueue(rq_jobs.work, ledger.path)
            jobs.enqueue(rq_jobs.fail, ledger.path)
            until(lambda: jobs.finished_job_registry.count == 10 and jobs.failed_job_registry.count == 1)
        until(lambda: collector.store.totals()[("rq", "rq_jobs.fail")].statuses.get("failed"))
        counted = collector.store.totals()[("rq", "rq_jobs.work")].statuses["success"]

    assert sorted(text(row.id) for row in rows(history)) == sorted(
        line["run"] for line in ledger.lines("begin")
    )
    assert counted == 10


@pytest.fixture
def simple(redis_url: str) -> SimpleWorker:
    connection = redis.Redis.from_url(redis_url)
    return SimpleWorker([Queue(connection=connection)], connection=connection)


def test_each_worker_reads_all_queues_and_takes_no_promise_of_another_away(
    simple: SimpleWorker, redis_url: str
):
    connection, live = redis.Redis.from_url(redis_url), Live()
    mailing = SimpleWorker([Queue("mail", connection=connection)], connection=connection)
    Queue("mail", connection=connection).enqueue_in(timedelta(hours=1), rq_jobs.work)
    for one in (mailing, simple):
        one.register_birth()
        one.set_state("idle")

    for bridge in (made(mailing, "s"), made(simple, "s")):
        bridge.attach(Recorder().emit)
        readings = list(bridge.poll())
        live.fold(readings)
        bridge.detach()
        assert {one.worker for one in readings if isinstance(one, WorkerState)} == {simple.name, mailing.name}
        (mail,) = [one for one in readings if isinstance(one, QueueState) and one.queue == "mail"]
        assert (mail.scheduled, mail.consumers) == (1, 1)

    assert live.jobs["s", "rq_jobs.work"].state.next_run > time.time()


def test_a_worker_cannot_be_watched_twice(simple: SimpleWorker):
    first = made(simple, "one")
    first.attach(Recorder().emit)
    with pytest.raises(BadArgument, match="'two' is being watched already"):
        made(simple, "two").attach(Recorder().emit)
    first.detach()
    made(simple, "two").attach(Recorder().emit)


def test_a_worker_is_left_as_it_was_and_as_others_have_made_it_since(simple: SimpleWorker):
    def theirs(*args: Any, **kwargs: Any) -> None:
        """In the place of a method before we come, or around ours after that."""

    simple.handle_job_failure = theirs
    bridge = made(simple, "s")
    bridge.attach(Recorder().emit)
    around = simple.handle_job_success = wraps(simple.handle_job_success)(lambda *args: None)

    bridge.detach()

    assert {name for name in vars(simple) if name.startswith("handle_")} == {
        "handle_job_failure",
        "handle_job_success",
    }
    assert (simple.handle_job_failure, simple.handle_job_success) == (theirs, around)


def test_what_goes_wrong_with_ours_never_reaches_the_job(simple: SimpleWorker, redis_url: str, ledger: Any):
    jobs, bridge = queue(redis_url), made(simple, "s")
    bridge.attach(Recorder().emit)
    bridge._way._attempts.open = None  # whatever it is that breaks

    done = jobs.enqueue(rq_jobs.work, ledger.path)
    assert simple.work(burst=True)

    assert done.get_status() == "finished"
    assert len(ledger.lines("end")) == 1


def test_a_watched_worker_is_known_from_outside(simple: SimpleWorker, redis_url: str):
    bridge, watching = made(simple, "s"), Watching(redis_url)
    bridge.attach(Recorder().emit)
    simple.register_birth()
    survey = watching.bridge._way._surveyor.survey(lambda batch, survey: None)

    assert survey.workers[simple.name].watched


def test_a_system_without_files_in_memory_takes_one_on_disk(
    simple: SimpleWorker, redis_url: str, ledger: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delattr(os, "memfd_create")
    seen, connection = Recorder(), redis.Redis.from_url(redis_url)
    forking = Worker([Queue(connection=connection)], connection=connection)
    bridge = made(forking, "s")
    bridge.attach(seen.emit)
    queue(redis_url).enqueue(rq_jobs.fail, ledger.path)
    forking.work(burst=True)

    (start, end) = seen.facts
    assert (start.status, end.status, end.error.data) == ("started", "failed", {})
    assert end.error.kind == "ValueError"


def test_a_job_knows_which_run_it_is_and_nothing_after_it_does(
    simple: SimpleWorker, redis_url: str, ledger: Any
):
    seen, bridge = Recorder(), made(simple, "rq")
    bridge.attach(seen.emit)
    for function in (rq_jobs.work, rq_jobs.fail):
        queue(redis_url).enqueue(function, ledger.path)
    simple.work(burst=True)

    assert [line["run"] for line in ledger.lines("begin")] == [
        text(run) for run in map(same_id, seen.facts[1::2])
    ]
    assert current_run() is None


def test_a_job_can_report_an_exception_that_it_survives(simple: SimpleWorker, redis_url: str):
    seen, bridge = Recorder(), made(simple, "rq")
    bridge.attach(seen.emit)
    queue(redis_url).enqueue(rq_jobs.survive)
    simple.work(burst=True)

    (told,) = [fact for fact in seen.facts if fact.captured]
    assert same_id(told) == same_id(seen.facts[-1])
    assert (told.captured.error.kind, told.captured.error.message) == ("ValueError", "half of it")
    assert seen.facts[-1].status == "success"


def test_a_job_can_say_what_it_is_called_and_what_came_of_it(simple: SimpleWorker, redis_url: str):
    seen, bridge = Recorder(), made(simple, "rq")
    bridge.attach(seen.emit)
    queue(redis_url).enqueue(rq_jobs.ship)
    simple.work(burst=True)

    row = reduce(merge, (row_of(fact, same_id(fact)) for fact in seen.facts))
    assert len({same_id(fact) for fact in seen.facts}) == 1
    assert (row.entity, row.key, row.result, row.status) == ("shop-7", "order-4711", "package 88", "success")


def test_naming_a_watched_worker_is_what_imports_rq():
    code = (
        "import sys, taskscope.bridges.rq as ours; assert 'rq' not in sys.modules and 'redis' not in sys.modules;"
        "from rq import Worker; assert issubclass(ours.WatchedWorker, Worker)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
