"""The exam that every bridge takes: the promises of `taskscope.contracts.Bridge`."""

import gc
import os
import threading
import time
from collections import Counter

import pytest
from drivers import DRIVERS, Driver

from services.process import until
from taskscope import bridges
from taskscope.contracts import Bridge, made
from taskscope.events import Jobs, SchedulerState
from taskscope.facts import TERMINAL, row_of
from taskscope.testing import Recorder

ENDS = ("success", "failed", "retried", "skipped")


def ended(recorder: Recorder, runs: int) -> bool:
    return sum(fact.status in ENDS for fact in recorder.facts) >= runs


def test_every_bridge_takes_the_exam():
    assert sorted(driver.system for driver in DRIVERS) == sorted(bridges.systems())


def test_it_is_recognised_from_the_object(driver: Driver, bridge: Bridge):
    assert type(bridge) is bridges.by_name(driver.system)
    assert bridge.system == driver.system


def test_each_run_is_told_once_from_its_start_to_its_end(driver: Driver, bridge: Bridge):
    recorder = Recorder()
    bridge.attach(recorder.emit)

    for _ in range(5):
        driver.run("steady")

    recorder.wait_for(lambda: ended(recorder, 5))
    assert len(recorder.runs()) == len(driver.executed) == 5
    for facts in recorder.runs().values():
        statuses = [fact.status for fact in facts]
        assert statuses in (["queued", "started", "success"], ["started", "success"])


def test_any_fact_of_a_run_says_whose_it_is_and_the_end_says_all(driver: Driver, bridge: Bridge):
    recorder = Recorder()
    bridge.attach(recorder.emit)

    driver.run("steady", lambda: time.sleep(0.05))

    recorder.wait_for(lambda: ended(recorder, 1))
    facts = recorder.facts
    assert {(fact.scheduler, fact.job, fact.anchor, fact.due, fact.attempt) for fact in facts} == {
        ("exam", "steady", facts[0].anchor, facts[0].due, 0)
    }
    end = facts[-1]
    assert end.started is not None
    assert end.duration is not None
    assert end.enqueued <= end.started <= end.at
    assert 0.05 <= end.duration < 0.25
    assert end.instance.count(":") == 2
    assert row_of(end, b"0" * 16).facts & TERMINAL


def test_a_run_that_takes_no_time_is_a_run(driver: Driver, bridge: Bridge):
    recorder = Recorder()
    bridge.attach(recorder.emit)

    driver.run("nothing")

    recorder.wait_for(lambda: ended(recorder, 1))
    end = recorder.facts[-1]
    assert end.status == "success"
    assert 0 <= end.duration < 0.1


def test_runs_that_overlap_have_ids_of_their_own(driver: Driver, bridge: Bridge):
    recorder, release = Recorder(), threading.Event()
    bridge.attach(recorder.emit)
    together = threading.Barrier(4)  # three runs and this test: passed only while all three go on

    def work() -> None:
        together.wait(10)
        release.wait(10)

    threads = [threading.Thread(target=driver.run, args=["long", work]) for _ in range(3)]
    for number, thread in enumerate(threads, 1):
        thread.start()
        recorder.wait_for(lambda n=number: Counter(fact.status for fact in recorder.facts)["started"] == n)
    together.wait(10)
    release.set()
    for thread in threads:
        thread.join(10)

    recorder.wait_for(lambda: ended(recorder, 3))
    assert len(recorder.runs()) == 3
    assert all(
        [fact.status for fact in facts][-2:] == ["started", "success"] for facts in recorder.runs().values()
    )


def test_a_failure_says_what_went_wrong_and_where(driver: Driver, bridge: Bridge):
    recorder = Recorder()
    bridge.attach(recorder.emit)

    def fails() -> None:
        try:
            {}["key"]
        except KeyError as error:
            raise ValueError("no such thing") from error

    driver.run("broken", fails)

    recorder.wait_for(lambda: ended(recorder, 1))
    end = recorder.facts[-1]
    assert (end.status, end.reason) == ("failed", "error")
    assert (end.error.kind, end.error.message) == ("ValueError", "no such thing")
    assert end.error.stack.index("KeyError: 'key'") < end.error.stack.index("ValueError: no such thing")
    assert 'in fails\n    raise ValueError("no such thing") from error' in end.error.stack


def test_trouble_in_emit_never_reaches_the_program(driver: Driver, bridge: Bridge):
    def broken(_: object) -> None:
        raise RuntimeError("the pipeline is broken")

    bridge.attach(broken)

    for _ in range(3):
        driver.run("steady")

    until(lambda: len(driver.executed) == 3)
    assert len(driver.executed) == 3


