"""Errors that were never seen before, that came back after they had been resolved, or that come far more often."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from taskscope.identity import text
from taskscope.inspection.scene import DAY, HOUR, Found, Scene
from taskscope.sinks.history.error_records import ErrorGroup
from taskscope.sinks.history.finding_records import Level

_MOST = 500  # errors that one inspection reports: those that are open, and those that happened most
_READ = 10_000  # groups that are looked at
_LATE = HOUR  # so late may be told of what happened before the window, and is found all the same
_FEW = 10  # occurrences below which nothing rises sharply
_STACK = 2_000  # characters of a stack that a finding shows


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One error, and how often it happened."""

    error: ErrorGroup
    count: int
    """In the window."""
    before: int
    """In the past that it is compared with."""
    usual: float
    """So often it happens in as long a time."""

    @property
    def job(self) -> tuple[str, str]:
        """Whose it is."""
        return self.error.scheduler, self.error.job

    @property
    def key(self) -> str:
        """Its fingerprint."""
        return self.error.fingerprint.hex()


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
    reports = [(kind, seen, at) for seen in _seen(scene) for kind, at in _true(scene, seen)]
    reports.sort(key=lambda one: (scene.open(one[0], one[1].job, one[1].key) is None, -one[1].count))
    for kind, seen, at in reports[:_MOST]:
        yield _report(scene, seen, kind, at)


def _seen(scene: Scene) -> Iterator[Seen]:
    """The errors that the inspection looks at and that were seen lately."""
    past = scene.past(scene.queries.kept_errors)
    counts = scene.queries.error_counts(scene.begin, scene.end)
    before = scene.queries.error_counts(past, scene.begin)
    for error in scene.queries.errors_seen(scene.begin - _LATE, scene.end, _READ):
        if _is_meant(scene, error):
            count, earlier = (of.get(error.fingerprint, 0) for of in (counts, before))
            yield Seen(error=error, count=count, before=earlier, usual=_usual(scene, error, past, earlier))


def _is_meant(scene: Scene, error: ErrorGroup) -> bool:
    job = (error.scheduler, error.job)
    return error.state != "ignored" and scene.meant(job) and scene.meant_version(error.versions)


def _usual(scene: Scene, error: ErrorGroup, past: int, before: int) -> float:
    """How often it comes in so long a time; a rise that goes on is compared with what was before it began."""
    until = scene.begin
    rise = scene.open("error_rise", (error.scheduler, error.job), error.fingerprint.hex())
    if rise is not None:
        until = max(past, min(until, rise.started))
        steps = scene.queries.error_trend(error.fingerprint, past, until, DAY) if until > past else []
        before = sum(step.failures + step.captured for step in steps)
    window, since = scene.end - scene.begin, max(past, min(error.first_seen, until))
    return before * window / max(until - since, window)


def _true(scene: Scene, seen: Seen) -> Iterator[tuple[str, int]]:
    """What there is to be said of it, and since when that is so."""
    known = {kind: scene.open(kind, seen.job, seen.key) for kind in _KINDS}
    began = _began(scene, seen)
    goes_on = seen.error.last_seen >= scene.begin
    for kind in ("new_error", "regression"):
        if kind in began or (goes_on and known[kind]):
            yield kind, began.get(kind, scene.begin)
    if seen.before and not began and seen.count >= max(_FEW, scene.rules.rise * seen.usual):
        yield "error_rise", scene.begin


def _began(scene: Scene, seen: Seen) -> dict[str, int]:
    """What began in the window, or was told too late for the one before."""
    error = seen.error
    if _is_fresh(scene, seen, "regression", error.regressed):
        return {"regression": error.regressed}
    if _is_fresh(scene, seen, "new_error", error.first_seen):
        return {"new_error": error.first_seen}
    if seen.count and not seen.before and error.first_seen < scene.begin - _LATE:
        return {"new_error": scene.begin}  # older than what is looked back at
    return {}


def _is_fresh(scene: Scene, seen: Seen, kind: str, at: int) -> bool:
    return at >= scene.begin - _LATE and not scene.is_told(kind, seen.job, seen.key, at)


def _report(scene: Scene, seen: Seen, kind: str, at: int) -> Found:
    error = scene.queries.error(seen.error.fingerprint) or seen.error  # with its stack
    level, title, _ = _KINDS[kind]
    name = error.name or ": ".join(filter(None, (error.kind, error.message)))[:200]
    count = max(seen.count, 1)
    return Found(
        kind=kind,
        scheduler=error.scheduler,
        job=error.job,
        object=name,
        key=seen.key,
        level=level,
        title=f"{title} in {error.job}",
        overview=f"{name} happened {'once' if count == 1 else f'{count} times'}. {_why(scene, seen, kind)}.",
        at=at,
        details=_details(error, count, seen.usual),
        distribution=_distribution(scene, error),
        attributes={"exception": error.kind, "place": error.place, "version": next(iter(error.versions), "")},
    )


def _why(scene: Scene, seen: Seen, kind: str) -> str:
    """Of what goes on, it is true no more that it was never seen."""
    known, error = scene.open(kind, seen.job, seen.key), seen.error
    if kind == "new_error" and known is not None:
        return f"It is new since {datetime.fromtimestamp(known.started / 1000, UTC):%Y-%m-%d %H:%M} UTC"
    if kind == "new_error" and error.first_seen < scene.begin - _LATE:
        hours = (scene.begin - scene.past(scene.queries.kept_errors)) / HOUR
        return f"It was not seen in the {hours:g} h before"
    return _KINDS[kind].why.format(usual=seen.usual)


def _details(error: ErrorGroup, count: int, usual: float) -> dict[str, object]:
    return {
        "count": count,
        "usual": round(usual, 3),
        "place": error.place,
        "first_seen": error.first_seen,
        "last_seen": error.last_seen,
        "instances": list(error.instances),
        "versions": list(error.versions),
        "stack": error.stack[-_STACK:],
        "error": f"/api/error/{error.fingerprint.hex()}",
        "run": text(error.latest_run),
    }


def _distribution(scene: Scene, error: ErrorGroup) -> tuple[tuple[int, float], ...]:
    trend = scene.queries.error_trend(error.fingerprint, scene.shown, scene.end, scene.step)
    return tuple((step.at, float(step.failures + step.captured)) for step in trend)
