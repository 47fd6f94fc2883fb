"""What may come in: every text bounded, printable and without secrets, the user's rules about jobs applied."""

import math
from collections import OrderedDict
from functools import lru_cache, partial
from itertools import islice
from typing import Any, cast

import msgspec

from taskscope.errors import BadEvent
from taskscope.events import Captured, Defined, Error, Event, Fact, Job, Jobs, SchedulerState
from taskscope.failure import cut, plain, repr_of
from taskscope.redaction import Redaction
from taskscope.rules import labels_of, name_for
from taskscope.schedule import promised
from taskscope.settings import Limits, Settings

_FUTURE = 86_400.0  # a clock may be wrong by a day, not more
_LATEST = 32_503_680_000.0  # the year 3000, in seconds
_ATTEMPTS = 2**31
_KEY = 64  # characters of what tells two exceptions of a run apart
_RUNS = 10_000  # of which is remembered how many exceptions they reported
_TIMES = ("at", "due", "enqueued", "started", "duration")
_NAMES = ("scheduler", "native", "job", "queue", "worker", "instance", "entity", "reason", "trace_id")
_SOUGHT = 500  # characters of what stands in an index as it is: PostgreSQL's takes 2 700 bytes
_LARGEST = 2.0**63  # of other numbers


class Surplus(BadEvent):
    """A run reports more exceptions than are kept of one run."""


class Admission:
    """The door of the pipeline."""

    def __init__(self, settings: Settings) -> None:
        self._limits = settings.limits
        self._sought = min(_SOUGHT, settings.limits.name)
        self._redaction = Redaction(settings.redact)
        self._version, self._labels = settings.version, partial(labels_of, settings)
        self._reported: OrderedDict[tuple[str, str, int], int] = OrderedDict()
        self._max_age = settings.retention.max_age or math.inf
        self._known: set[tuple[str, ...]] = set()
        self._renames = any(rule.name or rule.ignore for rule in settings.jobs)
        self._read: dict[str, dict[int, tuple[Job, Job | None]]] = {}
        """By scheduler, the jobs of its last reading and what became of them: most are the same objects again."""
        self._name_of = lru_cache(maxsize=10_000)(partial(name_for, settings))

    def admit(self, event: Event, now: float) -> Event | None:
        """The event as it goes on; None for a job that the user ignores. Raises `BadEvent`."""
        if isinstance(event, Fact):
            return self._fact(event, now)
        if not 0 <= event.at <= now + _FUTURE:
            raise BadEvent(f"at={event.at!r} is no time that is past; check the clock of who tells it")
        if isinstance(event, Jobs):
            return msgspec.structs.replace(event, jobs=self._jobs(event))
        if isinstance(event, Defined):
            job = self._job(event.scheduler, event.job)
            return promised(msgspec.structs.replace(event, job=job)) if job else None
        if isinstance(event, SchedulerState):
            event = msgspec.structs.replace(event, labels=self._labels(event.scheduler) | event.labels)
        return cast(Event, self._tidy(event))

    def _fact(self, fact: Fact, now: float) -> Fact | None:
        _check_numbers(fact)
        if not fact.native or not fact.scheduler:
            raise BadEvent("native and scheduler must not be empty: they say which run it is")
        anchor = fact.at if fact.anchor is None else fact.anchor
        if not now - self._max_age <= anchor <= now + _FUTURE:
            field = "at" if fact.anchor is None else "anchor"
            whose = repr(fact.instance) if fact.instance else "who tells it"
            raise BadEvent(
                f"{field}={anchor!r} is outside of the time that is kept; check the clock of {whose}"
            )
        changes = self._texts(fact)
        job = changes.get("job", fact.job)
        if self._renames and job:
            name = self._name_of(fact.scheduler, job)
            if name is None:
                return None
            if name != job:
                changes["job"] = name
        if fact.key or fact.result:
            changes |= self._described(fact)
        if fact.error is not None:
            changes["error"] = self._error(fact.error)
        if fact.captured is not None:
            changes["captured"] = self._captured(fact, fact.captured)
        if fact.details:
            changes["details"] = bounded_details(fact.details, self._limits, self._redaction)
        return msgspec.structs.replace(fact, **changes) if changes else fact

    def _described(self, fact: Fact) -> dict[str, str]:
        """What the run says of itself, which may hold anything."""
        key, result = map(self._redaction.text, (fact.key, fact.result))
        return {"key": clean(key, self._sought), "result": clean(result, self._limits.name)}

    def _error(self, error: Error) -> Error:
        bounded = bounded_error(error, self._limits, self._redaction)
        return bounded if bounded.version else msgspec.structs.replace(bounded, version=self._version)

    def _captured(self, fact: Fact, captured: Captured) -> Captured:
        """The exception that the run reports. Raises `Surplus`."""
        run = (fact.scheduler, fact.native, fact.attempt)
        reported = self._reported[run] = self._reported.pop(run, 0) + 1
        if len(self._reported) > _RUNS:
            self._reported.popitem(last=False)
        if reported > self._limits.captured:
            raise Surplus(f"{fact.job}: one run reports more than {self._limits.captured} exceptions")
        key = clean(captured.key, _KEY)
        instance = clean(captured.instance or fact.instance, self._limits.name)
        return Captured(key=key, at=fact.at, error=self._error(captured.error), instance=instance)

    def _texts(self, fact: Fact) -> dict[str, Any]:
        """The names that must change to be printable and bounded: mostly none, and that is remembered."""
        names = (fact.scheduler, fact.job, fact.queue, fact.worker, fact.instance, fact.entity, fact.reason)
        free = fact.native + fact.trace_id  # of these there is one for each run
        if names in self._known and free.isascii() and "\0" not in free and len(free) <= self._sought:
            return {}
        changed: dict[str, Any] = {}
        for field in _NAMES:
            value = getattr(fact, field)
            if field == "entity":  # a job says it, and may say a URL
                value = self._redaction.text(value)
            limit = self._sought if field == "trace_id" else self._limits.name
            if (cleaned := clean(value, limit)) != getattr(fact, field):
                changed[field] = cleaned
        if not changed:
            if len(self._known) >= 10_000:
                self._known.clear()
            self._known.add(names)
        return changed

    def _jobs(self, reading: Jobs) -> tuple[Job, ...]:
        before, now = self._read.get(reading.scheduler, {}), {}
        for job in reading.jobs:
            now[id(job)] = before.get(id(job)) or (job, self._job(reading.scheduler, job))
        self._read[reading.scheduler] = now
        return tuple(job for _, job in now.values() if job)

    def _job(self, scheduler: str, told: Job) -> Job | None:
        job: Job = self._tidy(told)
        name = self._name_of(scheduler, job.name) if self._renames else job.name
        if name is None:
            return None
        return job if name == job.name else msgspec.structs.replace(job, name=name)

    def _tidy(self, value: Any, field: str = "") -> Any:
        """What is part of a reading, within its bounds and without secrets. Raises `BadEvent`."""
        if isinstance(value, str):
            return clean(self._redaction.text(value) if field == "description" else value, self._limits.name)
        if isinstance(value, int | float):
            if not -_LARGEST < value < _LARGEST:
                raise BadEvent(f"{field}={value!r} is no number that can be kept")
            return value
        if isinstance(value, tuple):
            return tuple(self._tidy(part, field) for part in value)
        if isinstance(value, dict):
            return self._redaction.value(sanitised(value))
        if isinstance(value, msgspec.Struct):
            names = value.__struct_fields__
            return type(value)(**{name: self._tidy(getattr(value, name), name) for name in names})
        return value


