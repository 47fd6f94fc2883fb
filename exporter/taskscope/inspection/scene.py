"""What an inspection looks at: a window of the history, what came before it, and what it found the last time."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from taskscope.checks import GRACE
from taskscope.counts import JobState
from taskscope.events import JobKey
from taskscope.live import Live
from taskscope.rules import is_meant, labels_of, rule_for
from taskscope.settings import Inspection, Settings
from taskscope.sinks.history.finding_records import Finding, Level
from taskscope.sinks.history.queries import Queries

HOUR = 3_600_000
DAY = 24 * HOUR
"""ms."""
_STEPS = tuple(minutes * 60_000 for minutes in (1, 5, 60, 180, 720, 1440))
_MOST = 72  # steps of a window


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is true of the window."""

    kind: str
    scheduler: str
    job: str
    object: str
    key: str = ""
    level: Level = "warning"
    title: str
    overview: str
    at: int
    """Since when, in ms."""
    details: dict[str, Any] = {}
    distribution: tuple[tuple[int, float], ...] = ()
    attributes: dict[str, str] = {}


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """Times are ms since the epoch; the window is whole hours."""

    rules: Inspection
    queries: Queries
    jobs: Mapping[JobKey, JobState]
    """What is remembered of jobs."""
    queues: Mapping[JobKey, frozenset[str]] = {}
    """Where each job ran lately; only where queues are filtered by."""
    labels: Callable[[str], Mapping[str, str]] = lambda scheduler: {}
    """What a scheduler belongs to."""
    grace: Callable[[JobKey], float] = lambda key: GRACE
    """How late (s) a run may start."""
    resumed: Mapping[JobKey, int] = {}
    """When jobs were resumed that had been paused."""
    begin: int
    end: int
    absences: Sequence[tuple[int, int]] = ()
    """When taskscope was not there to see anything."""
    known: tuple[Finding, ...] = ()
    """What is open, and what has recovered lately."""

    @property
    def shown(self) -> int:
        """Where the distribution of a finding begins: the window, and as much before it."""
        return max(0, 2 * self.begin - self.end)

    @property
    def step(self) -> int:
        """Of a distribution: minutes of an hour, hours of a day."""
        window = self.end - self.begin
        return next((step for step in _STEPS if window <= _MOST * step), _STEPS[-1])

    def watched(self, since: int) -> int:
        """For how long (ms) since then somebody was there to see what runs."""
        away = (min(until, self.end) - max(at, since) for at, until in self.absences)
        return self.end - since - sum(max(0, each) for each in away)

    def past(self, usual: float) -> int:
        """The begin of what the window is compared with: `look_back`, or so many seconds, before it."""
        seconds = usual if self.rules.look_back is None else self.rules.look_back
        return max(0, self.begin - round(seconds * 1000) // HOUR * HOUR)

    def open(self, kind: str, key: JobKey, about: str = "") -> Finding | None:
        """The finding about it that is open."""
        return next((one for one in self._about(kind, key, about) if not one.recovered), None)

    def is_told(self, kind: str, key: JobKey, about: str, at: int) -> bool:
        """Was it found already that this is so since then?"""
        return any(one.started == at for one in self._about(kind, key, about))

    def meant(self, key: JobKey) -> bool:
        """Does this inspection look at the job?"""
        rules = self.rules
        return (
            _any(rules.schedulers, (key[0],))
            and (not rules.labels or self._meant_labels(self.labels(key[0])))
            and _any(rules.jobs, (key,), is_meant)
            and _any(rules.queues, self.queues.get(key, ()))
        )

    def meant_version(self, versions: Collection[str]) -> bool:
        """Is one of these versions looked at?"""
        return _any(self.rules.versions, versions)

    def _meant_labels(self, labels: Mapping[str, str]) -> bool:
        return all(_any(values, (labels.get(name, ""),)) for name, values in self.rules.labels.items())

    def _about(self, kind: str, key: JobKey, about: str) -> Iterable[Finding]:
        subject = (kind, *key, about)
        return (one for one in self.known if (one.kind, one.scheduler, one.job, one.key) == subject)


def _any(
    patterns: Collection[str], things: Collection[Any], matches: Callable[[Any, str], bool] = fnmatchcase
) -> bool:
    """Is one of these meant: by a pattern, if there are any, and by none that begins with `!`?"""
    wanted = [pattern for pattern in patterns if not pattern.startswith("!")]
    unwanted = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    left = [thing for thing in things if not any(matches(thing, pattern) for pattern in unwanted)]
    if not wanted:
        return bool(left) or not things
    return any(matches(thing, pattern) for thing in left for pattern in wanted)


def belonging(settings: Settings, queries: Queries, live: Live) -> Callable[[str], Mapping[str, str]]:
    """What a scheduler belongs to: as it was told last with its readings, else as these settings say."""
    told = queries.labels() | live.labels()
    return lambda scheduler: told.get(scheduler) or labels_of(settings, scheduler)


def graces(settings: Settings) -> Callable[[JobKey], float]:
    """How late (s) a run of a job may start, by its rule."""
    return lambda key: ((rule := rule_for(settings, key)) and rule.grace) or GRACE
