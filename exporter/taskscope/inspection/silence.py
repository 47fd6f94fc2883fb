"""Jobs that ran regularly and do not run any more."""

from collections.abc import Iterator

from taskscope.counts import JobState
from taskscope.events import JobKey
from taskscope.inspection.scene import HOUR, Found, Scene
from taskscope.sinks.history.finding_records import Finding
from taskscope.sinks.history.records import Filter

_PAST = 30 * 86_400.0  # seconds that are looked back, unless `look_back` says otherwise
_REGULAR = 5  # runs of the past that make a job one that runs regularly
_GAPS = 3.0  # usual gaps without a run


def look(scene: Scene) -> Iterator[Found]:
    """Jobs that are neither paused nor removed and whose last run is several of their usual gaps ago."""
    past = scene.past(_PAST)
    ran = {(one.scheduler, one.job): one.runs for one in scene.queries.stats(past, scene.end, [])[1:]}
    for key, state in scene.jobs.items():
        if state.last_run and not state.paused and not state.removed and scene.meant(key):
            known, last = scene.open("silence", key), round(state.last_run * 1000)
            if known is not None and known.started == last:
                yield _still(scene, known)
            elif known is None and ran.get(key, 0) >= _REGULAR:
                yield from _found(scene, key, state, ran[key], past)


def _found(scene: Scene, key: JobKey, state: JobState, runs: int, past: int) -> Iterator[Found]:
    last, since = round(state.last_run * 1000), max(past, round(state.first_seen * 1000))
    gap = max((last - since) / (runs - 1), state.interval * 1000)
    # What happened while taskscope was not there, nobody knows, and while it is paused a job is not meant to run.
    silent = scene.end - max(last, scene.watched, scene.resumed.get(key, 0))
    if silent > max(_GAPS * gap, scene.end - scene.begin) and not _is_running(scene, key):
        yield _report(scene, key, last, gap, runs)


def _is_running(scene: Scene, key: JobKey) -> bool:
    """Of a run that takes long nobody expects the next one."""
    running = Filter(status=("started",), scheduler=(key[0],), job=(key[1],))
    return bool(scene.queries.runs(running, limit=1).runs)


def _report(scene: Scene, key: JobKey, last: int, gap: float, runs: int) -> Found:
    scheduler, name = key
    since = max(0, last - HOUR // 2 * 48)
    steps = scene.queries.trend(since // HOUR * HOUR, scene.end, HOUR, [name], [scheduler])
    return Found(
        kind="silence",
        scheduler=scheduler,
        job=name,
        object=name,
        title=f"{name} is silent",
        overview=_overview(scene, last, gap, runs),
        at=last,
        details={"last_run": last, "usual_gap_seconds": round(gap / 1000, 1), "runs_before": runs},
        distribution=tuple((step.at, float(sum(step.statuses.values()))) for step in steps),
    )


def _still(scene: Scene, known: Finding) -> Found:
    gap, runs = known.details["usual_gap_seconds"] * 1000, known.details["runs_before"]
    return Found(
        kind=known.kind,
        scheduler=known.scheduler,
        job=known.job,
        object=known.object,
        title=known.title,
        overview=_overview(scene, known.started, gap, runs),
        at=known.started,
        details=known.details,
        distribution=known.distribution,
    )


def _overview(scene: Scene, last: int, gap: float, runs: int) -> str:
    hours = (scene.end - last) / HOUR
    return f"It has not run for {hours:.3g} h, and used to run every {gap / HOUR:.3g} h ({runs} runs)."
