"""Hooks come and go without a trace, whatever the scheduler does meanwhile."""

import gc
import logging
import os
import subprocess
import sys
import threading
import tracemalloc
import weakref
from collections import Counter

import apscheduler.executors.base
import apscheduler.executors.pool
import pytest
import recorded
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, EVENT_JOB_MISSED, EVENT_JOB_SUBMITTED
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from watching import ended, now, reasons, statuses, stop

from services.process import until
from taskscope.bridges import find
from taskscope.contracts import made
from taskscope.errors import BadArgument

HOOKS = {"submit_job", "_do_submit_job", "_run_job_success", "_run_job_error"}


def hooks(scheduler) -> set[str]:
    return {name for executor in scheduler._executors.values() for name in vars(executor)} & HOOKS


def test_the_module_is_never_patched(make, ledger, seen):
    before = [dict(vars(module)) for module in (apscheduler.executors.base, apscheduler.executors.pool)]
    classes = [dict(vars(kind)) for kind in ThreadPoolExecutor.__mro__]
    scheduler = make()
    scheduler.start()
    scheduler.add_job(recorded.work, "date", [ledger.path, "job"], id="job")
    ended(seen, 1)

    assert [
        dict(vars(module)) for module in (apscheduler.executors.base, apscheduler.executors.pool)
    ] == before
    assert [dict(vars(kind)) for kind in ThreadPoolExecutor.__mro__] == classes


def test_a_scheduler_that_runs_already_is_watched_from_now_on(attach, ledger, seen, tmp_path):
    scheduler, gate = BackgroundScheduler(timezone="UTC"), tmp_path / "gate"
    scheduler.start()
    scheduler.add_job(recorded.work_until, "date", [ledger.path, "before", str(gate)], id="before")
    until(lambda: ledger.lines("begin"))

    attach(scheduler)
    gate.touch()
    scheduler.add_job(recorded.work, "date", [ledger.path, "after"], id="after")

    ended(seen, 1)
    until(lambda: len(ledger.lines("end")) == 2)
    stop(scheduler)
    assert statuses(seen, "after") == [["queued", "started", "success"]]
    assert seen.runs("before") == {}


def test_executors_added_before_and_after_the_start_are_watched(make, ledger, seen):
    scheduler = make(executors={"configured": ThreadPoolExecutor(1)})
    scheduler.add_executor(ThreadPoolExecutor(1), "early")
    scheduler.start()
    scheduler.add_executor(ThreadPoolExecutor(1), "late")

    for alias in ("configured", "early", "late", "default"):
        scheduler.add_job(recorded.work, "date", [ledger.path, alias], id=alias, executor=alias)

    ended(seen, 4)
    ledger.agrees_with(seen.runs())
    assert {fact.job: fact.queue for fact in seen.facts} == {
        alias: alias for alias in ("configured", "early", "late", "default")
    }


def test_a_removed_executor_is_let_go_when_its_runs_have_ended(make, ledger, seen, tmp_path):
    scheduler, gate = make(), tmp_path / "gate"
    executor = ThreadPoolExecutor(1)
    scheduler.add_executor(executor, "extra")
    scheduler.start()
    scheduler.add_job(
        recorded.work_until, "date", [ledger.path, "job", str(gate)], id="job", executor="extra"
    )
    until(lambda: ledger.lines("begin"))

    scheduler.remove_executor("extra", shutdown=False)
    list(scheduler.bridge.poll())
    assert vars(executor).keys() >= HOOKS
    gate.touch()
    ended(seen, 1)
    ledger.agrees_with(seen.runs())

    def let_go() -> bool:
        list(scheduler.bridge.poll())
        return not vars(executor).keys() & HOOKS

    until(let_go)
    executor.shutdown()


def test_a_scheduler_is_watched_once_and_the_second_time_refused(make):
    scheduler = make()
    second = find(scheduler)(scheduler, "again")

    with pytest.raises(BadArgument, match="given as 'again' is being watched already"):
        second.attach(lambda event: None)

    scheduler.bridge.detach()
    second.attach(lambda event: None)
    second.detach()


def test_hooks_of_others_over_ours_survive_us(make, ledger, seen):
    scheduler = make(executors={"default": ThreadPoolExecutor(1)})
    executor, heard = scheduler._executors["default"], []
    ours = executor._do_submit_job

    def theirs(job, run_times):
        heard.append(str(job.id))
        ours(job, run_times)

    executor._do_submit_job = theirs
    scheduler.start()
    scheduler.add_job(recorded.work, "date", [ledger.path, "one"], id="one")
    ended(seen, 1)
    scheduler.bridge.detach()
    scheduler.add_job(recorded.work, "date", [ledger.path, "two"], id="two")
    until(lambda: len(ledger.lines("end")) == 2)

    assert heard == ["one", "two"]
    assert executor._do_submit_job is theirs
    assert {fact.job for fact in seen.facts} == {"one"}


