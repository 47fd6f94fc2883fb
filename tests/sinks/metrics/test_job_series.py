from collections.abc import Callable

import pytest
from metrics_scene import NOW, Scene, counted, job

from taskscope.admission import Admission
from taskscope.counts import Counts, Histogram, JobState
from taskscope.events import Fact, Job, Jobs, Trigger, TriggerState
from taskscope.settings import JobRule
from taskscope.sinks.metrics.jobs import CORE


def told(scene: Scene, *jobs: Job, at: float = NOW) -> None:
    """The scheduler says which jobs it has."""
    scene.live.fold([Jobs(scheduler="main", at=at, jobs=jobs)])
    scene.sync(at)


def fact(status: str, at: float, native: str = "1", **more: object) -> Fact:
    """Something happened to a run of job `a`."""
    return Fact(scheduler="main", job="a", native=native, status=status, at=at, **more)  # type: ignore[arg-type]


def test_a_known_job_has_its_core_at_once_at_0(scene: Scene) -> None:
    scene.metrics.restore({})

    scene.know("a")

    found = {
        key: sample.value for key, sample in scene.samples().items() if dict(key[1]).get("job_name") == "a"
    }
    assert len(found) == CORE == 18
    assert {name for (name, _), value in found.items() if value} == {
        "taskscope_job_first_seen_timestamp_seconds",
        "taskscope_job_info",
    }


def test_no_counter_of_a_job_is_exported_before_what_was_committed_is_known(scene: Scene) -> None:
    scene.know("a", "b")
    assert "taskscope_runs_total" not in scene.names()
    assert "taskscope_runs_in_progress" in scene.names(job_name="a")

    scene.metrics.restore({job("a"): counted(success=1_000_000)})

    assert scene.value("runs_total", scheduler="main", job_name="a", status="success") == 1_000_000
    assert scene.value("runs_total", scheduler="main", job_name="b", status="success") == 0


def test_counts_are_exported_under_status_exception_reason_and_histogram(scene: Scene) -> None:
    scene.know("a")

    scene.publish("a")

    of = {"scheduler": "main", "job_name": "a"}
    assert scene.value("runs_total", **of, status="failed") == 1
    assert scene.value("runs_total", **of, status="retried") == 0
    assert scene.value("run_failures_total", **of, exception="ValueError") == 1
    assert scene.value("runs_skipped_total", **of, reason="misfire") == 2
    assert scene.value("run_duration_seconds_bucket", **of, le="0.05") == 1
    assert scene.value("run_duration_seconds_bucket", **of, le="+Inf") == 6
    assert scene.value("run_start_delay_seconds_count", **of) == 6
    assert "taskscope_run_queue_wait_seconds_count" not in scene.names()


def test_no_number_falls_when_older_counts_come_later(scene: Scene) -> None:
    scene.publish("a", counts=counted(success=9, failed=3, duration=2.0))
    before = scene.samples()

    scene.publish("a", counts=counted(success=8, failed=2, duration=1.0))

    assert scene.samples() == before


def test_what_triggers_did_is_added_up_over_the_jobs_of_a_scheduler(scene: Scene) -> None:
    scene.publish("a", "b")
    scene.publish("a", counts=counted(success=6))
    scene.publish("a", counts=counted(success=6))

    assert scene.value("trigger_events_total", scheduler="main", event="fired") == 13
    assert scene.value("trigger_events_total", scheduler="main", event="misfired") == 4
    assert scene.value("trigger_events_total", scheduler="main", event="vetoed") == 0


def test_a_histogram_saved_under_other_bounds_waits_for_its_next_observation(scene: Scene) -> None:
    scene.metrics.restore({job("a"): Counts(histograms={"duration": Histogram(buckets=[1, 2], sum=3.0)})})
    assert "taskscope_run_duration_seconds_count" not in scene.names()

    scene.publish("a")

    assert scene.value("run_duration_seconds_count", scheduler="main", job_name="a") == 6


def test_runs_in_progress_and_memories_follow_what_is_live(scene: Scene) -> None:
    scene.live.fold([fact("started", NOW - 9, "1"), fact("started", NOW - 5, "2")])
    scene.sync()
    of = {"scheduler": "main", "job_name": "a"}
    assert scene.value("runs_in_progress", **of) == 2
    assert scene.value("run_oldest_in_progress_timestamp_seconds", **of) == NOW - 9

    scene.live.fold(
        [fact("success", NOW - 2, "1", started=NOW - 9, duration=7.0), fact("failed", NOW, "2", duration=5.0)]
    )
    scene.sync()

    assert scene.value("runs_in_progress", **of) == 0
    assert scene.value("run_oldest_in_progress_timestamp_seconds", **of) == 0
    assert scene.value("job_last_run_timestamp_seconds", **of) == NOW - 5
    assert scene.value("job_last_success_timestamp_seconds", **of) == NOW - 2
    assert scene.value("job_last_failure_timestamp_seconds", **of) == NOW
    assert scene.value("job_last_duration_seconds", **of) == 5.0
    assert scene.value("job_consecutive_failures", **of) == 1


