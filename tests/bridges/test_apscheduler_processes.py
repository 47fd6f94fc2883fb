"""Runs in a process pool are told live and exactly, and end also when their process does not come back."""

import multiprocessing
import socket
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest
import recorded
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED
from apscheduler.executors.pool import ProcessPoolExecutor
from watching import ended, now, reasons, statuses

from services.process import until
from taskscope.bridges import _apscheduler_starts
from taskscope.bridges._apscheduler_child import NEWS


@pytest.fixture
def pool(make):
    """A running scheduler whose default executor is a pool of two processes."""
    scheduler = make(executors={"default": ProcessPoolExecutor(2)})
    scheduler.start()
    return scheduler


def test_runs_are_told_as_they_were(pool, ledger, seen):
    for number in range(3):
        pool.add_job(
            recorded.work,
            "date",
            [ledger.path, f"job-{number}", 0.05],
            id=f"job-{number}",
            misfire_grace_time=None,
        )
    pool.add_job(recorded.fail, "date", [ledger.path, "broken"], id="broken", misfire_grace_time=None)

    ended(seen, 4)
    ledger.agrees_with(seen.runs())
    assert reasons(seen) == {("success", ""): 3, ("failed", "error"): 1}
    error = seen.runs("broken").popitem()[1][-1].error
    assert (error.kind, error.data["order"]) == ("ValueError", "17")
    assert "KeyError: 'missing'" in error.stack
    pids = {line["run"]: line["pid"] for line in ledger.lines("begin")}
    assert {int(fact.worker.split(":")[1]) for fact in seen.facts if fact.status == "success"} <= set(
        pids.values()
    )


def test_a_run_is_told_as_started_while_it_runs(pool, ledger, seen, tmp_path):
    gate = tmp_path / "gate"
    pool.add_job(
        recorded.work_until, "date", [ledger.path, "long", str(gate)], id="long", misfire_grace_time=None
    )

    seen.wait_for(lambda: [fact.status for fact in seen.facts] == ["queued", "started"])
    (queue,) = [reading for reading in pool.bridge.poll() if getattr(reading, "queue", None)]
    gate.touch()

    ended(seen, 1)
    ledger.agrees_with(seen.runs())
    assert (queue.ready, queue.in_flight, queue.consumers) == (0, 1, 2)


