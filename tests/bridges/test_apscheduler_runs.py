"""Every run of a thread pool is told as it was, by the jobs' own record."""

import json
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
import recorded
from apscheduler.executors.debug import DebugExecutor
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.blocking import BlockingScheduler
from apscheduler.triggers.cron import CronTrigger
from ledger import NEAR, observed_id
from watching import ended, now, reasons, stop

from taskscope import Exporter
from taskscope.identity import text
from taskscope.testing import Recorder


def test_the_first_run_of_a_job_takes_as_long_as_it_took(make, ledger, seen):
    scheduler = make()
    scheduler.add_job(
        recorded.work, "interval", [ledger.path, "brief", 0.05], seconds=3, id="brief", next_run_time=now()
    )

    scheduler.start()

    ended(seen, 1)
    ledger.agrees_with(seen.runs())
    assert 0.05 <= seen.facts[-1].duration < 0.05 + NEAR


def test_runs_are_told_again_and_again_with_their_own_due_times(make, ledger, seen):
    scheduler = make()
    scheduler.add_job(recorded.work, "interval", [ledger.path, "often"], seconds=0.1, id="often")

    scheduler.start()

    ended(seen, 4)
    stop(scheduler)
    ledger.agrees_with(seen.runs())
    dues = sorted(facts[0].due for facts in seen.runs().values())
    assert all(b - a == pytest.approx(0.1, abs=1e-5) for a, b in pairwise(dues))


def test_the_start_delay_of_a_run_that_waits_for_a_thread_is_its_wait(make, ledger, seen, tmp_path):
    scheduler, gate = make(executors={"default": ThreadPoolExecutor(1)}), tmp_path / "gate"
    scheduler.start()
    due = now()
    for job in ("first", "second"):
        scheduler.add_job(
            recorded.work_until,
            "date",
            [ledger.path, job, str(gate)],
            run_date=due,
            id=job,
            misfire_grace_time=None,
        )
    seen.wait_for(lambda: Counter(fact.status for fact in seen.facts) == {"queued": 2, "started": 1})
    (queue,) = [reading for reading in scheduler.bridge.poll() if getattr(reading, "queue", None)]

    gate.touch()

    ended(seen, 2)
    ledger.agrees_with(seen.runs())
    assert (queue.queue, queue.ready, queue.in_flight, queue.consumers) == ("default", 1, 1, 1)
    first, second = sorted((facts[-1] for facts in seen.runs().values()), key=lambda fact: fact.started)
    assert second.started - second.enqueued == pytest.approx(first.duration, abs=NEAR)
    assert first.due == second.due == pytest.approx(due.timestamp(), abs=1e-5)


def test_overlapping_runs_of_a_job_are_all_counted_each_under_its_own_id(make, ledger, seen):
    scheduler = make()
    scheduler.add_job(
        recorded.work,
        "interval",
        [ledger.path, "long", 0.5],
        seconds=0.1,
        id="long",
        max_instances=3,
        next_run_time=now(),
    )
    scheduler.start()
    seen.wait_for(lambda: reasons(seen)["success", ""] >= 4)

    stop(scheduler)

    ledger.agrees_with(
        {native: facts for native, facts in seen.runs().items() if facts[-1].status != "skipped"}
    )
    assert reasons(seen)["skipped", "overlap"] >= 1
    assert len({fact.due for fact in seen.facts}) == len(seen.runs())
    begins = sorted(line["at"] for line in ledger.lines("begin"))
    assert begins[2] - begins[0] < 0.5, "three runs were in progress at once"


def test_a_one_shot_added_again_with_its_id_and_due_time_is_two_runs(make, ledger, seen):
    scheduler, due = make(), now()
    scheduler.start()
    for count in (1, 2):
        scheduler.add_job(
            recorded.work, "date", [ledger.path, "once"], run_date=due, id="once", misfire_grace_time=None
        )
        ended(seen, count)

    ledger.agrees_with(seen.runs())
    assert len(seen.runs()) == 2
    assert len({fact.due for fact in seen.facts}) == 1


