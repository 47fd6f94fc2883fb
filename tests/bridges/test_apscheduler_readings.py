"""What the scheduler and its jobs are now, read through the scheduler's own API."""

import os
import threading
import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
import recorded
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.calendarinterval import CalendarIntervalTrigger
from apscheduler.triggers.combining import AndTrigger, OrTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger
from watching import ended, now, stop

from taskscope.events import Job, Jobs, QueueState, SchedulerState
from taskscope.failure import VALUE
from taskscope.live import Live


def state(scheduler) -> SchedulerState:
    (reading,) = [reading for reading in scheduler.bridge.poll() if isinstance(reading, SchedulerState)]
    return reading


def jobs(scheduler) -> dict[str, Job]:
    (reading,) = [reading for reading in scheduler.bridge.poll() if isinstance(reading, Jobs)]
    return {job.name: job for job in reading.jobs}


def test_a_scheduler_is_down_up_paused_up_and_down(make):
    scheduler = make()
    seen = [state(scheduler)]
    for change in (scheduler.start, scheduler.pause, scheduler.resume, scheduler.shutdown):
        change()
        seen.append(state(scheduler))

    assert [(reading.up, reading.running) for reading in seen] == [
        (False, False),
        (True, True),
        (True, False),
        (True, True),
        (False, False),
    ]


def test_the_summary_says_what_it_is_made_of(make):
    scheduler = make(executors={"narrow": ThreadPoolExecutor(1)})
    scheduler.start()

    assert state(scheduler).summary == (
        "s: BackgroundScheduler, running, time zone UTC",
        "Executors: narrow (ThreadPoolExecutor, 1 workers), default (ThreadPoolExecutor, 10 workers)",
        "Job stores: default (MemoryJobStore)",
        "Runs submitted since it is watched: 0",
    )


def test_a_scheduler_whose_thread_died_is_down(make, monkeypatch):
    scheduler = make()
    scheduler.start()
    monkeypatch.setattr(scheduler, "_thread", threading.Thread())

    assert not state(scheduler).up
    monkeypatch.undo()
    assert state(scheduler).up


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_in_a_forked_child_the_scheduler_is_down(make):
    scheduler = make()
    scheduler.start()

    child = os.fork()
    if not child:
        os._exit(3 if not state(scheduler).up else 4)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3


def test_a_definition_says_everything(make):
    scheduler = make()
    scheduler.start()
    scheduler.add_job(
        recorded.work,
        "cron",
        ["/dev/null", "x" * 5000],
        {"seconds": 0.5},
        id="nightly",
        name="the nightly one",
        hour=3,
        timezone="Europe/Berlin",
        max_instances=2,
        misfire_grace_time=60,
        coalesce=False,
    )

    job = jobs(scheduler)["nightly"]

    assert (job.key, job.function, job.description, job.queue) == (
        "nightly",
        "recorded:work",
        "the nightly one",
        "default",
    )
    assert (job.paused, job.overlap, job.durable) == (False, True, False)
    assert job.interval in (82_800, 86_400, 90_000)  # a day, also when the clocks change
    assert job.properties == {
        "max_instances": 2,
        "coalesce": False,
        "misfire_grace_time": 60,
        "jobstore": "default",
        "executor": "default",
    }
    assert job.data["kwargs"] == {"seconds": "0.5"}
    assert job.data["args"][0] == "'/dev/null'"
    assert len(job.data["args"][1]) <= VALUE
    (trigger,) = job.triggers
    assert (trigger.key, trigger.state, trigger.schedule) == ("nightly", "WAITING", "cron[hour='3']")
    assert (trigger.timezone, trigger.may_fire_again) == ("Europe/Berlin", True)
    assert trigger.misfire_policy == "left out when more than 60 s late; each missed run is made up for"
    assert datetime.fromtimestamp(job.next_run, ZoneInfo("Europe/Berlin")).hour == 3


