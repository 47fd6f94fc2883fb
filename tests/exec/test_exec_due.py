"""A wrapped command with a schedule: when it is due, that its absence shows, and how it is taken away."""

import signal
import time
from datetime import datetime
from pathlib import Path
from urllib.error import HTTPError
from zoneinfo import ZoneInfo

import pytest
from wrapping import NOWHERE, Collector, Wrapper

from services.process import until

NEXT = "taskscope_job_next_run_timestamp_seconds"
INTERVAL = "taskscope_job_interval_seconds"


def test_each_run_promises_the_next_in_the_time_zone_of_its_schedule(wrapper: Wrapper, collector: Collector):
    before = datetime.now(ZoneInfo("Asia/Kolkata"))

    wrapper.run("--job", "j", "--schedule", "0 3 * * *", "--timezone", "Asia/Kolkata", "--", "true")

    due = datetime.fromtimestamp(collector.value(NEXT, scheduler=wrapper.scheduler), ZoneInfo("Asia/Kolkata"))
    assert (due.hour, due.minute, due.second) == (3, 0, 0)
    assert 0 < (due - before).total_seconds() <= 86400
    assert collector.value(INTERVAL, scheduler=wrapper.scheduler) == 86400
    info = collector.value(
        "taskscope_job_info", scheduler=wrapper.scheduler, schedule="0 3 * * *", timezone="Asia/Kolkata"
    )
    assert info == 1


def test_cron_tells_the_time_zone_by_its_variable(wrapper: Wrapper, collector: Collector):
    wrapper.run("--job", "j", "--schedule", "@daily", "--", "true", env={"CRON_TZ": "Asia/Kolkata"})

    (trigger,) = collector.ask(f"/api/job/{wrapper.scheduler}/j")["triggers"]
    assert (trigger["schedule"], trigger["timezone"]) == ("@daily", "Asia/Kolkata")
    assert trigger["next_run_at"].endswith("T18:30:00.000Z")


def test_a_schedule_that_is_none_is_told_to_whoever_wrote_it_and_the_run_is_kept(
    wrapper: Wrapper, collector: Collector
):
    done = wrapper.run("--job", "j", "--schedule", "Mon *-*-* 03:00", "--", "true")

    assert done.returncode == 0
    assert b"'Mon *-*-* 03:00' is no cron expression" in done.stderr
    assert done.stderr.count(b"\n") == 1
    assert collector.run(wrapper.scheduler)["status"] == "success"


@pytest.mark.slow
def test_a_run_that_does_not_come_stays_due_also_after_a_crash_of_the_collector(tmp_path: Path):
    """Seconds in place of minutes: `*/2` in a sixth field is due every two seconds."""
    collector = Collector()
    wrapper = Wrapper(tmp_path / "home", collector.url, "s")
    command = ["--job", "j", "--schedule", "*/2 * * * * *", "--timezone", "UTC", "--", "true"]
    try:
        collector.start()
        wrapper.run(*command)
        first = collector.value(NEXT, scheduler="s")
        assert first > time.time() - 2
        until(lambda: time.time() > first + 2, what="the time at which a run was due")
        assert collector.value(NEXT, scheduler="s") == first, "nobody came: it is overdue"

        collector.stop(signal.SIGKILL)
        collector.start()
        assert collector.value(NEXT, scheduler="s") == first, "a promise outlives a crash"

        wrapper.run(*command)
        assert collector.value(NEXT, scheduler="s") > first + 2, "it came"
        assert collector.value(INTERVAL, scheduler="s") == 2
    finally:
        wrapper.close()
        collector.remove()


def test_what_comes_late_from_the_spool_does_not_turn_the_promise_back(
    wrapper: Wrapper, collector: Collector
):
    late = Wrapper(wrapper.home.with_name("late"), NOWHERE, wrapper.scheduler)
    schedule = ["--job", "j", "--timezone", "UTC", "--schedule"]
    late.run(*schedule, "0 0 1 1 *", "--", "true")
    wrapper.run(*schedule, "* * * * *", "--", "true")
    due = collector.value(NEXT, scheduler=wrapper.scheduler)

    late.correct(collector.url)
    late.run("--job", "other", "--", "true")

    assert len(collector.runs(wrapper.scheduler)) == 3
    assert collector.value(NEXT, scheduler=wrapper.scheduler, job_name="j") == due < time.time() + 61


def test_a_job_whose_host_is_gone_is_removed_by_hand_and_back_when_it_runs(
    wrapper: Wrapper, collector: Collector
):
    command = ["--job", "of gone/host", "--schedule", "0 3 * * *", "--", "true"]
    wrapper.run(*command)
    path = f"/api/job/{wrapper.scheduler}/of%20gone%2Fhost"
    assert collector.ask(path)["next_run_at"] is not None

    removed = collector.ask(path, method="DELETE")

    assert removed["removed_at"] is not None
    assert collector.value(NEXT, scheduler=wrapper.scheduler) == 0
    assert [run["status"] for run in collector.runs(wrapper.scheduler)] == ["success"], "its runs stay"
    wrapper.run(*command)
    assert collector.ask(path)["removed_at"] is None
    assert collector.value(NEXT, scheduler=wrapper.scheduler) > time.time()


def test_a_job_that_nobody_knows_cannot_be_removed(wrapper: Wrapper, collector: Collector):
    with pytest.raises(HTTPError, match="404"):
        collector.ask(f"/api/job/{wrapper.scheduler}/never", method="DELETE")