def test_hooks_of_others_under_ours_are_restored(attach, ledger, seen):
    scheduler = BackgroundScheduler(timezone="UTC", executors={"default": ThreadPoolExecutor(1)})
    executor, heard = scheduler._executors["default"], []
    original = executor._run_job_success

    def theirs(job_id, events):
        heard.append((type(job_id), job_id))
        original(job_id, events)

    executor._run_job_success = theirs
    bridge = attach(scheduler)
    scheduler.start()
    scheduler.add_job(recorded.work, "date", [ledger.path, "one"], id="one")
    ended(seen, 1)
    until(lambda: heard)
    stop(scheduler)
    bridge.detach()

    assert heard == [(str, "one")]
    assert executor._run_job_success is theirs


def test_detaching_in_the_middle_of_a_run_harms_nothing(make, ledger, seen, tmp_path):
    scheduler, gate, events = make(), tmp_path / "gate", []
    scheduler.add_listener(events.append, EVENT_JOB_EXECUTED)
    scheduler.start()
    scheduler.add_job(recorded.work_until, "date", [ledger.path, "job", str(gate)], id="job")
    until(lambda: ledger.lines("begin"))

    scheduler.bridge.detach()
    told = len(seen.facts)
    gate.touch()

    until(lambda: events)
    assert (type(events[0].job_id), events[0].job_id) == (str, "job")
    assert len(seen.facts) == told
    assert hooks(scheduler) == set()
    assert scheduler._executors["default"]._instances == {}


def test_the_programs_listeners_get_what_they_always_got(make, ledger, seen):
    events, scheduler = [], make()
    scheduler.add_listener(
        events.append, EVENT_JOB_EXECUTED | EVENT_JOB_ERROR | EVENT_JOB_MISSED | EVENT_JOB_SUBMITTED
    )
    scheduler.add_job(recorded.work, "date", [ledger.path, "fine"], id="fine")
    scheduler.add_job(recorded.fail, "date", [ledger.path, "broken"], id="broken")
    scheduler.start()
    ended(seen, 2)
    until(lambda: len(events) == 4)

    by_kind = {(event.code, event.job_id): event for event in events}
    fine, broken = by_kind[EVENT_JOB_EXECUTED, "fine"], by_kind[EVENT_JOB_ERROR, "broken"]
    assert {type(event.job_id) for event in events} == {str}
    assert (fine.retval, fine.exception, fine.jobstore) == ("fine", None, "default")
    assert (type(broken.exception), broken.exception.order) == (ValueError, 17)
    assert "in fail" in broken.traceback


def test_a_job_changed_while_it_waits_runs_as_it_is_then(make, ledger, seen, tmp_path):
    """As without us: APScheduler looks at the job when the run begins, not when it is submitted."""
    scheduler, gate = make(executors={"default": ThreadPoolExecutor(1)}), tmp_path / "gate"
    scheduler.start()
    scheduler.add_job(recorded.work_until, "date", [ledger.path, "first", str(gate)], id="first")
    until(lambda: ledger.lines("begin"))
    job = scheduler.add_job(
        recorded.work,
        "interval",
        [ledger.path, "old"],
        hours=1,
        id="job",
        next_run_time=now(),
        misfire_grace_time=None,
    )
    seen.wait_for(lambda: statuses(seen, "job") == [["queued"]])

    job.modify(args=[ledger.path, "new"])
    gate.touch()

    ended(seen, 2)
    assert [line["job"] for line in ledger.lines("begin")] == ["first", "new"]


def test_a_run_and_what_it_used_are_let_go_when_it_is_over(make, seen):
    class Big:
        pass

    scheduler, big = make(), Big()
    gone = weakref.ref(big)
    scheduler.start()
    scheduler.add_job(id, "date", [big], id="job")
    ended(seen, 1)
    del big

    def collected() -> bool:
        gc.collect()
        return gone() is None

    until(collected)