START = datetime(2040, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("trigger", "schedule", "zone", "interval", "again"),
    [
        (IntervalTrigger(minutes=5, start_date=START, timezone="UTC"), "interval[0:05:00]", "UTC", 300, True),
        (
            IntervalTrigger(hours=1, jitter=600, start_date=START, timezone="UTC"),
            "interval[1:00:00]",
            "UTC",
            None,
            True,
        ),
        (CronTrigger(minute="*/10", timezone="UTC"), "cron[minute='*/10']", "UTC", 600, True),
        (
            CronTrigger(year=2040, month=1, day=1, timezone="UTC"),
            "cron[year='2040', month='1', day='1']",
            "UTC",
            None,
            False,
        ),
        (
            CalendarIntervalTrigger(days=2, hour=4, start_date="2040-05-01", timezone="Asia/Tokyo"),
            "CalendarIntervalTrigger(days=2, time='04:00:00', start_date='2040-05-01', timezone='Asia/Tokyo')",
            "Asia/Tokyo",
            2 * 86_400,
            True,
        ),
        (
            OrTrigger([CronTrigger(hour=1, timezone="UTC"), CronTrigger(hour=13, timezone="UTC")]),
            "or[cron[hour='1'], cron[hour='13']]",
            "UTC",
            43_200,
            True,
        ),
        (
            AndTrigger(
                [CronTrigger(hour=1, timezone="UTC"), CronTrigger(day_of_week="mon", hour=1, timezone="UTC")]
            ),
            "and[cron[hour='1'], cron[day_of_week='mon', hour='1']]",
            "UTC",
            None,
            None,
        ),
    ],
)
def test_every_kind_of_trigger_is_read(make, trigger, schedule, zone, interval, again):
    scheduler = make()
    scheduler.start(paused=True)
    scheduler.add_job(print, trigger, id="job")

    job = jobs(scheduler)["job"]

    (read,) = job.triggers
    assert read.schedule == schedule
    assert (read.timezone, read.may_fire_again) == (zone, again)
    assert read.next_run == job.next_run == scheduler.get_job("job").next_run_time.timestamp()
    if interval is not None:
        assert job.interval == interval


def test_a_one_shot_will_not_fire_again(make):
    scheduler = make()
    scheduler.start(paused=True)
    scheduler.add_job(print, "date", run_date=START, id="once")

    job = jobs(scheduler)["once"]

    (trigger,) = job.triggers
    assert (job.interval, trigger.may_fire_again, trigger.start) == (None, False, START.timestamp())
    assert trigger.schedule == "date[2040-05-01 12:00:00 UTC]"


def test_start_and_end_of_a_trigger_are_read(make):
    scheduler = make()
    scheduler.start(paused=True)
    end = START + timedelta(days=1)
    scheduler.add_job(print, "interval", hours=1, start_date=START, end_date=end, id="within")
    scheduler.add_job(
        print, CalendarIntervalTrigger(days=1, start_date="2040-05-01", timezone="UTC"), id="days"
    )

    read = jobs(scheduler)

    assert (read["within"].triggers[0].start, read["within"].triggers[0].end) == (
        START.timestamp(),
        end.timestamp(),
    )
    assert read["days"].triggers[0].start == datetime(2040, 5, 1, tzinfo=UTC).timestamp()


def test_a_trigger_of_the_users_own_is_asked_nothing(make):
    class Counting(BaseTrigger):
        asked = 0

        def get_next_fire_time(self, previous_fire_time, now):
            self.asked += 1
            return START

    scheduler, trigger = make(), Counting()
    scheduler.start(paused=True)
    scheduler.add_job(print, trigger, id="own")
    asked = trigger.asked

    job = jobs(scheduler)["own"]

    assert trigger.asked == asked
    assert (job.interval, job.next_run) == (None, START.timestamp())


def test_a_job_is_paused_resumed_rescheduled_and_removed(make):
    scheduler = make()
    scheduler.start(paused=True)
    scheduler.add_job(print, "interval", hours=1, id="job")

    scheduler.pause_job("job")
    paused = jobs(scheduler)["job"]
    scheduler.resume_job("job")
    resumed = jobs(scheduler)["job"]
    scheduler.reschedule_job("job", trigger="interval", minutes=10)
    rescheduled = jobs(scheduler)["job"]
    scheduler.remove_job("job")

    assert (paused.paused, paused.next_run, paused.triggers[0].state) == (True, None, "PAUSED")
    assert (resumed.paused, resumed.interval, resumed.triggers[0].state) == (False, 3_600, "WAITING")
    assert (rescheduled.interval, rescheduled.triggers[0].schedule) == (600, "interval[0:10:00]")
    assert jobs(scheduler) == {}