@pytest.mark.skipif(sys.platform == "win32", reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_children_come_into_the_world_in_any_way(make, ledger, seen, method):
    context = multiprocessing.get_context(method)
    scheduler = make(executors={"default": ProcessPoolExecutor(1, pool_kwargs={"mp_context": context})})
    scheduler.start()

    for job, does in (("fine", recorded.work), ("broken", recorded.fail)):
        scheduler.add_job(does, "date", [ledger.path, job], id=job, misfire_grace_time=None)

    ended(seen, 2)
    ledger.agrees_with(seen.runs())
    assert reasons(seen) == {("success", ""): 1, ("failed", "error"): 1}


def test_a_worker_that_dies_is_the_end_of_its_run(pool, ledger, seen, tmp_path):
    gate = tmp_path / "gate"
    pool.add_job(
        recorded.die_at, "date", [ledger.path, "doomed", str(gate)], id="doomed", misfire_grace_time=None
    )
    seen.wait_for(lambda: [fact.status for fact in seen.facts] == ["queued", "started"])

    gate.touch()

    ended(seen, 1)
    assert statuses(seen) == [["queued", "started", "failed"]]
    end = seen.facts[-1]
    assert (end.reason, end.error.kind) == ("worker_lost", "concurrent.futures.process.BrokenProcessPool")
    assert end.worker.endswith(f":{ledger.lines('begin')[0]['pid']}")


def test_a_broken_pool_ends_all_of_its_runs_and_the_next_one_works(pool, ledger, seen, tmp_path):
    gate = tmp_path / "gate"
    for job, does in (
        ("doomed", recorded.die_at),
        ("beside", recorded.work_until),
        ("behind", recorded.work_until),
    ):
        pool.add_job(does, "date", [ledger.path, job, str(gate)], id=job, misfire_grace_time=None)
    seen.wait_for(lambda: sum(fact.status == "started" for fact in seen.facts) == 2)
    broken = pool._executors["default"]._pool

    gate.touch()
    ended(seen, 3)
    pool.add_job(recorded.work, "date", [ledger.path, "after"], id="after", misfire_grace_time=None)
    ended(seen, 4)

    assert pool._executors["default"]._pool is not broken
    assert reasons(seen, "doomed") == {("failed", "worker_lost"): 1}
    assert reasons(seen, "after") == {("success", ""): 1}
    assert all(facts[-1].status in ("failed", "success") for facts in seen.runs().values())


def test_an_exception_that_cannot_come_back_loses_the_worker(pool, ledger, seen):
    pool.add_job(recorded.fail_unpicklably, "date", [ledger.path, "odd"], id="odd", misfire_grace_time=None)

    ended(seen, 1)
    assert statuses(seen) == [["queued", "started", "failed"]]
    assert reasons(seen) == {("failed", "worker_lost"): 1}
    assert len(ledger.lines("begin")) == 1


def test_an_exception_that_cannot_be_sent_loses_the_worker(pool, ledger, seen):
    pool.add_job(recorded.fail_with_lock, "date", [ledger.path, "odd"], id="odd", misfire_grace_time=None)

    ended(seen, 1)
    assert statuses(seen) == [["queued", "started", "failed"]]
    assert reasons(seen) == {("failed", "worker_lost"): 1}


def test_a_job_whose_result_cannot_be_sent_has_succeeded(pool, ledger, seen):
    pool.add_job(recorded.return_lock, "date", [ledger.path, "odd"], id="odd", misfire_grace_time=None)

    ended(seen, 1)
    ledger.agrees_with(seen.runs())
    assert reasons(seen) == {("success", ""): 1}


def test_a_job_that_cannot_be_sent_to_a_process_fails_as_it_does_without_us(pool, seen):
    pool.add_job(lambda: None, "date", id="lambda", misfire_grace_time=None)

    ended(seen, 1)
    assert statuses(seen) == [["queued", "failed"]]
    end = seen.facts[-1]
    assert (end.reason, end.error.kind) == ("error", "ValueError")
    assert "This Job cannot be serialized" in end.error.message


def test_a_burst_is_told_run_by_run_while_it_goes_on(pool, ledger, seen, tmp_path):
    gate = tmp_path / "gate"
    pool.add_job(
        recorded.work_until,
        "interval",
        [ledger.path, "burst", str(gate)],
        seconds=60,
        id="burst",
        coalesce=False,
        misfire_grace_time=None,
        next_run_time=now() - timedelta(seconds=120.5),
    )
    seen.wait_for(lambda: sum(fact.status == "started" for fact in seen.facts) == 1)

    gate.touch()

    ended(seen, 3)
    ledger.agrees_with(seen.runs())
    assert len(seen.runs()) == 3


def test_runs_of_a_burst_that_succeeded_before_the_worker_died_stay_successes(pool, ledger, seen, tmp_path):
    pool.add_job(
        recorded.die_the_third_time,
        "interval",
        [ledger.path, "burst"],
        seconds=60,
        id="burst",
        coalesce=False,
        misfire_grace_time=None,
        next_run_time=now() - timedelta(seconds=180.5),
    )

    ended(seen, 4)
    assert len(ledger.lines("end")) == 2
    assert reasons(seen) == {("success", ""): 2, ("failed", "worker_lost"): 2}


def test_the_programs_listeners_get_what_they_always_got(pool, ledger, seen):
    events, done = [], threading.Event()

    def listen(event) -> None:
        events.append(event)
        if len(events) == 2:
            done.set()

    pool.add_listener(listen, EVENT_JOB_EXECUTED | EVENT_JOB_ERROR)
    pool.add_job(recorded.work, "date", [ledger.path, "fine"], id="fine", misfire_grace_time=None)
    pool.add_job(recorded.fail, "date", [ledger.path, "broken"], id="broken", misfire_grace_time=None)

    assert done.wait(20)
    fine, broken = sorted(events, key=lambda event: event.job_id, reverse=True)
    assert (type(fine.job_id), fine.job_id, fine.jobstore, fine.retval) == (str, "fine", "default", "fine")
    assert (type(broken.job_id), str(broken.exception), broken.exception.order) == (str, "cannot go on", 17)
    assert "recorded.py" in broken.traceback


def test_without_a_socket_starts_are_told_with_the_end(make, ledger, seen, monkeypatch):
    monkeypatch.delattr(_apscheduler_starts.socket, "AF_UNIX")
    scheduler = make(executors={"default": ProcessPoolExecutor(1)})
    scheduler.start()

    scheduler.add_job(recorded.work, "date", [ledger.path, "fine"], id="fine", misfire_grace_time=None)

    ended(seen, 1)
    ledger.agrees_with(seen.runs())


def test_detaching_removes_the_socket_and_its_thread(pool, ledger, seen):
    pool.add_job(recorded.work, "date", [ledger.path, "fine"], id="fine", misfire_grace_time=None)
    ended(seen, 1)
    directory = Path(pool.bridge._watch.starts._directory)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert "taskscope-starts" in {thread.name for thread in threading.enumerate()}

    pool.bridge.detach()

    assert not directory.exists()
    until(lambda: "taskscope-starts" not in {thread.name for thread in threading.enumerate()})


def test_noise_on_the_socket_harms_nothing(pool, ledger, seen):
    pool.add_job(recorded.work, "date", [ledger.path, "first"], id="first", misfire_grace_time=None)
    ended(seen, 1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as noise:
        for datagram in (
            b"",
            b"x",
            b"y" * 60,
            NEWS.pack(2**60, 7, 0.0, 0.0, 1),
            NEWS.pack(1, 2**31, -1.0, 1e300, 1),
        ):
            noise.sendto(datagram, pool.bridge._watch.starts.address())

    pool.add_job(recorded.work, "date", [ledger.path, "second"], id="second", misfire_grace_time=None)

    ended(seen, 2)
    ledger.agrees_with(seen.runs())


def test_a_child_imports_next_to_nothing_for_us():
    code = "import sys, taskscope.bridges._apscheduler_child; print(*sys.modules)"

    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()

    ours = {module for module in modules if module.split(".")[0] == "taskscope"}
    assert ours == {"taskscope", "taskscope.bridges", "taskscope.bridges._apscheduler_child", "taskscope.run"}
    assert not {"msgspec", "sqlalchemy", "aiohttp", "apscheduler", "hashlib", "uuid"} & set(modules)