def test_ten_thousand_jobs_added_and_removed_leave_nothing_in_memory(make, caplog):
    caplog.set_level(logging.ERROR, "apscheduler")
    told = Counter()
    scheduler = make()
    scheduler.bridge._watch.emit = lambda fact: told.update([event.status] if (event := made(fact)) else [])
    scheduler.start()

    def come_and_go(count: int) -> None:
        scheduler.pause()
        for number in range(count):
            scheduler.add_job(int, "interval", hours=1, id=f"kept-{number}")
        list(scheduler.bridge.poll())
        for number in range(count):
            scheduler.remove_job(f"kept-{number}")
        scheduler.resume()
        before = told["success"]
        for number in range(count // 10):
            scheduler.add_job(int, "date", id=f"once-{number}", misfire_grace_time=None)
        until(lambda: told["success"] == before + count // 10)
        until(lambda: not scheduler.get_jobs())
        list(scheduler.bridge.poll())
        gc.collect()

    come_and_go(200)
    tracemalloc.start()
    before = tracemalloc.take_snapshot()
    come_and_go(10_000)
    after = tracemalloc.take_snapshot()
    tracemalloc.stop()

    ours = [
        tracemalloc.Filter(True, f"*/taskscope/{part}") for part in ("bridges/*", "facts.py", "events.py")
    ]
    grown = sum(
        s.size_diff for s in after.filter_traces(ours).compare_to(before.filter_traces(ours), "filename")
    )
    watch = scheduler.bridge._watch
    assert (watch.previous, watch.refused, len(watch._away)) == ({}, {}, 0)
    assert [len(tap.open) for tap in scheduler.bridge._taps] == [0]
    assert scheduler.bridge._definitions._known == {}
    assert grown < 20_000, f"{grown} bytes"


def test_trouble_of_ours_leaves_the_job_running(make, ledger, monkeypatch, caplog):
    scheduler = make()
    monkeypatch.setattr(scheduler.bridge._watch, "numbers", None)
    scheduler.start()

    scheduler.add_job(recorded.work, "date", [ledger.path, "job"], id="job")

    until(lambda: ledger.lines("end"))
    assert "taskscope cannot follow job job; it runs unwatched" in caplog.text


def test_many_runs_at_once_are_each_told_once(make, seen):
    scheduler = make(executors={"default": ThreadPoolExecutor(20)})
    scheduler.start(paused=True)
    for number in range(500):
        scheduler.add_job(threading.get_ident, "date", id=f"job-{number}", misfire_grace_time=None)

    scheduler.resume()

    ended(seen, 500)
    assert reasons(seen) == {("success", ""): 500}
    assert statuses(seen) == [["queued", "started", "success"]] * 500


def test_a_forked_child_has_ids_of_its_own():
    program = """
import os, sys
from datetime import datetime, timezone
from apscheduler.executors.debug import DebugExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from taskscope.bridges import find
from taskscope.contracts import made

scheduler = BackgroundScheduler(timezone="UTC", executors={"default": DebugExecutor()})
told = []
find(scheduler)(scheduler, "s").attach(lambda fact: told.append(made(fact)))
scheduler.add_job(int, "date", run_date=datetime(2040, 1, 1, tzinfo=timezone.utc), id="job")
child = os.fork()
scheduler.start(paused=True)
job = scheduler.get_job("job")
scheduler._executors["default"].submit_job(job, [job.next_run_time])
os.write(1, f"{told[0].native} {told[0].instance}\\n".encode())
if child:
    os.waitpid(child, 0)
os._exit(0)
"""
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )

    lines = [line.split() for line in output.stdout.splitlines()]
    assert len(lines) == 2, output.stderr
    assert lines[0][0] != lines[1][0]
    assert lines[0][1] != lines[1][1]


FORKED_WHILE_READING = """
import os, signal, sys, threading
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from taskscope.bridges import find

reading, never = threading.Event(), threading.Event()

class Slow(MemoryJobStore):
    def get_all_jobs(self):
        if threading.current_thread() is poller:
            reading.set()
            never.wait()
        return super().get_all_jobs()

scheduler = BackgroundScheduler(timezone="UTC", jobstores={"default": Slow()})
scheduler.start(paused=True)
bridge = find(scheduler)(scheduler, "s")
bridge.attach(lambda told: None)
bridge._watch.starts.address()
poller = threading.Thread(target=lambda: list(bridge.poll()), daemon=True)
poller.start()
reading.wait()

def hold(*locks):
    for lock in locks:
        lock.acquire()
    held.set()
    never.wait()

held = threading.Event()
locks = bridge._lock, bridge._watch.lock, bridge._watch.starts._lock
threading.Thread(target=hold, args=locks, daemon=True).start()
held.wait()
child = os.fork()
if child:
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os._exit(status)
signal.alarm(10)
bridge.abandon()
again = find(scheduler)(scheduler, "s")
again.attach(lambda told: None)
again.poll()
scheduler.add_job(int, "interval", hours=1, id="job")
bridge.detach()
os._exit(3)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_child_forked_while_our_locks_are_held_waits_for_none_of_them():
    ended = subprocess.run(
        [sys.executable, "-c", FORKED_WHILE_READING], capture_output=True, text=True, timeout=60, check=False
    )

    assert ended.returncode == 3, ended.stderr
