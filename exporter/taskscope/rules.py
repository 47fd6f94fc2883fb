"""Which of the user's rules holds for a job, and which for an error of a job."""

from fnmatch import fnmatchcase

from taskscope.events import JobKey
from taskscope.fingerprint import Signature
from taskscope.settings import ErrorRule, JobRule, Settings


def rule_for(settings: Settings, key: JobKey) -> JobRule | None:
    """The first rule whose pattern matches the job's name or `scheduler/job`; None where no rule does."""
    return next((rule for rule in settings.jobs if _is_meant(key, rule.match)), None)


def error_rule_for(settings: Settings, key: JobKey, signature: Signature, message: str) -> ErrorRule | None:
    """The first rule all of whose patterns match this error of the job; None where no rule does."""
    for rule in settings.errors.rules:
        if (
            any(fnmatchcase(kind, rule.exception) for kind in signature.kinds)
            and fnmatchcase(signature.place, rule.place)
            and fnmatchcase(message, rule.message)
            and _is_meant(key, rule.match)
        ):
            return rule
    return None


def _is_meant(key: JobKey, pattern: str) -> bool:
    scheduler, job = key
    return fnmatchcase(job, pattern) or fnmatchcase(f"{scheduler}/{job}", pattern)
