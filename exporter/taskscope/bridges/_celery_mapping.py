"""What becomes of Celery's words for a task: the same rows, whichever way it is watched.

A run is one attempt: `native` is the task's id, `attempt` its retries; there is no anchor, because the end of a task
does not know when it was sent. Job is the name of the task, worker the name of the node (`celery@host`).
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from taskscope.events import Status

ENQUEUED = "taskscope_enqueued"
"""Header: when the message was published, in seconds since the epoch."""
ENTRY = "taskscope_entry"
"""Header: the entry of beat's schedule that made the task due."""
DUE = "taskscope_due"
"""Header: when that entry was due, in seconds since the epoch."""
TRACEPARENT = "traceparent"
"""Header: the trace that the message belongs to, as W3C writes it."""

RETRY_KIND = "celery.exceptions.Retry"

INTERRUPTED: tuple[Status, str] = ("retried", "interrupted")
"""Of a run that Celery itself gave up, because its worker ended or lost its broker."""
_ENDS: dict[str, tuple[Status, str]] = {
    "TimeoutError": ("failed", "timeout"),
    "billiard.exceptions.SoftTimeLimitExceeded": ("failed", "timeout"),
    "billiard.exceptions.Terminated": ("skipped", "cancelled"),
    "billiard.exceptions.TimeLimitExceeded": ("failed", "timeout"),
    "billiard.exceptions.WorkerLostError": ("failed", "worker_lost"),
    "celery.exceptions.Ignore": ("skipped", "ignored"),
    "celery.exceptions.NotRegistered": ("failed", "unknown_task"),
    "celery.exceptions.Reject": ("skipped", "rejected"),
    "celery.exceptions.TaskRevokedError": ("skipped", "cancelled"),
    "celery.exceptions.TimeoutError": ("failed", "timeout"),
}
"""By the class of the exception with its module: the user may have one of the same name."""
KINDS = {kind.rpartition(".")[2]: kind for kind in sorted(_ENDS, reverse=True)}
"""What a class most likely is of which nobody says the module; before Celery's own, one of Python's."""


def ending(kind: str) -> tuple[Status, str]:
    """Status and reason of a run that ended by an exception of this class (`billiard.exceptions.WorkerLostError`)."""
    return _ENDS.get(kind, ("failed", "error"))


def revoked(expired: bool) -> tuple[Status, str]:
    """Status and reason of a run that was revoked."""
    return "skipped", "expired" if expired else "cancelled"


def rejected(requeue: bool) -> tuple[Status, str]:
    """Status and reason of a run that was given back to the broker."""
    return ("retried", "requeued") if requeue else ("skipped", "rejected")


def due(task: Mapping[str, Any]) -> float | None:
    """When a run was due: its ETA, else what beat says; `task` holds the message's headers, or the event's fields."""
    return seconds(task.get("eta")) or number(task.get(DUE))


def details(task: Mapping[str, Any]) -> dict[str, Any] | None:
    """What else is known of a run; None for one like most others, which then is a light row."""
    found = {
        "parent": task.get("parent_id"),
        "root": task.get("root_id") if task.get("root_id") != task.get("id", task.get("uuid")) else None,
        "group": task.get("group"),
        "expires": task.get("expires"),
        "priority": (task.get("delivery_info") or {}).get("priority"),
        "redelivered": (task.get("delivery_info") or {}).get("redelivered"),
        "beat_entry": task.get(ENTRY),
        "eager": task.get("is_eager"),
    }
    return {name: value for name, value in found.items() if value} or None


def trace_id(traceparent: object) -> str:
    """The trace in a W3C `traceparent`; empty where there is none."""
    parts = traceparent.split("-") if isinstance(traceparent, str) else ()
    return parts[1] if len(parts) >= 4 and len(parts[1]) == 32 else ""


def seconds(moment: object) -> float | None:
    """Seconds since the epoch, from ISO 8601 or a datetime; what says no time zone means UTC."""
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment)
        except ValueError:
            return None
    if not isinstance(moment, datetime):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def number(value: object) -> float | None:
    """The number that a foreign header holds; None for anything else."""
    return float(value) if isinstance(value, int | float) and value > 0 else None
