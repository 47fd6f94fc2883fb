"""How the whole is doing: checks, each remembered since when it fails, and a score of 100 less what they deduct."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from typing import Literal, get_args

import msgspec

from taskscope.checks import CHECKS, Definition, Measure, Own, View, held_to
from taskscope.contracts import Sink
from taskscope.events import JobKey
from taskscope.facts import Bit, Change, fresh
from taskscope.live import Live
from taskscope.rules import rule_for
from taskscope.settings import Settings
from taskscope.sinks.metrics import Metrics

Standing = Literal["healthy", "degraded", "unhealthy"]
STANDINGS: tuple[Standing, ...] = get_args(Standing)

_OFTEN = 5.0  # seconds for which an answer holds
_MINUTE = 60
_JOBS = (
    100_000  # of which the rules are remembered: looking for them takes long, while all else waits for `Live`
)
_SHOWN = 10  # objects that a failing check names
_FAILED = Bit.FAILED | Bit.LOST
_COUNTED = Bit.SUCCESS | _FAILED


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a check says now."""

    check: str
    scheduler: str
    """Empty for what is about taskscope itself."""
    ok: bool
    value: float
    """The worst that it found."""
    limit: float | None
    """The threshold that the settings name; `threshold` is that of the object in question."""
    threshold: float | None
    window: float
    severity: str
    deduction: int
    since: float | None
    """Since when it fails; None while it does not."""
    alert: str
    """The alert that says the same of the worst."""
    objects: tuple[str, ...]
    """What it fails for: jobs, queues, runs; the first few."""


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """How one scheduler, or the whole, is doing."""

    scheduler: str
    """Empty for all together with taskscope itself."""
    score: int
    status: Standing
    checks: tuple[Result, ...]


