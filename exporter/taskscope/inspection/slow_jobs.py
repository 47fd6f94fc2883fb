"""Jobs that take much longer than they used to."""

from collections.abc import Iterator

from taskscope.events import JobKey
from taskscope.inspection.scene import Found, Scene
from taskscope.sinks.history.records import JobStats

_PAST = 7 * 86_400.0  # seconds that are looked back, unless `look_back` says otherwise
_FEWEST = 5  # runs of the window, and four times as many before it
_LEAST = 1.0  # seconds by which it must be slower


def look(scene: Scene) -> Iterator[Found]:
    """Jobs whose p95 of the window is far above that of their own past."""
    past = _stats(scene, scene.past(_PAST), scene.begin)
    for key, now in _stats(scene, scene.begin, scene.end).items():
        if scene.meant(key) and now.percentiles and now.runs >= _FEWEST:
            before = _before(scene, key, past)
            if before is not None:
                yield from _found(scene, now, before)


def _stats(scene: Scene, since: int, until: int, *only: JobKey) -> dict[JobKey, JobStats]:
    jobs, schedulers = [job for _, job in only], [scheduler for scheduler, _ in only]
    found = scene.queries.stats(since, until, [95], jobs, schedulers)[1:]
    return {(one.scheduler, one.job): one for one in found}


def _before(scene: Scene, key: JobKey, past: dict[JobKey, JobStats]) -> JobStats | None:
    """Its own past; of one that is slow already, what was before: or what lasts would be usual soon."""
    slow = scene.open("slow_job", key)
    since = scene.past(_PAST)
    before = past.get(key)
    if slow is not None and slow.started > since:
        before = _stats(scene, since, slow.started, key).get(key)
    if before is None or not before.percentiles or before.runs < 4 * _FEWEST:
        return None
    return before


def _found(scene: Scene, now: JobStats, before: JobStats) -> Iterator[Found]:
    p95, usual = now.percentiles["p95"], before.percentiles["p95"]
    if p95 > usual * scene.rules.slower and p95 - usual > _LEAST:
        yield _report(scene, now, p95, usual)


def _report(scene: Scene, now: JobStats, p95: float, usual: float) -> Found:
    steps = scene.queries.trend(scene.shown, scene.end, scene.step, [now.job], [now.scheduler], [95])
    return Found(
        kind="slow_job",
        scheduler=now.scheduler,
        job=now.job,
        object=now.job,
        title=f"{now.job} is slow",
        overview=f"95 % of its {now.runs} runs took up to {p95:.3g} s; before it was {usual:.3g} s.",
        at=scene.begin,
        details={
            "p95_seconds": round(p95, 3),
            "usual_seconds": round(usual, 3),
            "runs": now.runs,
            "max_seconds": now.max,
        },
        distribution=tuple((step.at, round(step.percentiles.get("p95", 0.0), 3)) for step in steps),
    )