def test_a_burst_of_missed_runs_that_are_made_up_for_is_as_many_runs(make, ledger, seen):
    scheduler = make()
    scheduler.add_job(
        recorded.work,
        "interval",
        [ledger.path, "burst", 0.02],
        seconds=60,
        id="burst",
        coalesce=False,
        misfire_grace_time=None,
        next_run_time=now() - timedelta(seconds=240.5),
    )

    scheduler.start()

    ended(seen, 5)
    ledger.agrees_with(seen.runs())
    dues = sorted(facts[0].due for facts in seen.runs().values())
    assert [round(due - dues[0]) for due in dues] == [0, 60, 120, 180, 240]
    starts = sorted((facts[-1].due, facts[-1].started, facts[-1].at) for facts in seen.runs().values())
    assert all(ended <= started for (*_, ended), (_, started, _) in pairwise(starts))


def test_missed_runs_that_become_one_are_told_as_coalesced(make, ledger, seen):
    scheduler = make()
    scheduler.add_job(
        recorded.work,
        "interval",
        [ledger.path, "merged"],
        seconds=60,
        id="merged",
        misfire_grace_time=None,
        next_run_time=now() - timedelta(seconds=240.5),
    )

    scheduler.start()

    ended(seen, 1)
    list(scheduler.bridge.poll())
    assert reasons(seen) == {("skipped", "coalesced"): 4, ("success", ""): 1}
    last = max(seen.runs().values(), key=lambda facts: facts[0].due)
    ledger.agrees_with({last[0].native: last})


def test_years_of_missed_runs_are_computed_by_a_poll_and_not_on_the_schedulers_thread(
    make, monkeypatch, seen
):
    """The first 1,000 are told as coalesced."""
    scheduler, changes, threads = make(), [], []
    compute = CronTrigger.get_next_fire_time
    begin = datetime(2020, 1, 1, tzinfo=UTC)
    trigger = CronTrigger(minute=0, timezone="Europe/Berlin")
    scheduler.start(paused=True)
    job = scheduler.add_job(int, trigger, next_run_time=begin, id="job")
    monkeypatch.setattr(
        CronTrigger,
        "get_next_fire_time",
        lambda *args: threads.append(threading.current_thread().name) or compute(*args),
    )
    scheduler.bridge.on_change = lambda: changes.append(1)

    scheduler._executors["default"].submit_job(job, [now()])
    ended(seen, 1)
    assert (threads, len(changes), len(seen.runs())) == ([], 1, 1)
    list(scheduler.bridge.poll())

    coalesced = [fact for fact in seen.facts if fact.reason == "coalesced"]
    assert [fact.due for fact in coalesced] == [begin.timestamp() + 3600 * hour for hour in range(1000)]
    assert len({fact.native for fact in coalesced}) == 1000
    list(scheduler.bridge.poll())
    assert len(seen.runs()) == 1001


def test_missed_runs_that_are_not_told_yet_are_told_by_the_detach(make, seen):
    scheduler = make()
    scheduler.start(paused=True)
    job = scheduler.add_job(int, "interval", hours=1, next_run_time=now() - timedelta(hours=2.5), id="job")
    scheduler._executors["default"].submit_job(job, [now()])
    ended(seen, 1)

    scheduler.bridge.detach()

    assert reasons(seen) == {("skipped", "coalesced"): 3, ("success", ""): 1}


def test_a_run_that_is_too_late_is_a_misfire(make, ledger, seen):
    scheduler = make()
    scheduler.add_job(
        recorded.work,
        "date",
        [ledger.path, "late"],
        run_date=now() - timedelta(seconds=30),
        id="late",
        misfire_grace_time=5,
    )

    scheduler.start()

    ended(seen, 1)
    (facts,) = seen.runs().values()
    assert [fact.status for fact in facts] == ["queued", "skipped"]
    assert (facts[-1].reason, facts[-1].started, facts[-1].duration) == ("misfire", None, None)
    assert facts[-1].at - facts[-1].due == pytest.approx(30, abs=NEAR)
    assert ledger.lines("begin") == []


