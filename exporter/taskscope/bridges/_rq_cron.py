"""The promises of `rq cron`: which job it enqueues next, and when; also of a cron scheduler that is gone."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from cronsim import CronSim, CronSimError
from msgspec import Struct

from taskscope.bridges._rq_layout import moment
from taskscope.events import Job, Trigger

_MEMORY = 86_400.0
"""Seconds for which the promises of a cron scheduler that died are kept: they are what nobody keeps any more."""


class _Promise(Struct):
    job: dict[str, Any]
    heard: float
    """When its cron scheduler was last there."""
    alive: bool = True


class Crons:
    """The jobs of all cron schedulers: of several that have the same job, the one born last counts."""

    def __init__(self) -> None:
        self._promises: dict[tuple[str, ...], _Promise] = {}

    def read(self, schedulers: Mapping[str, tuple[str, str]], at: float) -> None:
        """Take in what the cron schedulers that live say at this moment."""
        for promise in self._promises.values():
            promise.alive = False
        for text, _ in sorted(schedulers.values(), key=lambda said: said[1]):
            for job in _jobs_in(text):
                self._promises[_key(job)] = _Promise(job, at)
        for key in [key for key, promise in self._promises.items() if at - promise.heard > _MEMORY]:
            del self._promises[key]

    def jobs(self) -> Iterable[Job]:
        """The jobs with their promises."""
        for key, promise in self._promises.items():
            yield _defined("/".join(key), promise)


def _jobs_in(text: str) -> list[dict[str, Any]]:
    try:
        found = json.loads(text)
    except ValueError:
        return []
    jobs = found if isinstance(found, list) else []
    return [job for job in jobs if isinstance(job, dict) and isinstance(job.get("func_name"), str)]


def _key(job: dict[str, Any]) -> tuple[str, ...]:
    parts = ("name", "func_name", "queue_name", "cron", "interval", "args", "kwargs")
    return tuple(str(job.get(part) or "") for part in parts)


def _defined(key: str, promise: _Promise) -> Job:
    job, heard = promise.job, promise.heard
    function, cron, every = str(job["func_name"]), job.get("cron"), job.get("interval")
    due = moment(job.get("next_enqueue_time")) or heard  # one that was never enqueued is due at once
    interval = float(every) if isinstance(every, int | float) else _between(str(cron or ""), due)
    trigger = Trigger(
        key=key,
        state="WAITING" if promise.alive else "ERROR",
        schedule=f"cron {cron}" if cron else f"every {every} s",
        next_run=due,
        previous_run=moment(job.get("latest_enqueue_time")),
    )
    name = str(job.get("name") or function)
    return Job(
        name=function,
        key=key,
        function=function,
        description="" if name == function else name,
        queue=str(job.get("queue_name") or ""),
        next_run=due,
        previous_run=trigger.previous_run,
        interval=interval,
        triggers=(trigger,),
    )


def _between(expression: str, due: float) -> float | None:
    """Seconds between the due time and the one after it; None where the expression is none that we know."""
    try:
        return next(CronSim(expression, datetime.fromtimestamp(due, UTC))).timestamp() - due
    except (CronSimError, StopIteration, OverflowError, ValueError):
        return None
