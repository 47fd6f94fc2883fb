from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from metrics_scene import NOW, Scene, counted, job

from taskscope.counts import JobState
from taskscope.events import Fact, Job, Jobs
from taskscope.sinks.metrics.guard import Guard
from taskscope.sinks.metrics.jobs import CORE


def run_series(scene: Scene) -> int:
    """How many series of jobs the page has."""
    return sum("job_name" in dict(labels) for _, labels in scene.samples())


def test_beyond_the_job_budget_new_jobs_are_counted_as_other(new_scene: Callable[..., Scene]) -> None:
    scene = new_scene(job_budget=2)
    scene.know("a", "b")

    labels = [scene.metrics.label(job(name)) for name in ("a", "b", "c", "d")]

    assert labels == [job("a"), job("b"), job("_other"), job("_other")]
    assert scene.value("series_limited_total", metric="runs_total") == 2


def test_other_has_counters_and_no_gauges(new_scene: Callable[..., Scene]) -> None:
    scene = new_scene(job_budget=1)
    scene.know("a", "b")
    scene.metrics.label(job("b"))

    scene.publish("_other")
    scene.know("c")

    assert scene.value("runs_total", scheduler="main", job_name="_other", status="success") == 5
    assert "taskscope_run_duration_seconds_count" in scene.names(job_name="_other")
    assert "taskscope_runs_in_progress" not in scene.names(job_name="_other")
    assert scene.names(job_name="b") == scene.names(job_name="c") == set()


def test_histograms_and_exceptions_are_left_out_before_the_counters_of_new_jobs(
    new_scene: Callable[..., Scene],
) -> None:
    scene = new_scene(series_budget=200, job_budget=9)
    names = [f"job {number}" for number in range(9)]
    for name in names:
        scene.know(*names)
        scene.publish(name)

    assert run_series(scene) <= 200
    assert all("taskscope_runs_total" in scene.names(job_name=name) for name in names)
    with_histogram = [
        name for name in names if "taskscope_run_duration_seconds_count" in scene.names(job_name=name)
    ]
    assert 0 < len(with_histogram) < 9
    assert (scene.value("series_limited_total", metric="run_duration_seconds") or 0) > 0
    assert scene.value("series_limited_total", metric="runs_total") == 0


def test_a_job_that_leaves_makes_room_for_the_next(new_scene: Callable[..., Scene]) -> None:
    scene = new_scene(job_budget=1)
    scene.know("a")
    assert scene.metrics.label(job("b")) == job("_other")

    scene.lose("a")
    scene.know("b")

    assert scene.metrics.label(job("b")) == job("b")
    assert scene.names(job_name="b")


def test_restored_counts_beyond_the_budget_are_not_exported(new_scene: Callable[..., Scene]) -> None:
    scene = new_scene(job_budget=3)

    scene.metrics.restore({job(f"job {number}"): counted() for number in range(10)})

    names = {dict(labels)["job_name"] for name, labels in scene.samples() if name == "taskscope_runs_total"}
    assert names == {"job 0", "job 1", "job 2"}


def test_a_job_that_found_no_room_goes_on_from_its_committed_counts_when_there_is_some(
    new_scene: Callable[..., Scene],
) -> None:
    scene = new_scene(job_budget=1)
    scene.metrics.restore({job("a"): counted(), job("b"): counted(success=1_000)})

    scene.know("b")

    assert scene.value("runs_total", scheduler="main", job_name="b", status="success") == 1_000


def told(scene: Scene, at: float, *names: str) -> None:
    """The scheduler has these jobs."""
    scene.live.fold([Jobs(scheduler="main", at=at, jobs=tuple(Job(name=name, key=name) for name in names))])


