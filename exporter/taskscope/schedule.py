"""When a cron expression is due: in its time zone, as cron has it where clocks are changed."""

from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from itertools import islice
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from msgspec.structs import replace

from taskscope.errors import BadArgument, BadEvent
from taskscope.events import Defined, Job, Trigger

_WORDS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_LONGEST = 200  # characters of an expression
_EARLY = 1.0  # seconds by which a run may start before it is due and be the one that was


def due_times(expression: str, timezone: str, after: float) -> Iterator[float]:
    """When it is due after this moment, in order. Raises `BadArgument`.

    As cron does it, what falls into the hour that is left out runs right after it, and what falls into the hour that
    comes twice runs once, unless it is due every hour or minute.
    """
    place = zone(timezone)
    try:
        times = CronSim(_fields(expression), datetime.fromtimestamp(after, place))
    except (CronSimError, ValueError) as error:
        raise BadArgument(
            f"schedule={expression!r} is no cron expression ({error}); give five fields, such as '0 3 * * *'"
        ) from None
    return (at.timestamp() for at in times if at.timestamp() > after)


def in_words(expression: str) -> str:
    """What the expression says, in English. Raises `BadArgument`."""
    due_times(expression, "UTC", 0.0)
    return CronSim(_fields(expression), datetime.fromtimestamp(0, UTC)).explain()


def promised(reading: Defined) -> Defined:
    """The reading with the next time at which its triggers are due, where nobody said. Raises `BadEvent`."""
    job = reading.job
    if job.paused or job.next_run is not None or not any(map(_fires, job.triggers)):
        return reading
    due = {
        trigger.key: _next_two(job, trigger, reading.at + _EARLY)
        for trigger in job.triggers
        if _fires(trigger)
    }
    triggers = [replace(one, next_run=due[one.key][0]) if one.key in due else one for one in job.triggers]
    first, *then = sorted(set().union(*due.values()))
    interval = then[0] - first if then else None
    return replace(reading, job=replace(job, triggers=tuple(triggers), next_run=first, interval=interval))


def _next_two(job: Job, trigger: Trigger, after: float) -> list[float]:
    """When a trigger is due next, and after that. Raises `BadEvent`."""
    try:
        times = list(islice(due_times(trigger.schedule, trigger.timezone, after), 2))
    except (BadArgument, OverflowError, ValueError) as error:
        raise BadEvent(f"job {job.name!r}: {error}") from None
    if not times:
        raise BadEvent(f"job {job.name!r}: schedule={trigger.schedule!r} is never due")
    return times


def _fires(trigger: Trigger) -> bool:
    return bool(trigger.schedule) and trigger.state not in ("PAUSED", "COMPLETE")


def _fields(expression: str) -> str:
    return _WORDS.get(expression.strip().lower(), expression)[:_LONGEST]


def zone(name: str) -> tzinfo:
    """The zone of this name; UTC for none. Raises `BadArgument`."""
    if name.upper() in ("", "UTC"):
        return UTC
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError):  # it is no file, no key, or unknown
        raise BadArgument(
            f"timezone={name!r} is not known here; give one such as Europe/Berlin, or install tzdata"
        ) from None