def test_of_a_burst_some_runs_misfire_and_the_others_run(make, ledger, seen):
    scheduler = make()
    scheduler.add_job(
        recorded.work,
        "interval",
        [ledger.path, "burst"],
        seconds=60,
        id="burst",
        coalesce=False,
        misfire_grace_time=90,
        next_run_time=now() - timedelta(seconds=180.5),
    )

    scheduler.start()

    ended(seen, 4)
    ran = {native: facts for native, facts in seen.runs().items() if facts[-1].status == "success"}
    assert reasons(seen) == {("skipped", "misfire"): 2, ("success", ""): 2}
    ledger.agrees_with(ran)
    assert {(facts[-1].started - facts[-1].due) // 60 for facts in ran.values()} == {0, 1}


def test_a_failure_is_told_with_its_chain_and_its_data(make, ledger, seen):
    scheduler = make()
    scheduler.add_job(recorded.fail, "date", [ledger.path, "broken"], id="broken")

    scheduler.start()

    ended(seen, 1)
    ledger.agrees_with(seen.runs())
    end = seen.facts[-1]
    assert (end.status, end.reason, end.error.kind, end.error.message) == (
        "failed",
        "error",
        "ValueError",
        "cannot go on",
    )
    assert "KeyError: 'missing'" in end.error.stack
    assert "direct cause" in end.error.stack
    assert end.error.stack.rstrip().endswith("ValueError: cannot go on")
    assert "taskscope" not in end.error.stack
    assert end.error.data["order"] == "17"
    assert len(end.error.data["lines"]) <= 200


def test_a_timeout_is_a_failure_for_that_reason(make, ledger, seen):
    scheduler = make()
    scheduler.add_job(recorded.time_out, "date", [ledger.path, "slow"], id="slow")

    scheduler.start()

    ended(seen, 1)
    assert reasons(seen) == {("failed", "timeout"): 1}


def test_a_job_that_ends_the_interpreter_is_a_failure_like_any_other(make, seen):
    scheduler = make()
    scheduler.add_job(exit, "date", id="exits")

    scheduler.start()

    ended(seen, 1)
    assert (seen.facts[-1].status, seen.facts[-1].error.kind) == ("failed", "SystemExit")


def test_a_one_shot_is_known_by_name_when_its_job_is_gone(make, ledger, seen, tmp_path):
    scheduler, gate = make(), tmp_path / "gate"
    scheduler.start()
    scheduler.add_job(recorded.work_until, "date", [ledger.path, "gone", str(gate)], id="gone")
    seen.wait_for(lambda: [fact.status for fact in seen.facts] == ["queued", "started"])
    assert scheduler.get_job("gone") is None

    gate.touch()

    ended(seen, 1)
    assert {fact.job for fact in seen.facts} == {"gone"}
    ledger.agrees_with(seen.runs())


def test_a_job_without_an_id_of_its_own_is_called_by_its_function(make, ledger, seen):
    scheduler = make()
    scheduler.add_job(recorded.work, "date", [ledger.path, "recorded:work"])
    scheduler.add_job(lambda: None, "date")

    scheduler.start()

    ended(seen, 2)
    assert {fact.job for fact in seen.facts} == {
        "recorded:work",
        f"{__name__}:test_a_job_without_an_id_of_its_own_is_called_by_its_function.<locals>.<lambda>",
    }


def test_a_run_that_is_years_late_is_told_as_of_today(make, ledger, seen):
    scheduler, due = make(), datetime(2001, 1, 1, tzinfo=UTC)
    scheduler.add_job(
        recorded.work, "date", [ledger.path, "old"], run_date=due, id="old", misfire_grace_time=None
    )

    scheduler.start()

    ended(seen, 1)
    ledger.agrees_with(seen.runs())
    assert {fact.due for fact in seen.facts} == {due.timestamp()}
    assert {fact.anchor for fact in seen.facts} == {seen.facts[0].enqueued}


def test_a_job_that_the_executor_refuses_is_a_failure(make, seen):
    class Refusing(ThreadPoolExecutor):
        def _do_submit_job(self, job, run_times):
            raise RuntimeError("no room")

    scheduler = make(executors={"default": Refusing(1)})
    scheduler.add_job(print, "date", id="refused")

    scheduler.start()

    ended(seen, 1)
    assert [fact.status for fact in seen.facts] == ["queued", "failed"]
    assert (seen.facts[-1].error.kind, seen.facts[-1].error.message) == ("RuntimeError", "no room")


def test_an_executor_with_ways_of_its_own_is_believed(make, seen):
    from apscheduler.events import EVENT_JOB_EXECUTED, JobExecutionEvent

    class Own(ThreadPoolExecutor):
        def _do_submit_job(self, job, run_times):
            job.job.func(*job.args)
            event = JobExecutionEvent(EVENT_JOB_EXECUTED, job.id, job._jobstore_alias, run_times[0])
            self._run_job_success(job.id, [event])

    scheduler = make(executors={"default": Own(1)})
    scheduler.add_job(str, "date", id="own")

    scheduler.start()

    ended(seen, 1)
    assert [fact.status for fact in seen.facts] == ["queued", "success"]
    assert seen.facts[-1].duration is None


def test_the_debug_executor_runs_in_the_schedulers_own_thread(make, ledger, seen):
    scheduler = make(executors={"default": DebugExecutor()})
    for _ in range(3):
        scheduler.add_job(
            recorded.work, "date", [ledger.path, "direct", 0.02], name="direct", id=f"direct-{_}"
        )
    scheduler.add_job(recorded.fail, "date", [ledger.path, "broken"], id="broken")

    scheduler.start()

    ended(seen, 4)
    assert reasons(seen) == {("success", ""): 3, ("failed", "error"): 1}
    assert {line["run"] for line in ledger.lines("begin")} == {
        observed_id(facts[0]) for facts in seen.runs().values()
    }
    assert set(scheduler._executors["default"]._instances.values()) <= {0}
    assert {type(job) for job in scheduler._executors["default"]._instances} <= {str}


def test_a_blocking_scheduler_is_watched_too(attach, ledger, seen):
    scheduler = BlockingScheduler(timezone="UTC")
    attach(scheduler)
    scheduler.add_job(recorded.work, "interval", [ledger.path, "often"], seconds=0.05, id="often")
    thread = threading.Thread(target=scheduler.start)

    thread.start()

    ended(seen, 3)
    stop(scheduler)
    thread.join(10)
    ledger.agrees_with(seen.runs())


def test_several_schedulers_in_one_program_do_not_mix(attach, ledger, seen, make):
    first, second = make(), make()
    second.bridge.detach()
    attach(second, "other")
    due = now()
    for scheduler in (first, second):
        scheduler.start()
        scheduler.add_job(
            recorded.work, "date", [ledger.path, "same"], run_date=due, id="same", misfire_grace_time=None
        )

    ended(seen, 2)
    assert {fact.scheduler for fact in seen.facts} == {"s", "other"}
    assert len(seen.runs()) == 2
    ledger.agrees_with(seen.runs())


def test_ids_that_no_database_holds_are_still_told_apart(make, ledger, seen):
    scheduler = make()
    for number, job in enumerate(("nul\0", "lone\ud800", "x" * 10_000, 'quo"te\n')):
        scheduler.add_job(recorded.work, "date", [ledger.path, str(number)], id=job)

    scheduler.start()

    ended(seen, 4)
    assert len(seen.runs()) == 4
    assert all(fact.native.isprintable() and len(fact.native) < 1_000 for fact in seen.facts)
    assert {line["run"] for line in ledger.lines("begin")} == {observed_id(fact) for fact in seen.facts}


def test_what_the_jobs_wrote_is_what_this_file_compares_with(ledger, tmp_path: Path):
    recorded.work(ledger.path, "alone")

    lines = [json.loads(line) for line in (tmp_path / "ledger").read_text().splitlines()]
    assert [(line["job"], line["what"], line["run"]) for line in lines] == [
        ("alone", "begin", None),
        ("alone", "end", None),
    ]


def test_a_job_that_still_runs_when_several_of_its_runs_are_due_leaves_each_of_them_out(
    make, ledger, seen, tmp_path
):
    scheduler, gate = make(), tmp_path / "gate"
    scheduler.start()
    job = scheduler.add_job(
        recorded.work_until,
        "interval",
        [ledger.path, "long", str(gate)],
        seconds=60,
        id="long",
        misfire_grace_time=None,
        next_run_time=now(),
    )
    seen.wait_for(lambda: [fact.status for fact in seen.facts] == ["queued", "started"])

    job.modify(next_run_time=now() - timedelta(seconds=120.5))

    seen.wait_for(lambda: reasons(seen)["skipped", "overlap"])
    gate.touch()
    seen.wait_for(lambda: reasons(seen)["success", ""])
    list(scheduler.bridge.poll())
    assert reasons(seen) == {("success", ""): 1, ("skipped", "coalesced"): 2, ("skipped", "overlap"): 1}


def test_a_job_knows_its_run_by_the_id_under_which_it_is_kept(ledger):
    scheduler, kept = BackgroundScheduler(timezone="UTC"), Recorder()
    with Exporter(scheduler, history=None, port=None, sinks=[kept]):
        scheduler.start()
        for number in range(3):
            scheduler.add_job(
                recorded.work, "date", [ledger.path, "job"], id=f"job-{number}", misfire_grace_time=None
            )
        kept.wait_for(lambda: sum(change.row.status == "success" for change in kept.changes) == 3)
        stop(scheduler)

    assert {line["run"] for line in ledger.lines("end")} == {text(change.row.id) for change in kept.changes}
