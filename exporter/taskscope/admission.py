"""What may come in: every text bounded and printable, the user's rules about jobs applied."""

import math
from functools import lru_cache
from typing import Any

import msgspec

from taskscope.errors import BadEvent
from taskscope.events import Error, Event, Fact, Job, Jobs
from taskscope.failure import cut
from taskscope.rules import rule_for
from taskscope.settings import Limits, Settings

_FUTURE = 86_400.0  # a clock may be wrong by a day, not more
_NAMES = ("native", "job", "queue", "worker", "instance", "entity", "reason", "trace_id")


class Admission:
    """The door of the pipeline."""

    def __init__(self, settings: Settings) -> None:
        self._limits = settings.limits
        self._max_age = settings.retention.max_age or math.inf
        self._known: set[tuple[str, ...]] = set()
        self._renames = any(rule.name or rule.ignore for rule in settings.jobs)
        self._name_of = lru_cache(maxsize=10_000)(lambda scheduler, job: _renamed(settings, scheduler, job))

    def admit(self, event: Event, now: float) -> Event | None:
        """The event as it goes on; None for a job that the user ignores. Raises `BadEvent`."""
        if isinstance(event, Fact):
            return self._fact(event, now)
        if isinstance(event, Jobs):
            jobs = (self._job(event.scheduler, job) for job in event.jobs)
            return msgspec.structs.replace(event, jobs=tuple(job for job in jobs if job))
        return event

    def _fact(self, fact: Fact, now: float) -> Fact | None:
        anchor = fact.at if fact.anchor is None else fact.anchor
        if not now - self._max_age <= anchor <= now + _FUTURE:
            raise BadEvent(
                f"anchor={anchor!r} is outside of the time that is kept; check the clock of {fact.instance!r}"
            )
        changes = self._texts(fact)
        job = changes.get("job", fact.job)
        if self._renames and job:
            name = self._name_of(fact.scheduler, job)
            if name is None:
                return None
            if name != job:
                changes["job"] = name
        if fact.error is not None:
            changes["error"] = bounded_error(fact.error, self._limits)
        return msgspec.structs.replace(fact, **changes) if changes else fact

    def _texts(self, fact: Fact) -> dict[str, Any]:
        """The names that must change to be printable and bounded: mostly none, and that is remembered."""
        names = (fact.job, fact.queue, fact.worker, fact.instance, fact.entity, fact.reason, fact.trace_id)
        if names in self._known and fact.native.isascii() and len(fact.native) <= self._limits.name:
            return {}
        changed: dict[str, Any] = {}
        for field in _NAMES:
            value = getattr(fact, field)
            if (cleaned := clean(value, self._limits.name)) != value:
                changed[field] = cleaned
        if not changed:
            if len(self._known) >= 10_000:
                self._known.clear()
            self._known.add(names)
        return changed

    def _job(self, scheduler: str, job: Job) -> Job | None:
        cleaned = clean(job.name, self._limits.name)
        name = self._name_of(scheduler, cleaned) if self._renames else cleaned
        if name is None:
            return None
        return job if name == job.name else msgspec.structs.replace(job, name=name)


def _renamed(settings: Settings, scheduler: str, job: str) -> str | None:
    rule = rule_for(settings, (scheduler, job))
    if rule is None:
        return job
    return None if rule.ignore else rule.name or job


def clean(text: str, limit: int) -> str:
    """At most `limit` characters, without NUL and lone surrogates, which databases and pages cannot hold."""
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()
    if "\0" in text:
        text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text if len(text) <= limit else text[: limit - 1] + "…"


def bounded_error(error: Error, limits: Limits) -> Error:
    """The error within its bounds."""
    return Error(
        kind=clean(error.kind, limits.name),
        message=clean(error.message, limits.message),
        stack=clean(cut(error.stack, limits.stack), limits.stack),
        data={clean(key, 200): clean(value, limits.args) for key, value in list(error.data.items())[:50]},
    )