def test_a_job_that_is_modified_is_defined_anew(make):
    scheduler = make()
    scheduler.start(paused=True)
    scheduler.add_job(print, "interval", ["before"], hours=1, id="job", name="before")

    scheduler.modify_job("job", name="after", args=["after"], max_instances=3, misfire_grace_time=7)
    job = jobs(scheduler)["job"]

    assert (job.name, job.description, job.overlap) == ("job", "after", True)
    assert job.data["args"] == ["'after'"]
    assert (job.properties["max_instances"], job.properties["misfire_grace_time"]) == (3, 7)
    assert job.triggers[0].misfire_policy.startswith("left out when more than 7 s late")


def test_each_change_of_a_job_calls_for_a_poll(make):
    scheduler, changes = make(), []
    scheduler.start(paused=True)
    scheduler.bridge.on_change = lambda: changes.append(1)

    for change in (
        lambda: scheduler.add_job(print, "interval", hours=1, id="job"),
        lambda: scheduler.pause_job("job"),
        lambda: scheduler.resume_job("job"),
        lambda: scheduler.reschedule_job("job", trigger="interval", hours=2),
        lambda: scheduler.remove_job("job"),
        scheduler.resume,
        scheduler.pause,
        scheduler.remove_all_jobs,
    ):
        changes.clear()
        change()
        assert changes


def test_a_trigger_waits_executes_and_is_blocked(make, ledger, seen, tmp_path):
    scheduler, gate = make(), tmp_path / "gate"
    scheduler.add_job(
        recorded.work_until,
        "interval",
        [ledger.path, "long", str(gate)],
        seconds=0.3,
        id="long",
        next_run_time=now(),
    )
    before = jobs(scheduler)["long"].triggers[0].state

    scheduler.start()
    seen.wait_for(lambda: [fact.status for fact in seen.facts] == ["queued", "started"])
    executing = jobs(scheduler)["long"]
    seen.wait_for(lambda: seen.facts[-1].reason == "overlap")
    blocked = jobs(scheduler)["long"]
    scheduler.pause()
    gate.touch()
    seen.wait_for(lambda: seen.facts[-1].status == "success")
    after = jobs(scheduler)["long"]

    states = [job.triggers[0].state for job in (executing, blocked, after)]
    assert [before, *states] == ["WAITING", "EXECUTING", "BLOCKED", "WAITING"]
    assert executing.previous_run == blocked.previous_run == seen.facts[0].due
    assert executing.next_run > executing.previous_run


def test_nothing_is_blocked_once_the_scheduler_is_down_and_the_last_run_has_ended(
    make, ledger, seen, tmp_path
):
    scheduler, gate, live = make(), tmp_path / "gate", Live()
    arguments = [ledger.path, "long", str(gate)]
    scheduler.add_job(recorded.work_until, "interval", arguments, seconds=0.3, id="long", next_run_time=now())
    scheduler.start()
    seen.wait_for(lambda: seen.facts and seen.facts[-1].reason == "overlap")

    def abnormal():
        live.fold([*seen.facts, *scheduler.bridge.poll()])
        return set(live.jobs["s", "long"].abnormal)

    assert abnormal() == {"BLOCKED"}
    scheduler.pause()
    scheduler.shutdown(wait=False)
    assert abnormal() == {"BLOCKED"}
    gate.touch()
    seen.wait_for(lambda: seen.facts[-1].status == "success")

    assert abnormal() == set()
    assert live.jobs["s", "long"].definition.triggers[0].state == "WAITING"


def test_jobs_are_known_before_the_scheduler_starts(make):
    scheduler = make()
    scheduler.add_job(print, "interval", hours=1, id="pending")

    (job,) = jobs(scheduler).values()

    assert (job.name, job.paused, job.next_run, job.interval) == ("pending", False, None, None)
    assert job.properties["max_instances"] == 1


