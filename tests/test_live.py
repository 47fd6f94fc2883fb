"""What is true right now."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from taskscope.counts import JobState
from taskscope.events import (
    Defined,
    Departure,
    Fact,
    Job,
    Jobs,
    QueueState,
    Removed,
    SchedulerState,
    Trigger,
    WorkerState,
)
from taskscope.live import Live

KEY = ("s", "j")


def fact(status, at, native="n", **fields):
    return Fact(scheduler="s", native=native, status=status, at=at, job="j", **fields)


def reading(at, *jobs):
    return Jobs(scheduler="s", at=at, jobs=jobs)


def test_a_run_is_in_progress_from_its_start_to_its_end():
    live = Live()

    live.fold([fact("started", 10.0)])
    live.fold([fact("started", 11.0, started=0.0, key="order-7")])
    assert list(live.jobs[KEY].running.values()) == [10.0]

    live.fold([fact("success", 12.0, started=10.0, duration=2.0)])
    assert live.jobs[KEY].running == {}
    assert live.jobs[KEY].state == JobState(
        first_seen=10.0, last_run=10.0, last_success=12.0, last_duration=2.0
    )


def test_a_job_is_known_since_the_earliest_that_is_told_of_it():
    live = Live()

    live.fold([fact("success", 12.0 - n, native=str(n)) for n in range(3)])

    assert live.jobs[KEY].state.first_seen == 10.0


def test_a_start_that_is_told_after_its_end_is_not_in_progress():
    live = Live()

    live.fold([fact("success", 12.0), fact("started", 10.0)])

    assert live.jobs[KEY].running == {}
    assert live.jobs[KEY].state.last_run == 10.0


@given(st.integers(1, 5), st.integers(1, 3))
def test_consecutive_failures_count_each_failure_once_and_end_with_a_success(failures, repeats):
    live = Live()
    events = [fact("failed", 10.0 + n, native=str(n)) for n in range(failures)]

    live.fold(events * repeats)
    assert live.jobs[KEY].state.consecutive_failures == failures

    live.fold([fact("success", 99.0, native="ok")])
    assert live.jobs[KEY].state.consecutive_failures == 0

    live.fold(events)
    assert live.jobs[KEY].state.consecutive_failures == 0, "older failures came again"


def test_a_definition_of_one_job_says_nothing_of_the_others():
    live = Live()
    live.fold([reading(10.0, Job(name="j", key="j", next_run=20.0))])
    other = Job(name="k", key="k", next_run=30.0, interval=60.0)

    live.fold([Defined(scheduler="s", at=11.0, job=other)])

    assert live.jobs["s", "k"].state == JobState(first_seen=11.0, next_run=30.0, interval=60.0)
    assert not live.jobs[KEY].state.removed
    live.fold([Defined(scheduler="s", at=12.0, job=msgspec.structs.replace(other, paused=True))])
    assert (live.jobs["s", "k"].state.paused, live.jobs["s", "k"].state.next_run) == (True, 0.0)


def test_a_job_that_is_missing_from_an_incomplete_reading_stays_without_a_promise():
    live = Live(job_ttl=60.0)
    broken = Trigger(key="t", state="ERROR")
    promised = Job(name="j", key="j", next_run=20.0, interval=5.0, triggers=(broken,))
    live.fold([fact("success", 9.0), Jobs(scheduler="s", at=10.0, jobs=(promised,), complete=False)])

    live.fold([Jobs(scheduler="s", at=11.0, jobs=(), complete=False)])
    live.expire(1000.0)

    job = live.jobs[KEY]
    assert (job.definition, job.abnormal, job.state.removed) == (None, {}, 0.0)
    assert (job.state.next_run, job.state.interval, job.state.last_success) == (0.0, 0.0, 9.0)
    assert live.departures == 0


def test_a_job_that_is_missing_from_a_reading_leaves_after_its_time_to_live():
    live = Live(job_ttl=60.0)
    live.fold([reading(10.0, Job(name="j", key="j", next_run=20.0))])
    assert live.jobs[KEY].state.next_run == 20.0

    live.fold([reading(30.0)])
    live.expire(89.0)
    assert live.jobs[KEY].state.next_run == 0.0

    live.changed()
    live.expire(91.0)
    assert live.changed() == {KEY: None}
    assert live.jobs == {}


def test_a_removed_job_that_comes_back_stays():
    live = Live(job_ttl=60.0)
    job = Job(name="j", key="j")

    live.fold([reading(10.0, job), reading(20.0), reading(30.0, job)])
    live.expire(1000.0)

    assert KEY in live.jobs


def test_readings_are_gone_past_their_time_to_live_and_memories_are_not():
    live = Live(reading_ttl=60.0)
    live.fold(
        [
            SchedulerState(scheduler="s", system="x", at=10.0, up=True, running=True),
            QueueState(scheduler="s", queue="q", at=10.0, ready=1),
            fact("success", 10.0),
        ]
    )

    live.expire(71.0)

    assert (live.schedulers, live.queues) == ({}, {})
    assert live.jobs[KEY].state.last_success == 10.0


def test_a_paused_job_has_no_next_run():
    live = Live()

    live.fold([reading(10.0, Job(name="j", key="j", paused=True, next_run=99.0))])

    assert live.jobs[KEY].state.paused
    assert live.jobs[KEY].state.next_run == 0.0


def test_restored_memories_lie_under_what_was_seen_since():
    live = Live()
    live.fold([fact("failed", 50.0)])

    live.restore({KEY: JobState(first_seen=5.0, last_run=20.0, last_success=30.0, consecutive_failures=0)})

    state = live.jobs[KEY].state
    assert (state.first_seen, state.last_success, state.last_failure, state.consecutive_failures) == (
        5.0,
        30.0,
        50.0,
        1,
    )


def test_each_reader_is_told_every_change_once():
    live = Live()
    live.fold([fact("success", 10.0)])

    assert set(live.changed("store")) == {KEY}
    assert set(live.changed("metrics")) == {KEY}
    assert live.changed("store") == {}


def test_of_jobs_that_share_a_name_the_one_that_is_due_first_counts():
    live = Live()

    live.fold(
        [
            reading(
                10.0,
                *(
                    Job(name="j", key=key, next_run=due)
                    for key, due in (("a", 30.0), ("b", 20.0), ("c", None))
                ),
            )
        ]
    )

    assert live.jobs[KEY].state.next_run == 20.0
    assert live.jobs[KEY].definition.key == "b"


def triggered(key, state, next_run=None):
    """One of the jobs that share the name `j`."""
    trigger = Trigger(key=key, state=state, schedule=f"at {next_run}", next_run=next_run)
    return Job(name="j", key=key, next_run=next_run, paused=state == "PAUSED", triggers=(trigger,))


def test_of_jobs_that_share_a_name_all_triggers_are_told_and_the_schedule_of_the_first():
    live = Live()

    live.fold([reading(10.0, triggered("a", "PAUSED"), triggered("b", "WAITING", 20.0))])

    triggers = live.jobs[KEY].definition.triggers
    assert [(trigger.key, trigger.state, trigger.schedule, trigger.next_run) for trigger in triggers] == [
        ("b", "WAITING", "at 20.0", 20.0),
        ("a", "PAUSED", "", None),
    ]


def test_of_jobs_that_share_a_name_a_bounded_number_of_triggers_is_told():
    live = Live()

    live.fold([reading(10.0, *(triggered(f"{n}", "WAITING", 20.0 + n) for n in range(3_000)))])

    assert len(live.jobs[KEY].definition.triggers) == 1_000


def test_a_reader_that_never_asks_holds_a_bounded_number_of_jobs():
    live = Live(job_ttl=1.0)

    for at in range(0, 400_000, 10_000):
        live.fold([reading(at, *(Job(name=f"{at + n}", key="k") for n in range(500))), reading(at + 1)])
        live.expire(at + 9_999)

    assert live.jobs == {}
    assert len(live.changed()) <= 10_500


def test_a_long_series_of_failures_is_counted_whole_and_remembered_in_part():
    live = Live()
    events = [fact("failed", 10.0 + n, native=str(n)) for n in range(5_000)]

    live.fold(events)
    live.fold(events[-50:])

    assert live.jobs[KEY].state.consecutive_failures == 5_000
    assert len(live.jobs[KEY].failures) == 100


def test_a_failure_older_than_the_latest_success_counts_as_none_in_a_row():
    live = Live()
    live.fold([fact("success", 50.0)])

    live.fold([fact("unknown", 40.0, native="lost", reason="lost")])
    live.fold([fact("unknown", 30.0, native="lost earlier", reason="lost")])

    state = live.jobs[KEY].state
    assert (state.last_success, state.last_failure, state.consecutive_failures) == (50.0, 40.0, 0)


def test_restored_promises_do_not_override_a_definition_made_since():
    live = Live()
    live.fold([reading(50.0, Job(name="j", key="j"))])

    live.restore({KEY: JobState(first_seen=5.0, next_run=20.0, interval=7.0, paused=True, removed=30.0)})

    assert live.jobs[KEY].state == JobState(first_seen=5.0)


def test_a_restored_job_is_alive_when_it_is_heard_of_and_until_it_is_removed():
    live = Live()
    live.restore({KEY: JobState(first_seen=5.0)})
    assert not live.alive(KEY)

    live.fold([fact("started", 10.0)])
    assert live.alive(KEY)

    live.fold([reading(20.0)])
    assert not live.alive(KEY)


def test_an_abnormal_trigger_is_so_since_the_first_of_the_readings_that_say_so():
    live = Live()

    def told(at, *states):
        triggers = tuple(Trigger(key=state, state=state) for state in states)
        live.fold([reading(at, Job(name="j", key="j", triggers=triggers))])
        return live.jobs[KEY].abnormal

    assert told(10.0, "WAITING", "ERROR") == {"ERROR": 10.0}
    assert told(20.0, "BLOCKED", "ERROR") == {"BLOCKED": 20.0, "ERROR": 10.0}
    assert told(30.0, "BLOCKED") == {"BLOCKED": 20.0}
    assert told(40.0, "ERROR") == {"ERROR": 40.0}

    live.fold([reading(50.0)])
    assert live.jobs[KEY].abnormal == {}


def test_a_job_of_a_scheduler_that_is_down_is_blocked_no_longer_than_its_runs_go_on():
    live = Live()
    down = SchedulerState(scheduler="s", system="x", at=20.0, up=False, running=False)
    states = ("EXECUTING", "BLOCKED", "ERROR", "PAUSED")
    triggers = tuple(Trigger(key=state, state=state) for state in states)
    busy, other = (Job(name=name, key=name, triggers=triggers) for name in ("j", "k"))
    live.fold([fact("started", 9.0), reading(10.0, busy), Jobs(scheduler="t", at=10.0, jobs=(other,))])

    live.fold([down])
    assert live.jobs[KEY].abnormal == {"BLOCKED": 10.0, "ERROR": 10.0}, "it still runs"
    live.changed()
    live.fold([fact("success", 21.0), down])

    told = [trigger.state for trigger in live.jobs[KEY].definition.triggers]
    assert told == ["WAITING", "WAITING", "ERROR", "PAUSED"]
    assert live.jobs[KEY].abnormal == {"ERROR": 10.0}
    assert set(live.changed()) == {KEY}
    assert live.jobs["t", "k"].definition == other, "its scheduler is not down"


def test_of_a_scheduler_that_is_watched_no_more_nothing_is_left_but_what_its_jobs_remember():
    live = Live()
    live.fold([fact("success", 10.0), reading(10.0, Job(name="j", key="j", next_run=99.0))])
    for scheduler in ("s", "other"):
        live.fold(
            [
                SchedulerState(scheduler=scheduler, system="x", at=10.0, up=True, running=True),
                QueueState(scheduler=scheduler, queue="q", at=10.0, ready=1),
                WorkerState(scheduler=scheduler, worker="w", at=10.0),
            ]
        )
    live.fold([Departure(scheduler="s", at=20.0)])

    assert set(live.schedulers) == {"other"}
    assert set(live.queues) == {("other", "q")}
    assert set(live.workers) == {("other", "w")}
    assert (live.read_at, live.departed) == ({}, {"s"})
    state = live.jobs[KEY].state
    assert (state.removed, state.next_run, state.last_success) == (20.0, 0.0, 10.0)

    live.fold([SchedulerState(scheduler="s", system="x", at=30.0, up=True, running=True)])
    assert live.departed == set()


def test_a_run_that_ends_under_another_name_is_no_more_in_progress_under_the_first():
    live = Live()
    live.fold([fact("started", 10.0)])
    live.recall()
    live.changed()

    live.fold([Fact(scheduler="s", native="n", status="success", at=20.0, job="renamed")])

    assert live.jobs[KEY].running == {}
    assert set(live.changed()) == {KEY, ("s", "renamed")}


def test_a_job_that_is_ignored_from_now_on_leaves_although_its_run_never_ends():
    live = Live(job_ttl=60.0)
    live.fold([fact("started", 10.0), reading(10.0, Job(name="j", key="j"))])
    live.recall()
    live.fold([reading(20.0)])

    live.expire(90.0)


def defined(at, next_run):
    return Defined(scheduler="s", at=at, job=Job(name="j", key="j", next_run=next_run))


def test_a_definition_of_one_job_says_nothing_of_others():
    live = Live()

    live.fold([defined(10.0, 20.0), fact("success", 12.0), fact("success", 12.0, native="o")])
    live.fold([Defined(scheduler="s", at=15.0, job=Job(name="other", key="o"))])

    assert live.jobs[KEY].state.next_run == 20.0
    assert live.jobs[KEY].state.removed == 0


def test_a_definition_that_comes_late_changes_nothing():
    live = Live()

    live.fold([defined(30.0, 40.0), defined(10.0, 20.0)])
    assert live.jobs[KEY].state.next_run == 40.0

    live.fold([defined(50.0, 45.0)])
    assert live.jobs[KEY].state.next_run == 45.0, "a newer one may promise less"


def test_a_definition_older_than_a_run_that_is_remembered_changes_nothing():
    live = Live()
    live.restore({KEY: JobState(first_seen=1.0, last_run=30.0, next_run=40.0)})

    live.fold([defined(10.0, 20.0)])

    assert live.jobs[KEY].state.next_run == 40.0


def test_a_reading_that_comes_late_brings_no_removed_job_back():
    live = Live()
    late = Jobs(scheduler="s", at=10.0, jobs=(Job(name="j", key="1"),))
    live.fold([late, Removed(scheduler="s", at=15.0, job="j"), late])
    assert live.jobs[KEY].state.removed == 15.0

    live.fold([Jobs(scheduler="s", at=16.0, jobs=(Job(name="j", key="1"),))])
    assert live.jobs[KEY].state.removed == 0


def test_a_job_that_is_removed_by_hand_leaves_and_comes_back_with_its_next_run():
    live = Live(job_ttl=60.0)
    removed = Removed(scheduler="s", at=15.0, job="j")
    live.fold([defined(10.0, 20.0), removed, removed, defined(12.0, 20.0)])

    assert (live.jobs[KEY].state.removed, live.jobs[KEY].state.next_run) == (15.0, 0.0)
    live.fold([defined(30.0, 40.0), removed])
    assert (live.jobs[KEY].state.removed, live.jobs[KEY].state.next_run) == (0.0, 40.0)
    live.fold([Removed(scheduler="s", at=50.0, job="j"), Removed(scheduler="s", at=50.0, job="unknown")])
    live.expire(111.0)
    assert live.jobs == {}


def test_a_run_is_queued_in_its_queue_until_it_starts_ends_or_is_taken_by_a_process():
    live = Live()
    live.fold([fact("queued", 10.0, native=native, queue="mail") for native in "abcd"])
    live.fold([fact("queued", 10.0, native="e", queue="bulk"), fact("queued", 10.0, native="f")])
    assert live.queued.count() == {("s", "mail"): 4, ("s", "bulk"): 1}

    live.fold([fact("started", 11.0, native="a"), fact("skipped", 11.0, native="b", reason="expired")])
    live.fold([msgspec.structs.replace(fact("success", 11.0, native="e"), job="")])
    live.fold([fact("queued", 11.0, native="c", queue="mail", instance="host:1:u")])
    live.fold([fact("queued", 10.0, native=native, queue="mail") for native in "ab"])  # told again, late

    assert live.queued.count() == {("s", "mail"): 1}
    assert live.queued.schedulers == {"s"}


def test_runs_of_which_no_start_is_told_are_queued_for_an_hour_after_they_were_due():
    live = Live()
    live.fold([fact("queued", 10.0, native="a", queue="mail")])
    live.fold([fact("queued", 10.0, native="b", queue="mail", due=5_000.0)])

    live.expire(3_609.0)
    assert live.queued.count() == {("s", "mail"): 2}
    live.expire(3_611.0)
    assert live.queued.count() == {("s", "mail"): 1}
    live.fold([Departure(scheduler="s", at=4_000.0)])
    assert (live.queued.count(), live.queued.schedulers) == ({}, set())


def test_a_bounded_number_of_runs_is_known_to_be_queued():
    live = Live()

    live.fold(fact("queued", 10.0, native=f"{n}", queue="mail") for n in range(20_000))

    assert live.queued.count() == {("s", "mail"): 10_000}


def test_what_a_scheduler_belongs_to_is_known_as_long_as_any_of_its_jobs():
    live = Live()
    live.fold(
        [
            SchedulerState(scheduler=name, system="x", at=10.0, up=True, running=True, labels={"a": name})
            for name in "st"
        ]
    )
    live.fold([fact("success", 10.0)])

    live.expire(100.0)

    assert live.schedulers == {}
    assert live.labels() == {"s": {"a": "s"}}