def clean(text: str, limit: int) -> str:
    """At most `limit` characters, without NUL and lone surrogates, which databases and pages cannot hold."""
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()
    if "\0" in text:
        text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text if len(text) <= limit else text[: limit - 1] + "…"


def bounded_error(error: Error, limits: Limits, redaction: Redaction) -> Error:
    """The error within its bounds, without secrets."""
    data = redaction.value(dict(islice(error.data.items(), 50)))
    return Error(
        kind=clean(error.kind, limits.name),
        message=clean(redaction.text(error.message), limits.message),
        stack=clean(cut(redaction.text(error.stack), limits.stack), limits.stack),
        data={clean(key, 200): clean(value, limits.args) for key, value in data.items()},
        version=clean(error.version, 128),
    )


def bounded_details(details: dict[str, Any], limits: Limits, redaction: Redaction) -> dict[str, Any]:
    """The details as plain data without secrets; their beginning alone where their JSON has too many bytes."""
    told = redaction.value(sanitised(details))
    text = msgspec.json.encode(told)
    if len(text) <= limits.details:
        return cast(dict[str, Any], told)
    room = max(0, limits.details // 2 - 64)  # inside a text of JSON a quote takes two bytes
    return {"truncated": True, "bytes": len(text), "beginning": text[:room].decode(errors="ignore")}


def sanitised(value: Any) -> Any:
    """The value as JSON would give it back; what JSON cannot hold, by repr."""
    if not value:
        return value
    try:
        return msgspec.json.decode(msgspec.json.encode(value, enc_hook=repr_of))
    except Exception:  # noqa: BLE001 - whatever a foreign object, or its change meanwhile, brings about
        return plain(value)


def _check_numbers(fact: Fact) -> None:
    if not (
        0 <= fact.at < _LATEST
        and (fact.due is None or 0 <= fact.due < _LATEST)
        and (fact.enqueued is None or 0 <= fact.enqueued < _LATEST)
        and (fact.started is None or 0 <= fact.started < _LATEST)
        and (fact.duration is None or 0 <= fact.duration < _LATEST)
        and 0 <= fact.attempt < _ATTEMPTS
    ):
        raise BadEvent(_wrong_number(fact))


def _wrong_number(fact: Fact) -> str:
    for field in _TIMES:
        value = getattr(fact, field)
        if value is not None and not 0 <= value < _LATEST:
            return f"{field}={value!r} is no time or duration in seconds before the year 3000"
    return f"attempt={fact.attempt!r} is no count from 0 to {_ATTEMPTS - 1}"
