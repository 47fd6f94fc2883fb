"""What an inspection looks at: a window of the history, what came before it, and what it found the last time."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from taskscope.events import JobKey
from taskscope.live import LiveJob
from taskscope.rules import is_meant
from taskscope.settings import Inspection
from taskscope.sinks.history.finding_records import Level
from taskscope.sinks.history.queries import Queries

HOUR = 3_600_000
"""ms."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is true of the window."""

    kind: str
    scheduler: str
    job: str
    object: str
    key: str
    level: Level
    title: str
    overview: str
    at: int
    """Since when, in ms."""
    opens: bool = True
    """False for what only says that a finding that is open already goes on."""
    details: dict[str, Any] = {}
    distribution: tuple[tuple[int, float], ...] = ()
    attributes: dict[str, str] = {}


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """Times are ms since the epoch; the window is whole hours."""

    rules: Inspection
    queries: Queries
    jobs: Mapping[JobKey, LiveJob]
    """What is known of jobs now."""
    begin: int
    end: int
    past: int
    """The begin of what the window is compared with."""
    open: frozenset[tuple[str, str, str, str]]
    """(kind, scheduler, job, key) of the findings that are open."""

    def meant(self, key: JobKey) -> bool:
        """Does this inspection look at the job?"""
        rules, job = self.rules, self.jobs.get(key)
        if rules.schedulers and not _any(rules.schedulers, key[0]):
            return False
        if rules.jobs and not any(is_meant(key, pattern) for pattern in rules.jobs):
            return False
        queue = job.definition.queue if job and job.definition else ""
        return not rules.queues or _any(rules.queues, queue)

    def meant_version(self, versions: Iterable[str]) -> bool:
        """Is one of these versions looked at?"""
        return not self.rules.versions or any(_any(self.rules.versions, version) for version in versions)


def _any(patterns: Iterable[str], text: str) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns)
