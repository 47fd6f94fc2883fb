from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from metrics_scene import Scene, counted, job

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

    del scene.live.jobs[job("a")]
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