def test_a_paused_job_has_no_next_run(scene: Scene) -> None:
    of = {"scheduler": "main", "job_name": "a"}
    told(scene, Job(name="a", key="a", next_run=NOW + 60, interval=60.0))
    assert scene.value("job_next_run_timestamp_seconds", **of) == NOW + 60
    assert scene.value("job_interval_seconds", **of) == 60

    told(scene, Job(name="a", key="a", paused=True))
    assert scene.value("job_next_run_timestamp_seconds", **of) is None
    assert scene.value("job_paused", **of) == 1

    told(scene, Job(name="a", key="a", next_run=NOW + 90))
    assert scene.value("job_next_run_timestamp_seconds", **of) == NOW + 90
    assert scene.value("job_paused", **of) == 0


def test_a_rescheduled_job_has_one_info_with_its_new_schedule(scene: Scene) -> None:
    for schedule in ("interval[0:00:05]", "cron[hour='3']"):
        trigger = Trigger(key="t", state="WAITING", schedule=schedule, timezone="UTC")
        told(scene, Job(name="a", key="a", queue="default", triggers=(trigger,)))

    infos = [dict(labels) for name, labels in scene.samples() if name == "taskscope_job_info"]
    wanted = {"schedule": "cron[hour='3']", "timezone": "UTC", "queue": "default", "team": "", "severity": ""}
    assert infos == [{"scheduler": "main", "job_name": "a", **wanted}]


def test_a_job_that_nobody_defines_has_the_queue_of_its_first_run_until_somebody_does(scene: Scene) -> None:
    def queues() -> list[str]:
        return [dict(labels)["queue"] for name, labels in scene.samples() if name == "taskscope_job_info"]

    for at, queue in enumerate(("", "mail", "bulk"), 1):
        scene.live.fold([fact("success", NOW + at, str(at), queue=queue)])
        scene.sync(NOW + at)
        assert queues() == ["mail" if queue else ""]

    told(scene, Job(name="a", key="a", queue="defined"))
    assert queues() == ["defined"]


def test_the_settings_of_a_job_become_info_and_limits(new_scene: Callable[..., Scene]) -> None:
    rules = (
        JobRule(match="main/night*", team="data", severity="critical", grace=60.0, expect_every=90_000.0),
        JobRule(match="*", team="nobody", max_duration=5.0),
    )
    scene = new_scene(jobs=rules)

    scene.know("nightly", "other")

    night = {"scheduler": "main", "job_name": "nightly"}
    assert scene.value("job_limit_seconds", **night, limit="grace") == 60
    assert scene.value("job_limit_seconds", **night, limit="max_silence") == 90_000
    assert scene.value("job_limit_seconds", **night, limit="max_duration") is None
    assert scene.value("job_limit_seconds", scheduler="main", job_name="other", limit="max_duration") == 5
    assert "taskscope_job_info" in scene.names(job_name="nightly", team="data", severity="critical")


def test_a_rule_that_renames_jobs_says_the_rest_of_their_new_name(new_scene: Callable[..., Scene]) -> None:
    rule = JobRule(match="shop-*", name="shops", team="t", severity="critical", max_duration=600.0)
    scene = new_scene(jobs=(rule,))
    reading = Jobs(scheduler="main", at=NOW, jobs=(Job(name="shop-1", key="1"), Job(name="shop-2", key="2")))

    scene.live.fold([Admission(scene.settings).admit(reading, NOW)])
    scene.sync()

    assert "taskscope_job_info" in scene.names(job_name="shops", team="t", severity="critical")
    assert scene.value("job_limit_seconds", scheduler="main", job_name="shops", limit="max_duration") == 600


def test_all_series_of_a_job_leave_with_it(scene: Scene) -> None:
    told(scene, Job(name="a", key="a"), Job(name="b", key="b"))
    scene.publish("a", "b")
    told(scene, Job(name="b", key="b"), at=NOW + 1)
    assert scene.names(job_name="a")

    scene.live.expire(NOW + 2 + scene.settings.job_ttl)
    scene.sync(NOW + 2)

    assert scene.names(job_name="a") == set()
    assert "taskscope_run_duration_seconds_count" in scene.names(job_name="b")
    assert scene.value("trigger_events_total", scheduler="main", event="fired") == 12


