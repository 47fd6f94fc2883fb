"""Jobs that ran regularly and do not run any more."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from statistics import median_low

import msgspec

from taskscope.counts import JobState
from taskscope.events import JobKey
from taskscope.inspection.scene import DAY, HOUR, Found, Scene
from taskscope.sinks.history.finding_records import Finding
from taskscope.sinks.history.records import Filter

_PAST = 30 * 86_400.0  # seconds that are looked back, unless `look_back` says otherwise
_REGULAR = 5  # hours, or days, in which a job ran that make it one that runs regularly
_EVEN = 3  # usual gaps that no gap of a regular job exceeds: from Friday to Monday are three days
_MOST = 0.9  # of the gaps that have to be so, of a job that has long been known
_LONG = 14 * DAY  # in so long a time what is usual came twice: a weekend did, an outage did not
_MORE = 2  # usual gaps without a run, after the longest one


class Rhythm(msgspec.Struct, frozen=True, kw_only=True):
    """How a job used to run; ms."""

    usual: int
    longest: int
    runs: int

    def limit(self, state: JobState) -> float:
        """The silence that it does not exceed."""
        return max(self.longest + _MORE * self.usual, (1 + _MORE) * state.interval * 1000)


def look(scene: Scene) -> Iterator[Found]:
    """Jobs that are meant to run and whose last run is longer ago than they ever used to wait."""
    quiet: dict[JobKey, JobState] = {}
    for key, state in scene.jobs.items():
        if _should_run(scene, key, state):
            known = scene.open("silence", key)
            if known is None and _silent(scene, key, state) > scene.end - scene.begin:
                quiet[key] = state
            elif known is not None and known.started == round(state.last_run * 1000):
                yield _still(scene, known)
    yield from _found(scene, quiet)


def _found(scene: Scene, quiet: Mapping[JobKey, JobState]) -> Iterator[Found]:
    ran = scene.queries.runs_by_hour(quiet, scene.past(_PAST), scene.end) if quiet else {}
    for key, hours in ran.items():
        rhythm, state = rhythm_of(hours), quiet[key]
        if rhythm is None or _silent(scene, key, state) <= rhythm.limit(state) or _is_running(scene, key):
            continue
        yield _report(scene, key, round(state.last_run * 1000), rhythm)


def _should_run(scene: Scene, key: JobKey, state: JobState) -> bool:
    ended = state.paused or state.removed or not state.last_run
    return not ended and scene.meant(key) and not _is_waiting(scene, key, state)


def _is_waiting(scene: Scene, key: JobKey, state: JobState) -> bool:
    """Is it due later only, as far as its schedule is known, and was it there when it was due before?"""
    grace, now = scene.grace(key), scene.end / 1000
    before = state.next_run - state.interval  # it was due then, if it is due evenly; if not, its gaps tell
    missed = state.interval and before + grace <= now and state.last_run + grace < before
    return state.next_run + grace > now and not missed


def _silent(scene: Scene, key: JobKey, state: JobState) -> int:
    """For how long. What happens while taskscope is not there nobody knows; a paused job is not meant to run."""
    return scene.watched(max(round(state.last_run * 1000), scene.resumed.get(key, 0)))


def rhythm_of(hours: Mapping[int, int]) -> Rhythm | None:
    """Of the runs in each hour (its begin in ms): how it runs, by hours or else by days; None if not regularly."""
    for step in (HOUR, DAY):
        gaps = sorted(later - at for at, later in pairwise(sorted({at // step * step for at in hours})))
        if len(gaps) + 1 >= _REGULAR and sum(gaps) >= DAY:  # before it is a day old nobody knows its nights
            usual, is_old = median_low(gaps), sum(gaps) > _LONG
            if sum(gap <= _EVEN * usual for gap in gaps) >= len(gaps) * (_MOST if is_old else 1):
                longest = gaps[-2 if is_old else -1]
                return Rhythm(usual=usual, longest=longest, runs=sum(hours.values()))
    return None


def _is_running(scene: Scene, key: JobKey) -> bool:
    """Of a run that takes long nobody expects the next one."""
    running = Filter(status=("started",), scheduler=(key[0],), job=(key[1],))
    return bool(scene.queries.runs(running, limit=1).runs)


def _report(scene: Scene, key: JobKey, last: int, rhythm: Rhythm) -> Found:
    scheduler, name = key
    since = max(0, last - DAY) // HOUR * HOUR
    steps = scene.queries.trend(since, scene.end, HOUR, [name], [scheduler])
    return Found(
        kind="silence",
        scheduler=scheduler,
        job=name,
        object=name,
        title=f"{name} is silent",
        overview=_overview(scene, last, rhythm.usual, rhythm.runs),
        at=last,
        details={
            "last_run": last,
            "usual_gap_seconds": rhythm.usual // 1000,
            "longest_gap_seconds": rhythm.longest // 1000,
            "runs_before": rhythm.runs,
        },
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
