"""Errors that were never seen before, that came back after they had been resolved, or that come far more often."""

from collections.abc import Iterator
from typing import NamedTuple

from taskscope.inspection.scene import HOUR, Found, Scene
from taskscope.sinks.history.error_records import ErrorGroup
from taskscope.sinks.history.finding_records import Level

_MOST = 1_000  # errors that one inspection looks at: those that happened most
_FEW = 10  # occurrences below which nothing rises sharply
_STACK = 2_000  # characters of a stack that a finding shows
_STEPS = 48  # of the distribution


class _Kind(NamedTuple):
    """A reason to report an error."""

    level: Level
    title: str
    why: str


_KINDS = {
    "new_error": _Kind("warning", "A new error", "It was never seen before"),
    "regression": _Kind("critical", "A resolved error is back", "It had been resolved, and came back"),
    "error_rise": _Kind(
        "warning", "An error comes far more often", "Usually it comes {usual:.3g} times in so long"
    ),
}


def look(scene: Scene) -> Iterator[Found]:
    """New errors, regressions and sharp rises; of those found before whether they go on."""
    counts = scene.queries.error_counts(scene.begin, scene.end)
    before = scene.queries.error_counts(scene.past, scene.begin)
    often = sorted(counts, key=lambda error: (-counts[error], error))[:_MOST]
    for fingerprint in often:
        error = scene.queries.error(fingerprint)
        if error is None or error.state == "ignored" or not scene.meant((error.scheduler, error.job)):
            continue
        if scene.meant_version(error.versions):
            yield from _found(scene, error, counts[fingerprint], before.get(fingerprint, 0))


def _found(scene: Scene, error: ErrorGroup, count: int, before: int) -> Iterator[Found]:
    window = scene.end - scene.begin
    since = max(scene.past, min(error.first_seen, scene.begin))
    usual = before * window / max(scene.begin - since, window)
    regressed = error.regressed >= scene.begin
    true = {
        "new_error": not before and not regressed,
        "regression": regressed,
        "error_rise": before > 0 and not regressed and count >= max(_FEW, scene.rules.rise * usual),
    }
    for kind in _KINDS:
        subject = (kind, error.scheduler, error.job, error.fingerprint.hex())
        if true[kind] or (subject in scene.open and kind != "error_rise"):
            yield _report(scene, error, kind, count, usual, opens=true[kind])


def _report(scene: Scene, error: ErrorGroup, kind: str, count: int, usual: float, opens: bool) -> Found:
    level, title, why = _KINDS[kind]
    name = error.name or f"{error.kind}: {error.message}"[:200]
    return Found(
        kind=kind,
        scheduler=error.scheduler,
        job=error.job,
        object=name,
        key=error.fingerprint.hex(),
        level=level,
        title=f"{title} in {error.job}",
        overview=f"{name} happened {count} times. {why.format(usual=usual)}.",
        at=max(scene.begin, error.regressed if kind == "regression" else error.first_seen),
        opens=opens,
        details={
            "count": count,
            "usual": round(usual, 3),
            "place": error.place,
            "first_seen": error.first_seen,
            "last_seen": error.last_seen,
            "instances": list(error.instances),
            "versions": list(error.versions),
            "stack": error.stack[-_STACK:],
            "error": f"/api/error/{error.fingerprint.hex()}",
            "run": error.latest_run.hex(),
        },
        distribution=_distribution(scene, error),
        attributes={"exception": error.kind, "place": error.place, "version": next(iter(error.versions), "")},
    )


def _distribution(scene: Scene, error: ErrorGroup) -> tuple[tuple[int, float], ...]:
    since = max(scene.past, scene.end - _STEPS * HOUR)
    trend = scene.queries.error_trend(error.fingerprint, since, scene.end, HOUR)
    return tuple((step.at, float(step.failures + step.captured)) for step in trend)