def test_a_job_that_comes_back_goes_on_where_it_was(scene: Scene) -> None:
    scene.know("a")
    scene.publish("a")
    scene.lose("a")
    scene.sync()
    assert scene.names(job_name="a") == set()

    scene.know("a")
    assert scene.value("runs_total", scheduler="main", job_name="a", status="success") == 5
    scene.publish("a", counts=counted(success=6))

    assert scene.value("runs_total", scheduler="main", job_name="a", status="success") == 6
    assert scene.value("trigger_events_total", scheduler="main", event="fired") == 7
    assert scene.value("run_duration_seconds_count", scheduler="main", job_name="a") == 7


def test_what_the_triggers_of_a_job_did_is_added_once_when_counts_bring_it_back(scene: Scene) -> None:
    scene.know("a")
    scene.publish("a")
    scene.lose("a")
    scene.sync()

    for success in (6, 7):
        scene.live.fold([fact("success", NOW, native=f"{success}")])
        scene.publish("a", counts=counted(success=success))
        scene.sync()

    assert scene.value("trigger_events_total", scheduler="main", event="fired") == 8


def test_a_job_that_comes_back_has_its_histograms_exceptions_and_reasons_at_once(scene: Scene) -> None:
    scene.know("a")
    scene.publish("a")
    before = scene.samples()
    scene.lose("a")
    scene.sync()

    scene.know("a")

    ours = {key for key in before if dict(key[1]).get("job_name") == "a"}
    assert {key: scene.samples()[key].value for key in ours} == {key: before[key].value for key in ours}


def test_a_forgotten_job_that_comes_back_adds_nothing_twice_and_jumps_from_no_0(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskscope.sinks.metrics.jobs._REMEMBERED", 2)
    names = ["a", "b", "c", "d"]
    scene.know(*names)
    scene.publish(*names)
    for name in names:
        scene.lose(name)
        scene.sync()

    scene.know("a")
    assert "taskscope_runs_total" not in scene.names(job_name="a")
    scene.publish("a", counts=counted(success=6))

    assert scene.value("runs_total", scheduler="main", job_name="a", status="success") == 6
    assert scene.value("trigger_events_total", scheduler="main", event="fired") == 25


def test_no_more_is_counted_of_triggers_than_happened_however_many_jobs_are_forgotten(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskscope.sinks.metrics.jobs._HEARD", 2)
    scene.publish("a", "b", "c")

    scene.publish("a")
    scene.publish("a", counts=counted(success=6))

    assert scene.value("trigger_events_total", scheduler="main", event="fired") == 19


def test_a_trigger_in_a_wrong_state_is_told_with_its_beginning_until_it_is_right(scene: Scene) -> None:
    of = {"scheduler": "main", "job_name": "a"}

    def since(state: str) -> float | None:
        return scene.value("trigger_abnormal_since_timestamp_seconds", **of, state=state)

    def job_in(*states: TriggerState) -> Job:
        triggers = tuple(Trigger(key=state, state=state) for state in states)
        return Job(name="a", key="a", triggers=triggers)

    for _ in range(3):
        told(scene, job_in("WAITING"))
        assert "taskscope_trigger_abnormal_since_timestamp_seconds" not in scene.names()
        quiet = scene.metrics._guard.used

        told(scene, job_in("ERROR", "BLOCKED"), at=NOW + 1)
        told(scene, job_in("ERROR"), at=NOW + 2)

        assert (since("ERROR"), since("BLOCKED")) == (NOW + 1, None)
        assert scene.metrics._guard.used == quiet + 1


def test_counts_of_a_job_that_is_no_longer_known_leave_with_the_next_sync(scene: Scene) -> None:
    scene.metrics.restore({job("gone"): counted(), job("here"): counted()})

    scene.know("here")

    assert scene.names(job_name="gone") == set()
    assert scene.value("trigger_events_total", scheduler="main", event="fired") == 12


def test_ten_thousand_jobs_that_came_and_went_leave_no_series(new_scene: Callable[..., Scene]) -> None:
    scene = new_scene(job_budget=100)
    empty = len(scene.page())
    for batch in range(100):
        names = [f"job {batch}-{number}" for number in range(100)]
        scene.live.restore({job(name): JobState(first_seen=NOW) for name in names})
        scene.sync()
        scene.publish(*names)
        scene.lose(*names)
        scene.sync()

    assert scene.names(scheduler="main") == {"taskscope_trigger_events_total"}
    assert len(scene.page()) < empty + 500
    assert scene.value("series") == 0
    assert scene.value("trigger_events_total", scheduler="main", event="fired") == 60_000


@pytest.mark.parametrize("late", [False, True])
def test_the_first_page_after_a_restart_has_no_counter_below_the_last(scene: Scene, late: bool) -> None:
    if late:
        scene.know("a")
        scene.page()

    scene.metrics.restore({job("a"): counted(success=1_000_000)})
    scene.know("a")

    assert scene.value("runs_total", scheduler="main", job_name="a", status="success") == 1_000_000
