"""Which of the user's rules holds for a job, for a queue, and for an error of a job."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

from taskscope.events import JobKey
from taskscope.fingerprint import Signature
from taskscope.settings import ErrorRule, JobRule, QueueRule, Settings

Rule = TypeVar("Rule", JobRule, QueueRule)

BACKLOG, MAX_AGE = 1000, 3600.0
"""What holds for a queue without a rule: waiting messages, and seconds for which one may wait."""


def rule_for(settings: Settings, key: JobKey) -> JobRule | None:
    """The first rule whose pattern matches the job's name or `scheduler/job`, or that gives the job its name."""
    return next((rule for rule in settings.jobs if is_meant(key, rule.match) or _gives(rule, key)), None)


def name_for(settings: Settings, scheduler: str, job: str) -> str | None:
    """What the first rule whose pattern matches calls the job, which its scheduler calls `job`; None: ignore it."""
    rule = _first(settings.jobs, (scheduler, job))
    if rule is None:
        return job
    return None if rule.ignore else rule.name or job


def queue_rule(settings: Settings, scheduler: str, queue: str) -> QueueRule | None:
    """The first rule whose pattern matches the queue's name or `scheduler/queue`; None where no rule does."""
    return _first(settings.queues, (scheduler, queue))


def error_rule_for(settings: Settings, key: JobKey, signature: Signature, message: str) -> ErrorRule | None:
    """The first rule all of whose patterns match this error of the job; None where no rule does."""
    for rule in settings.errors.rules:
        if (
            any(fnmatchcase(kind, rule.exception) for kind in signature.kinds)
            and fnmatchcase(signature.place, rule.place)
            and fnmatchcase(message, rule.message)
            and is_meant(key, rule.match)
        ):
            return rule
    return None


def labels_of(settings: Settings, scheduler: str) -> dict[str, str]:
    """What the settings say that a scheduler belongs to."""
    source = settings.schedulers.get(scheduler)
    return settings.labels | (source.labels if source else {})


def is_meant(key: tuple[str, str], pattern: str) -> bool:
    """Does a shell pattern match the name, or `scheduler/name`?"""
    scheduler, name = key
    return fnmatchcase(name, pattern) or fnmatchcase(f"{scheduler}/{name}", pattern)


def _gives(rule: JobRule, key: JobKey) -> bool:
    """Does the rule call jobs so? One for `scheduler/job` says nothing of what other schedulers call so."""
    scheduler, slash, _ = rule.match.partition("/")
    return rule.name == key[1] and (not slash or fnmatchcase(key[0], scheduler))


def _first(rules: Sequence[Rule], key: tuple[str, str]) -> Rule | None:
    return next((rule for rule in rules if is_meant(key, rule.match)), None)
