"""Reads how an APScheduler defines its jobs, by what the scheduler itself hands out."""

import copy
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, tzinfo
from datetime import time as midnight
from functools import partial
from itertools import islice
from math import inf
from operator import is_
from typing import Any, NamedTuple, TypeAlias

from msgspec.structs import replace

from taskscope.bridges._apscheduler_stores import Unrestored
from taskscope.events import Job, Trigger, TriggerState
from taskscope.failure import KEYS, short_repr

Outlook: TypeAlias = tuple[float | None, bool | None]

_FACETS = (
    "next_run_time", "trigger", "func", "args", "kwargs", "name", "executor", "max_instances", "coalesce",
    "misfire_grace_time",
)  # fmt: skip
_SHARING = 1_000  # jobs of one name that are looked at
_made_up = re.compile(r"[0-9a-f]{32}").fullmatch  # what APScheduler calls a job that was given no id


def job_name(job: Any) -> str:
    """What people call the job: the id it was given, or else its function."""
    return str(job.id) if not _made_up(job.id) else function_of(job)


def function_of(job: Any) -> str:
    """`module:function` of the job."""
    func = job.func
    if job.func_ref:
        return str(job.func_ref)
    while isinstance(func, partial):
        func = func.func
    return f"{getattr(func, '__module__', '?')}:{getattr(func, '__qualname__', type(func).__qualname__)}"


class Gap(NamedTuple):
    """Due times that a coalescing job leaves out in favour of a later one."""

    trigger: Any
    first: datetime
    end: datetime

    def times(self, limit: int) -> Iterator[datetime]:
        """The first of them. Each may take 100 µs to compute."""
        trigger, due = _steady(self.trigger), self.first
        while due is not None and due < self.end and limit:
            yield due
            limit -= 1
            due = trigger.get_next_fire_time(due, self.end)


def gap_before(job: Any, times: Sequence[datetime]) -> Gap | None:
    """What the job leaves out in favour of `times`, if anything. Computes nothing yet."""
    due = getattr(job, "next_run_time", None)
    if not job.coalesce or due is None or due >= times[0] or not _is_pure(job.trigger):
        return None
    return Gap(job.trigger, due, times[0])


class Situation(NamedTuple):
    """What is known of a job beside its definition."""

    store: str
    """Empty for a job that has none yet."""
    durable: bool | None
    defaults: Mapping[str, Any]
    running: int
    """Submissions of it that are being executed."""
    previous: float
    refused: float


class Known(NamedTuple):
    """How a job was read last."""

    facets: tuple[Any, ...]
    promise: tuple[Any, str]
    """Next due time and trigger, which `after` follows from."""
    after: Outlook
    job: Job
    others: tuple[Trigger, ...] = ()
    """Those of the jobs that share its name."""
    whole: Job | None = None
    """The job with them."""


