"""Stamps on the messages that a program publishes: when, for which entry of beat, within which trace."""

import sys
import time
from contextvars import ContextVar
from typing import Any, NamedTuple

from celery import _state

from taskscope.bridges._celery_mapping import DUE, ENQUEUED, ENTRY, TRACEPARENT


class Plan(NamedTuple):
    """Why beat publishes a message."""

    entry: str
    due: float | None


planned: ContextVar[Plan | None] = ContextVar("taskscope_celery_plan", default=None)
"""What beat publishes now."""


def stamp(headers: dict[str, Any] | None = None, **_: Any) -> None:
    """Stamp a message. A retry carries the stamps of the attempt before it; a trace that is there stays."""
    if headers is None:
        return
    headers[ENQUEUED] = time.time()
    if headers.get("retries"):
        headers.pop(DUE, None)
    if plan := planned.get():
        headers[ENTRY], headers[DUE] = plan
    if TRACEPARENT not in headers and (traceparent := _traceparent()):
        headers[TRACEPARENT] = traceparent


def _traceparent() -> str | None:
    """The trace that is going on here: OpenTelemetry's, else that of the task which publishes."""
    if (opentelemetry := sys.modules.get("opentelemetry.trace")) is not None:
        span = opentelemetry.get_current_span().get_span_context()
        if span.is_valid:
            return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"
    task = _state.get_current_task()
    found = task.request.get(TRACEPARENT) if task is not None else None
    return found if isinstance(found, str) else None
