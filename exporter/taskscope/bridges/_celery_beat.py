"""A live beat: what it publishes, and its schedule; with the default scheduler, or one that has a database."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from taskscope.bridges._celery_publish import Plan, planned
from taskscope.bridges._hooked import Hooked
from taskscope.bridges._quiet import quiet
from taskscope.events import Job, Jobs, Reading, SchedulerState, Trigger

_PATIENCE = 60.0
"""Seconds by which beat may be late before it counts as standing still."""


class Beat:
    """Hooks on the scheduler object of one beat.

    The schedule is looked at on beat's own thread, between two rounds of it, because it may be a file or a database
    that nobody else may touch meanwhile.
    """

    def __init__(self, service: Any, changed: Callable[[], None]) -> None:
        self._scheduler = scheduler = service.scheduler
        self._changed = changed
        self._entries: list[Any] = []
        self._names: frozenset[str] = frozenset()
        self._wanted = True
        """Has the schedule been asked for since it was looked at?"""
        self._expected = time.monotonic() + _PATIENCE
        """When beat will be standing still, unless it begins its next round before."""
        self._note = quiet(self._look)
        self._hooked = Hooked(scheduler, {"tick": self._tick, "apply_async": self._apply_async})
        self._note()

    def remove(self) -> None:
        """Take the hooks out."""
        self._hooked.remove()

    def readings(self, scheduler: str) -> Iterator[Reading]:
        """Beat itself, under a name of its own, and the jobs that it makes due."""
        at, runs = time.time(), time.monotonic() < self._expected
        entries, self._wanted = self._entries, True
        yield SchedulerState(
            scheduler=f"{scheduler}-beat",
            system="celery",
            at=at,
            up=True,
            running=runs,
            summary=(f"{type(self._scheduler).__qualname__} of {scheduler}, {len(entries)} entries",),
        )
        jobs = tuple(job_of(entry, at) for entry in entries)
        yield Jobs(scheduler=scheduler, at=at, jobs=jobs, complete=False)

    def _tick(self, *args: Any, **kwargs: Any) -> Any:
        self._expected = time.monotonic() + _PATIENCE
        pause = self._hooked.found["tick"](*args, **kwargs)
        self._expected = time.monotonic() + _PATIENCE + (pause if isinstance(pause, int | float) else 0.0)
        self._note()
        return pause

    def _apply_async(self, entry: Any, *args: Any, **kwargs: Any) -> Any:
        token = planned.set(_plan(entry))
        try:
            return self._hooked.found["apply_async"](entry, *args, **kwargs)
        finally:
            planned.reset(token)

    def _look(self) -> None:
        """Look at the schedule, if somebody wants to know."""
        if not self._wanted:
            return
        self._wanted = False
        self._entries = list(self._scheduler.schedule.values())
        names = frozenset(entry.name for entry in self._entries)
        if names != self._names:
            self._names = names
            self._changed()


def job_of(entry: Any, at: float) -> Job:
    """The job that an entry of the schedule makes due; several entries may share one."""
    schedule, due = entry.schedule, due_of(entry, at)
    paused = not getattr(getattr(entry, "model", entry), "enabled", True)
    fired = entry.last_run_at.timestamp() if entry.total_run_count and entry.last_run_at else None
    trigger = Trigger(
        key=entry.name,
        state="PAUSED" if paused else "WAITING",
        schedule=_text(schedule),
        description=entry.name,
        timezone=str(getattr(schedule, "tz", "") or ""),
        next_run=None if paused else due,
        previous_run=fired,
    )
    return Job(
        name=entry.task,
        key=entry.name,
        function=entry.task,
        queue=str((entry.options or {}).get("queue") or ""),
        paused=paused,
        next_run=trigger.next_run,
        previous_run=fired,
        interval=_interval(schedule, due),
        triggers=(trigger,),
    )


def due_of(entry: Any, now: float) -> float | None:
    """When the entry is due: after its last run, so it may be past. None where its schedule cannot say."""
    with suppress(Exception):  # anybody's schedule
        remaining: timedelta = entry.schedule.remaining_estimate(entry.last_run_at)
        return round(now + remaining.total_seconds(), 2)
    return None


def _plan(entry: Any) -> Plan | None:
    """Why the entry is published now; None where it has no name."""
    name, now = getattr(entry, "name", None), time.time()
    due = due_of(entry, now)  # rounded, so that it may seem to be due a moment later
    return Plan(str(name), due and min(due, now)) if name else None


def _interval(schedule: Any, due: float | None) -> float | None:
    """Seconds between its next two due times."""
    every = getattr(schedule, "run_every", None)
    if isinstance(every, timedelta):
        return every.total_seconds()
    if due is None:
        return None
    with suppress(Exception):  # anybody's schedule
        then = datetime.fromtimestamp(due, tz=schedule.tz)
        remaining: timedelta = schedule.remaining_estimate(then)
        return round(time.time() + remaining.total_seconds() - due, 2)
    return None


def _text(schedule: Any) -> str:
    """The schedule in Celery's words: `crontab: */5 3 * * *`, `freq: 30.00 seconds`."""
    words = " ".join(repr(schedule).split())  # those that are kept in databases may have lines of their own
    return words.strip("<> ").replace(" (m/h/dM/MY/d)", "").replace(" (m/h/d/dM/MY)", "").replace(">", "")