class Health(Sink):
    """Looks at everything now and then; asked from any thread."""

    def __init__(
        self,
        settings: Settings,
        live: Live,
        own: Callable[[float], Own],
        usual: Callable[[JobKey], float | None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`own` tells of taskscope itself, `usual` what 99 % of a job's runs stay below."""
        self._live, self._own, self._usual, self._clock = live, own, usual, clock
        self.adopt(settings)
        self._lock = threading.Lock()
        self._ended: dict[tuple[int, str], tuple[int, int]] = {}
        """By minute and scheduler, runs that ended and those of them that failed; the oldest first."""
        self._since: dict[tuple[str, str, str], float] = {}
        self._scores: tuple[Score, ...] = ()
        self._looked = float("-inf")

    def adopt(self, settings: Settings) -> None:
        """Go on by these settings."""
        self._settings, self._rule = settings, lru_cache(_JOBS)(partial(rule_for, settings))

    def committed(self, changes: Sequence[Change]) -> None:
        """Count how runs ended."""
        minute = int(self._clock()) // _MINUTE
        ended: Counter[str] = Counter()
        failed: Counter[str] = Counter()
        for change in changes:
            if bits := fresh(change.row.facts, change.added) & _COUNTED:
                ended[change.row.scheduler] += 1
                failed[change.row.scheduler] += bool(bits & _FAILED)
        with self._lock:
            for name, runs in ended.items():
                before = self._ended.get((minute, name), (0, 0))
                self._ended[minute, name] = (before[0] + runs, before[1] + failed[name])

    def scores(self) -> tuple[Score, ...]:
        """The whole first, then each scheduler by its name. To be asked now and then: it remembers what began when."""
        now = self._clock()
        with self._lock:
            if now - self._looked >= _OFTEN:
                self._looked = now
                self._scores = tuple(self._look(now))
            return self._scores

    def _look(self, now: float) -> list[Score]:
        with self._live.lock:
            known = sorted(self._known())
            self._forget(known, now)
            views = [self._view(scheduler, now) for scheduler in known]
            found = {view.scheduler: self._measures(view.scheduler, view) for view in views}
        found[""] = self._measures("", self._own(now))
        before, self._since = self._since, {}
        results = {
            scheduler: [self._result(scheduler, check, measures, before, now) for check, measures in checks]
            for scheduler, checks in found.items()
        }
        whole = [result for some in results.values() for result in some]
        return [self._score("", whole), *(self._score(name, results[name]) for name in results if name)]

    def _known(self) -> set[str]:
        """Schedulers of which anything is known that is not forgotten."""
        live = self._live
        told = (scheduler for (scheduler, _), job in live.jobs.items() if not job.state.removed)
        return {*live.schedulers, *live.read_at, *(scheduler for scheduler, _ in live.queues), *told}

    def _view(self, scheduler: str, now: float) -> View:
        live = self._live
        ended, failed = self._runs(scheduler, now)
        return View(
            scheduler=scheduler,
            now=now,
            settings=self._settings,
            rule=self._rule,
            state=live.schedulers.get(scheduler),
            queues=[queue for (name, _), queue in live.queues.items() if name == scheduler],
            workers=[worker for (name, _), worker in live.workers.items() if name == scheduler],
            jobs={name: job for (owner, name), job in live.jobs.items() if owner == scheduler},
            ended=ended,
            failed=failed,
            usual=self._usual,
            is_read=scheduler in live.schedulers or scheduler in live.read_at,
        )

    def _forget(self, known: Iterable[str], now: float) -> None:
        """Let go of minutes that are in no window of `failure_rate` any more."""
        longest = max(self._held_to("failure_rate", name).window for name in ("", *known))
        for key in [key for key in self._ended if key[0] < (now - longest) // _MINUTE]:
            del self._ended[key]

    def _runs(self, scheduler: str, now: float) -> tuple[int, int]:
        """Runs that ended in the window of `failure_rate`, and those of them that failed."""
        since = (now - self._held_to("failure_rate", scheduler).window) // _MINUTE
        some = [
            ended for (minute, name), ended in self._ended.items() if name == scheduler and minute >= since
        ]
        return sum(ended for ended, _ in some), sum(failed for _, failed in some)

    def _measures(self, scheduler: str, of: View | Own) -> list[tuple[Definition, list[Measure]]]:
        """What each check finds; none where it finds nothing to look at."""
        found = []
        for name in CHECKS:
            check = self._held_to(name, scheduler)
            if check.enabled and isinstance(of, check.of):
                found.append((check, list(check.look(of, check.threshold or 0.0))))
        return [(check, measures) for check, measures in found if measures]

    def _held_to(self, check: str, scheduler: str) -> Definition:
        return held_to(self._settings, check, scheduler)

    def _result(
        self,
        scheduler: str,
        check: Definition,
        measures: list[Measure],
        before: dict[tuple[str, str, str], float],
        now: float,
    ) -> Result:
        patience, failing = 0.0 if check.measured else check.window, []
        for measure in measures:
            if measure.bad:
                key = (scheduler, check.name, measure.object if measure.key is None else measure.key)
                since = self._since[key] = measure.since or before.get(key, now)
                if now - since >= patience:
                    failing.append((since, measure))
        worst = max((measure for _, measure in failing), key=_weight, default=max(measures, key=_weight))
        return Result(
            check=check.name,
            scheduler=scheduler,
            ok=not failing,
            value=worst.value,
            limit=check.threshold,
            threshold=worst.limit,
            window=check.window,
            severity=check.severity,
            deduction=check.deduction,
            alert=(worst.alert if failing else "") or check.alert,
            since=min((since for since, _ in failing), default=None),
            objects=tuple(sorted(measure.object for _, measure in failing if measure.object)[:_SHOWN]),
        )

    def _score(self, scheduler: str, results: Iterable[Result]) -> Score:
        """A check that fails for several schedulers deducts once from the whole, and the most that it does there."""
        checks = tuple(results)
        deductions: dict[str, int] = {}
        for result in checks:
            if not result.ok:
                deductions[result.check] = max(result.deduction, deductions.get(result.check, 0))
        score = max(0, 100 - sum(deductions.values()))
        return Score(scheduler=scheduler, score=score, status=self._standing(score), checks=checks)

    def _standing(self, score: int) -> Standing:
        health = self._settings.health
        return (
            "healthy" if score >= health.healthy else "degraded" if score >= health.degraded else "unhealthy"
        )


def show_health(scores: Sequence[Score], metrics: Metrics) -> None:
    """Export them."""
    results = [result for score in scores[1:] for result in score.checks]
    results += [result for result in scores[0].checks if not result.scheduler]
    metrics.keep("health_score", {(score.scheduler,): float(score.score) for score in scores})
    standings: dict[tuple[str, ...], float] = {
        (s.scheduler, standing): float(s.status == standing) for s in scores for standing in STANDINGS
    }
    metrics.keep("health_status", standings)
    metrics.keep("health_check", {(r.scheduler, r.check): float(r.ok) for r in results})
    limits: dict[tuple[str, ...], float] = {
        (r.scheduler, r.check): r.limit for r in results if r.limit is not None
    }
    metrics.keep("health_limit", limits)


def _weight(measure: Measure) -> tuple[bool, float]:
    """How bad a measure is: by how far it is beyond its limit, where it has one."""
    return measure.bad, measure.value / measure.limit if measure.limit else measure.value
