"""Which of the user's rules holds for a job, and for a queue."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

from taskscope.events import JobKey
from taskscope.settings import JobRule, QueueRule, Settings

Rule = TypeVar("Rule", JobRule, QueueRule)


BACKLOG, MAX_AGE = 1000, 3600.0
"""What holds for a queue without a rule: waiting messages, and seconds for which one may wait."""


def rule_for(settings: Settings, key: JobKey) -> JobRule | None:
    """The first rule whose pattern matches the job's name or `scheduler/job`; None where no rule does."""
    return _first(settings.jobs, *key)


def queue_rule(settings: Settings, scheduler: str, queue: str) -> QueueRule | None:
    """The first rule whose pattern matches the queue's name or `scheduler/queue`; None where no rule does."""
    return _first(settings.queues, scheduler, queue)


def _first(rules: Sequence[Rule], scheduler: str, name: str) -> Rule | None:
    path = f"{scheduler}/{name}"
    return next((r for r in rules if fnmatchcase(name, r.match) or fnmatchcase(path, r.match)), None)
