"""Jobs that take much longer than they used to."""

from collections.abc import Iterator

from taskscope.inspection.scene import HOUR, Found, Scene
from taskscope.sinks.history.records import JobStats

_FEWEST = 5  # runs of the window, and four times as many before it
_LEAST = 1.0  # seconds by which it must be slower
_STEPS = 48


def look(scene: Scene) -> Iterator[Found]:
    """Jobs whose p95 of the window is far above that of their own past."""
    past = {_key(one): one for one in scene.queries.stats(scene.past, scene.begin, [95])[1:]}
    for now in scene.queries.stats(scene.begin, scene.end, [95])[1:]:
        before = past.get(_key(now))
        if before is None or not scene.meant(_key(now)) or not _is_known(now, before):
            continue
        p95, usual = now.percentiles["p95"], before.percentiles["p95"]
        if p95 > usual * scene.rules.slower and p95 - usual > _LEAST:
            yield _report(scene, now, p95, usual)


def _key(stats: JobStats) -> tuple[str, str]:
    return stats.scheduler, stats.job


def _is_known(now: JobStats, before: JobStats) -> bool:
    return bool(now.percentiles and before.percentiles) and now.runs >= _FEWEST and before.runs >= 4 * _FEWEST


def _report(scene: Scene, now: JobStats, p95: float, usual: float) -> Found:
    steps = scene.queries.trend(
        max(scene.past, scene.end - _STEPS * HOUR), scene.end, HOUR, [now.job], [now.scheduler], [95]
    )
    return Found(
        kind="slow_job",
        scheduler=now.scheduler,
        job=now.job,
        object=now.job,
        key="",
        level="warning",
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