def test_a_living_job_is_counted_under_its_name_before_the_next_sync(new_scene: Callable[..., Scene]) -> None:
    scene = new_scene(job_budget=2)
    told(scene, NOW, "a", "b")
    scene.sync()

    told(scene, NOW + 1, "a", "c")

    assert scene.metrics.label(job("c")) == job("c")
    assert scene.metrics.label(job("d")) == job("_other"), "nobody heard of it"
    assert scene.metrics.label(job("a")) == job("a")
    assert scene.names(job_name="b") == set()


def test_a_removed_job_keeps_its_series_while_there_is_room(new_scene: Callable[..., Scene]) -> None:
    scene = new_scene(job_budget=3)
    told(scene, NOW, "a", "b")
    scene.sync()

    told(scene, NOW + 1, "a", "c")
    scene.sync(NOW + 1)

    assert scene.names(job_name="b") == scene.names(job_name="c") != set()


def test_after_a_restart_living_jobs_have_their_series_whatever_else_is_remembered(
    new_scene: Callable[..., Scene],
) -> None:
    scene = new_scene(job_budget=10)
    remembered = [f"a {number}" for number in range(10_500)]  # their names come first
    scene.live.restore({job(name): JobState(first_seen=1.0) for name in [*remembered[:30], "y", "z"]})
    scene.metrics.restore({job(name): counted(success=77) for name in [*remembered, "y", "z"]})
    scene.sync()

    told(scene, NOW, "y", "z")
    scene.sync()

    of = {"scheduler": "main", "job_name": "y"}
    assert scene.value("runs_total", **of, status="success") == 77
    assert scene.value("run_failures_total", **of, exception="ValueError") == 1
    assert scene.value("run_duration_seconds_count", **of) == 78
    assert scene.names(job_name="y") == scene.names(job_name="z")
    assert scene.value("trigger_events_total", scheduler="main", event="fired") == 10_502 * 78


def test_a_run_makes_a_remembered_job_a_living_one(new_scene: Callable[..., Scene]) -> None:
    scene = new_scene(job_budget=1)
    scene.know("a", "b")
    assert scene.names(job_name="a")

    scene.live.fold([Fact(scheduler="main", job="b", native="1", status="started", at=NOW)])

    assert scene.metrics.label(job("b")) == job("b")
    scene.sync()
    assert scene.value("runs_in_progress", scheduler="main", job_name="b") == 1


def test_what_is_beyond_the_core_of_jobs_that_are_gone_makes_room_for_that_of_living_ones(
    new_scene: Callable[..., Scene],
) -> None:
    scene = new_scene(series_budget=130, job_budget=4)
    told(scene, NOW, "a", "b", "c")
    scene.sync()
    scene.publish("a", "b", "c")
    scene.sync()
    assert "taskscope_run_duration_seconds_count" not in scene.names(job_name="c")

    told(scene, NOW + 1, "c")
    scene.publish("c", counts=counted(success=6))
    scene.sync(NOW + 1)

    assert "taskscope_run_duration_seconds_count" in scene.names(job_name="c")
    assert "taskscope_runs_total" in scene.names(job_name="a")
    assert run_series(scene) == scene.value("series") <= 130


def test_the_number_of_series_is_that_of_the_page(scene: Scene) -> None:
    scene.know("a", "b")
    scene.publish("a", "b")
    scene.sync()

    assert scene.value("series") == run_series(scene)


steps = st.lists(
    st.tuples(st.sampled_from(["admit", "extend", "leave"]), st.integers(0, 9), st.integers(1, 40)),
    max_size=200,
)


@given(steps, st.integers(1, 400), st.integers(1, 12))
def test_the_guard_never_gives_more_than_the_budget(
    steps: list[tuple[str, int, int]], series: int, jobs: int
) -> None:
    guard = Guard(series, jobs, CORE)
    for step, number, amount in steps:
        getattr(guard, step)(job(f"{number}"), *([amount] if step == "extend" else []))
        assert guard.used <= series
        assert len(guard.jobs()) <= jobs

    for key in guard.jobs():
        guard.leave(key)
    assert guard.used == 0