class Definitions:
    """The jobs of a scheduler as they were read last: one that did not change is not made again."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Known] = {}

    def read(self, jobs: Iterable[Any], situation_of: Callable[[Any], Situation]) -> tuple[Job, ...]:
        """These jobs, as they are defined now. Whatever is not among them is forgotten.

        Jobs without an id of their own share a name, and may be thousands: the one that is due first stands for all.
        Of the others only the triggers are told, without schedule, and no more than 1,000 of a name.
        """
        before, self._known = self._known, {}
        for job, others in _by_name(jobs):
            situation = situation_of(job)
            key = (situation.store, job.id)
            known = self._define(job, situation, before.get(key))
            self._known[key] = _join(known, tuple(_brief(other, situation_of(other)) for other in others))
        return tuple(known.whole or known.job for known in self._known.values())

    def _define(self, job: Any, situation: Situation, known: Known | None) -> Known:
        facets = (*(getattr(job, name, None) for name in _FACETS), *situation)
        if known is not None and all(map(is_, known.facets, facets)):
            return known
        promise = (getattr(job, "next_run_time", None), str(job.trigger))
        after = known.after if known is not None and known.promise == promise else outlook(job)
        return Known(facets, promise, after, definition(job, situation, after))


def _by_name(jobs: Iterable[Any]) -> Iterator[tuple[Any, list[Any]]]:
    """Of each name the job that is due first, and the others."""
    named: dict[tuple[str, str], list[Any]] = {}
    for job in jobs:
        named.setdefault((job._jobstore_alias, job_name(job)), []).append(job)
    for same in named.values():
        first = min(same, key=_due) if len(same) > 1 else same[0]
        yield first, [job for job in same[:_SHARING] if job is not first]


def _join(known: Known, others: tuple[Trigger, ...]) -> Known:
    if known.others == others:
        return known
    whole = replace(known.job, triggers=known.job.triggers + others)
    return known._replace(others=others, whole=whole)


def _brief(job: Any, situation: Situation) -> Trigger:
    due = getattr(job, "next_run_time", None)
    paused = due is None and hasattr(job, "next_run_time")
    state = "ERROR" if isinstance(job, Unrestored) else _state(situation, paused)
    return Trigger(key=job.id, state=state, next_run=timestamp(due))


def _due(job: Any) -> float:
    due = getattr(job, "next_run_time", None)
    return due.timestamp() if due is not None else inf


def definition(job: Any, situation: Situation, after: Outlook) -> Job:
    """The job as it is defined now; `after` is what `outlook` says."""
    if isinstance(job, Unrestored):
        return _unrestored(job, situation)
    options = {name: getattr(job, name, default) for name, default in situation.defaults.items()}
    paused = hasattr(job, "next_run_time") and job.next_run_time is None
    next_run = timestamp(getattr(job, "next_run_time", None))
    return Job(
        name=job_name(job),
        key=job.id,
        function=function_of(job),
        description=job.name,
        queue=job.executor,
        paused=paused,
        next_run=next_run,
        previous_run=situation.previous or None,
        interval=after[0],
        overlap=options["max_instances"] > 1,
        durable=situation.durable,
        properties={**options, "jobstore": situation.store, "executor": job.executor},
        data=_arguments(job),
        triggers=(_trigger(job, situation, options, paused, after[1]),),
    )


def _unrestored(job: Unrestored, situation: Situation) -> Job:
    trouble, data = "cannot be restored in this process", {"error": job.error}
    return Job(
        name=job_name(job),
        key=job.id,
        function=job.func_ref,
        description=trouble,
        durable=situation.durable,
        properties={"jobstore": situation.store},
        data=data,
        triggers=(Trigger(key=job.id, state="ERROR", description=trouble, data=data),),
    )


def outlook(job: Any) -> Outlook:
    """Seconds between the next two due times, and whether a second one comes; None where not known."""
    trigger, due = job.trigger, getattr(job, "next_run_time", None)
    if (
        due is None or not _is_pure(trigger) or type(trigger).__name__ == "AndTrigger"
    ):  # its search may have no end
        return None, None
    later = _steady(trigger).get_next_fire_time(due, due)
    return (None, False) if later is None else (round(later.timestamp() - due.timestamp(), 6), True)


def timestamp(moment: Any, zone: tzinfo | None = None) -> float | None:
    """Seconds since the epoch of a datetime, or of a date's begin in this zone; None of anything else."""
    if isinstance(moment, datetime):
        return moment.timestamp()
    return datetime.combine(moment, midnight(), zone).timestamp() if isinstance(moment, date) else None


def _trigger(
    job: Any, situation: Situation, options: Mapping[str, Any], paused: bool, may_fire_again: bool | None
) -> Trigger:
    trigger, zone = job.trigger, _zone(job.trigger)
    return Trigger(
        key=job.id,
        state=_state(situation, paused),
        schedule=str(trigger),
        description=type(trigger).__name__,
        timezone="" if zone is None else str(zone),
        start=timestamp(getattr(trigger, "start_date", getattr(trigger, "run_date", None)), zone),
        end=timestamp(getattr(trigger, "end_date", None), zone),
        next_run=timestamp(getattr(job, "next_run_time", None)),
        previous_run=situation.previous or None,
        may_fire_again=may_fire_again,
        misfire_policy=_policy(options),
    )


def _state(situation: Situation, paused: bool) -> TriggerState:
    """A paused job may still run. BLOCKED: it was due, and left out because of the runs that go on."""
    if paused:
        return "PAUSED"
    if not situation.running:
        return "WAITING"
    return "BLOCKED" if situation.refused > situation.previous else "EXECUTING"


def _policy(options: Mapping[str, Any]) -> str:
    grace = options["misfire_grace_time"]
    late = "runs however late" if grace is None else f"left out when more than {grace} s late"
    return (
        f"{late}; missed runs become one"
        if options["coalesce"]
        else f"{late}; each missed run is made up for"
    )


def _arguments(job: Any) -> dict[str, Any]:
    """The arguments by repr. An iterator among them is not looked at: the run would miss what we took."""
    data: dict[str, Any] = {}
    if job.args and isinstance(job.args, tuple | list):
        data["args"] = [short_repr(value) for value in job.args[:KEYS]]
    if job.kwargs and isinstance(job.kwargs, dict):
        data["kwargs"] = {str(key): short_repr(value) for key, value in islice(job.kwargs.items(), KEYS)}
    return data


def _zone(trigger: Any) -> tzinfo | None:
    """The trigger's time zone, or that of the first of its parts."""
    zone = getattr(trigger, "timezone", None) or getattr(getattr(trigger, "run_date", None), "tzinfo", None)
    if isinstance(zone, tzinfo):
        return zone
    return next((zone for part in getattr(trigger, "triggers", ()) if (zone := _zone(part))), None)


def _is_pure(trigger: Any) -> bool:
    """May it be asked for due times? A trigger of the user's own might count how often it is asked."""
    own = type(trigger).__module__.startswith("apscheduler.triggers.")
    return own and all(_is_pure(part) for part in getattr(trigger, "triggers", ()))


def _steady(trigger: Any) -> Any:
    """The trigger without its random delay."""
    if not getattr(trigger, "jitter", None):
        return trigger
    steady = copy.copy(trigger)
    steady.jitter = None
    return steady
