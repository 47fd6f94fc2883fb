"""Which of the user's rules holds for a job."""

from fnmatch import fnmatchcase

from taskscope.events import JobKey
from taskscope.settings import JobRule, Settings


def rule_for(settings: Settings, key: JobKey) -> JobRule | None:
    """The first rule whose pattern matches the job's name or `scheduler/job`; None where no rule does."""
    scheduler, job = key
    path = f"{scheduler}/{job}"
    for rule in settings.jobs:
        if fnmatchcase(job, rule.match) or fnmatchcase(path, rule.match):
            return rule
    return None