def test_what_ran_before_and_what_runs_after_is_not_told(driver: Driver, bridge: Bridge):
    recorder = Recorder()
    driver.run("before")
    until(lambda: driver.executed == ["before"])

    bridge.attach(recorder.emit)
    driver.run("during")
    recorder.wait_for(lambda: ended(recorder, 1))
    bridge.detach()
    driver.run("after")
    until(lambda: driver.executed == ["before", "during", "after"])

    assert {fact.job for fact in recorder.facts} == {"during"}


def test_detach_leaves_the_scheduler_as_it_was(driver: Driver, bridge: Bridge):
    hooks, threads = driver.hooks(), set(threading.enumerate())

    bridge.attach(lambda event: None)
    watched = driver.hooks()
    bridge.detach()

    assert watched != hooks
    assert driver.hooks() == hooks
    assert set(threading.enumerate()) <= threads


def test_it_may_be_detached_twice_and_without_having_been_attached(driver: Driver, bridge: Bridge):
    bridge.detach()
    bridge.attach(lambda event: None)
    bridge.detach()
    bridge.detach()


def test_it_may_be_attached_again_and_tells_each_run_once(driver: Driver, bridge: Bridge):
    recorder = Recorder()
    bridge.attach(recorder.emit)
    bridge.detach()
    bridge.attach(recorder.emit)

    driver.run("steady")

    recorder.wait_for(lambda: ended(recorder, 1))
    bridge.detach()
    assert Counter(fact.status for fact in recorder.facts)["success"] == 1


def test_it_reads_the_scheduler_and_its_jobs(driver: Driver, bridge: Bridge):
    bridge.attach(lambda event: None)
    driver.define("hourly")

    readings = list(bridge.poll())

    state, *parts = [reading for reading in readings if isinstance(reading, SchedulerState)]
    (jobs,) = [reading for reading in readings if isinstance(reading, Jobs)]
    assert (state.scheduler, state.system, state.up, state.running) == ("exam", driver.system, True, True)
    assert [job.name for job in jobs.jobs] == ["hourly"]
    assert jobs.jobs[0].next_run > time.time()
    assert jobs.jobs[0].triggers[0].state == "WAITING"
    assert [part.scheduler for part in parts] == [f"exam{part}" for part in driver.parts]
    assert {reading.scheduler for reading in readings if reading not in parts} == {"exam"}


def test_it_calls_for_a_poll_when_a_job_is_added(driver: Driver, bridge: Bridge):
    if not driver.hears_of_jobs:
        pytest.skip(f"{driver.system} does not say when a job is added")
    changed = threading.Event()
    bridge.on_change = changed.set
    bridge.attach(lambda event: None)

    driver.define("hourly")

    assert changed.wait(5)


def test_runs_that_are_over_leave_nothing_in_memory(driver: Driver, bridge: Bridge):
    told = Counter()

    def emit(fact) -> None:
        if (event := made(fact)) is not None:
            told[event.status] += 1

    bridge.attach(emit)

    def objects() -> int:
        gc.collect()
        return sum(str(type(thing).__module__).startswith("taskscope") for thing in gc.get_objects())

    driver.run("job-warm-up")
    until(lambda: told["success"] == 1)
    before = objects()
    for number in range(200):
        driver.run(f"job-{number % 10}")
    until(lambda: told["success"] == 201)
    # the scripted scheduler keeps its ten jobs and their definitions: they are the script
    until(lambda: objects() <= before + 40, what="letting go of runs that are over")


def test_facts_name_the_process_that_whoever_attaches_says(driver: Driver, bridge: Bridge):
    recorder = Recorder()
    bridge.instance = "host:1:given"
    bridge.attach(recorder.emit)

    driver.run("steady")

    recorder.wait_for(lambda: ended(recorder, 1))
    assert {fact.instance for fact in recorder.facts} == {"host:1:given"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_is_left_as_if_it_had_never_been_watched(driver: Driver, bridge: Bridge):
    recorder, before = Recorder(), driver.hooks()
    bridge.on_change = lambda: None
    bridge.attach(recorder.emit)

    child = os.fork()
    if not child:
        verdict = 4
        try:
            bridge.abandon()
            bridge.abandon()
            clean = driver.hooks() == before and bridge.on_change is None
            bridges.by_name(driver.system)(driver.target, "again").attach(recorder.emit)
            verdict = 3 if clean and not recorder.facts else 5
        finally:
            os._exit(verdict)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    driver.run("steady")
    recorder.wait_for(lambda: ended(recorder, 1))
