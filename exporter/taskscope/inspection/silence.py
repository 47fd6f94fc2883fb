"""Jobs that ran regularly and do not run any more."""

from collections.abc import Iterator

from taskscope.events import JobKey
from taskscope.inspection.scene import HOUR, Found, Scene
from taskscope.live import LiveJob

_REGULAR = 10  # runs of the past that make a job one that runs regularly
_GAPS = 3.0  # usual gaps without a run
_STEPS = 168


def look(scene: Scene) -> Iterator[Found]:
    """Jobs that are neither paused nor removed and whose last run is several of their usual gaps ago."""
    ran = {(one.scheduler, one.job): one.runs for one in scene.queries.stats(scene.past, scene.end, [])[1:]}
    for key, runs in ran.items():
        job = scene.jobs.get(key)
        if runs >= _REGULAR and job is not None and scene.meant(key) and _is_expected(job):
            yield from _found(scene, key, job, runs)


def _is_expected(job: LiveJob) -> bool:
    return not (job.state.paused or job.state.removed or job.running) and job.state.last_run > 0


def _found(scene: Scene, key: JobKey, job: LiveJob, runs: int) -> Iterator[Found]:
    last = round(job.state.last_run * 1000)
    since = max(scene.past, round(job.state.first_seen * 1000))
    gap = max((last - since) / runs, job.state.interval * 1000)
    if last > since and scene.end - last > max(_GAPS * gap, scene.end - scene.begin):
        yield _report(scene, key, last, gap, runs)


def _report(scene: Scene, key: JobKey, last: int, gap: float, runs: int) -> Found:
    scheduler, name = key
    hours = (scene.end - last) / HOUR
    steps = scene.queries.trend(
        max(scene.past, scene.end - _STEPS * HOUR), scene.end, HOUR, [name], [scheduler]
    )
    return Found(
        kind="silence",
        scheduler=scheduler,
        job=name,
        object=name,
        key="",
        level="warning",
        title=f"{name} is silent",
        overview=f"It has not run for {hours:.3g} h, and used to run every {gap / HOUR:.3g} h ({runs} runs).",
        at=last,
        details={"last_run": last, "usual_gap_seconds": round(gap / 1000, 1), "runs_before": runs},
        distribution=tuple((step.at, float(sum(step.statuses.values()))) for step in steps),
    )