def test_jobs_of_a_scheduler_that_went_down_stay_as_they_were(make):
    scheduler = make()
    scheduler.add_job(print, "interval", hours=1, id="job")
    scheduler.start()
    assert jobs(scheduler)
    stop(scheduler)

    readings = list(scheduler.bridge.poll())

    assert not any(isinstance(reading, Jobs) for reading in readings)
    assert not readings[0].up


def test_a_scheduler_that_starts_again_is_watched_again(make, ledger, seen):
    scheduler = make()
    scheduler.start()
    stop(scheduler)
    scheduler.remove_executor("default")
    scheduler.start()

    scheduler.add_job(recorded.work, "date", [ledger.path, "again"], id="again")

    ended(seen, 1)
    ledger.agrees_with(seen.runs())
    assert state(scheduler).running


def test_every_executor_is_a_queue(make):
    scheduler = make(executors={"narrow": ThreadPoolExecutor(1)})
    scheduler.start()
    scheduler.add_executor("threadpool", "late", max_workers=3)

    queues = {
        reading.queue: reading for reading in scheduler.bridge.poll() if isinstance(reading, QueueState)
    }

    assert {name: (queue.ready, queue.in_flight, queue.consumers) for name, queue in queues.items()} == {
        "narrow": (0, 0, 1),
        "default": (0, 0, 10),
        "late": (0, 0, 3),
    }


def test_arguments_that_cannot_be_shown_hurt_nobody(make):
    class Hostile:
        def __repr__(self):
            raise SystemExit(1)

    scheduler = make()
    scheduler.start(paused=True)
    scheduler.add_job(print, "interval", [Hostile(), iter([1])], hours=1, id="hostile")

    data = jobs(scheduler)["hostile"].data

    assert data["args"][0] == "<cannot be shown>"
    assert "iterator" in data["args"][1]


def test_due_times_that_did_not_change_are_not_computed_again(make, monkeypatch):
    scheduler, computed = make(), []
    compute = CronTrigger.get_next_fire_time
    scheduler.start(paused=True)
    scheduler.add_job(print, "cron", minute="*/5", id="job")
    monkeypatch.setattr(
        CronTrigger, "get_next_fire_time", lambda *args: computed.append(args) or compute(*args)
    )

    read = [jobs(scheduler) for _ in range(3)]

    assert read[0] == read[1] == read[2]
    assert len(computed) == 1


def test_jobs_without_an_id_of_their_own_are_one_job_with_all_their_triggers(make):
    scheduler = make()
    scheduler.start(paused=True)
    added = [scheduler.add_job(print, "date", run_date=START + timedelta(hours=n)) for n in (3, 1, 2, 4, 5)]
    added[4].pause()

    (job,) = jobs(scheduler).values()

    assert (job.name, job.key, job.next_run) == (
        "builtins:print",
        added[1].id,
        added[1].next_run_time.timestamp(),
    )
    assert job.triggers[0].schedule == str(added[1].trigger)
    assert {trigger.key: (trigger.state, trigger.next_run) for trigger in job.triggers} == {
        one.id: ("WAITING", one.next_run_time.timestamp()) for one in added[:4]
    } | {added[4].id: ("PAUSED", None)}
    assert [trigger.schedule for trigger in job.triggers[1:]] == [""] * 4
    assert jobs(scheduler)["builtins:print"] is job

    added[2].remove()
    assert len(jobs(scheduler)["builtins:print"].triggers) == 4
    for one in (added[0], added[3], added[4]):
        one.remove()
    assert [trigger.key for trigger in jobs(scheduler)["builtins:print"].triggers] == [added[1].id]


def test_of_thousands_of_one_shots_with_one_name_the_first_thousand_are_told_cheaply(make):
    scheduler = make()
    scheduler.start(paused=True)
    for number in range(3_000):
        scheduler.add_job(print, "date", run_date=START + timedelta(seconds=number))

    first = jobs(scheduler)["builtins:print"]
    taken = []
    for _ in range(5):
        begun = time.perf_counter()
        again = jobs(scheduler)["builtins:print"]
        taken.append(time.perf_counter() - begun)

    assert again is first
    assert len(first.triggers) == 1_000
    assert min(taken) < 0.1, taken  # about 10 ms where nothing else runs
