"""Which run is being executed here: in this thread, coroutine or process-pool child."""

import logging
from collections.abc import Callable
from contextvars import ContextVar, Token
from functools import lru_cache
from typing import NamedTuple, TypeAlias


class Run(NamedTuple):
    """The run that is being executed."""

    scheduler: str
    job_name: str
    native: str
    attempt: int
    due: float | None
    """When it was due, in seconds since the epoch."""
    anchor: float | None
    """The point in time that its id holds; None where its scheduler knows none."""

    @property
    def run_id(self) -> str:
        """Its id as API and history show it; the scheduler's own id where only the history can say."""
        if self.anchor is None:
            return self.native
        return _text(self.scheduler, self.native, self.attempt, round(self.anchor * 1000))


Making: TypeAlias = Callable[[], Run]
"""Makes the run when somebody asks: mostly nobody does.

One with a method `tell` takes facts about the run; without it, exceptions that the run reports are told to nobody.
"""

_current: ContextVar[Making | None] = ContextVar("taskscope_run", default=None)


def current_run() -> Run | None:
    """The run that the caller is part of; None outside of any."""
    making = _current.get()
    return making() if making else None


def current_making() -> Making | None:
    """What makes the run that the caller is part of."""
    return _current.get()


enter: Callable[[Making], Token[Making | None]] = _current.set
"""Says that from here on this run is being executed; hand the token to `leave`."""


def leave(token: Token[Making | None]) -> None:
    """Say that the run is over."""
    try:
        _current.reset(token)
    except ValueError:  # a coroutine that nobody awaited to its end is closed wherever the collector runs
        _current.set(None)


class RunFilter(logging.Filter):
    """Adds `run_id` and `job_name` to every log record; `-` outside of a run.

    Put it on a handler: `handler.addFilter(RunFilter())`, with `%(run_id)s` in the format. With `capture=True` an
    exception that is logged within a run as an error is reported, too, as `capture_exception` does.
    """

    def __init__(self, name: str = "", *, capture: bool = False) -> None:
        super().__init__(name)
        self._captures = capture

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record through."""
        run = current_run()
        if run and self._captures and record.exc_info and record.levelno >= logging.ERROR:
            _report(record)
        record.run_id = run.run_id if run else "-"
        record.job_name = run.job_name if run else "-"
        return True


def _report(record: logging.LogRecord) -> None:
    """Report the logged exception, once for all handlers."""
    from taskscope.capture import capture_exception

    if record.exc_info and not getattr(record, "captured", False):
        record.captured = True
        capture_exception(record.exc_info[1], logger=record.name, logged=record.getMessage())


@lru_cache(maxsize=256)
def _text(scheduler: str, native: str, attempt: int, anchor_ms: int) -> str:
    from taskscope.identity import run_id, text  # slow to import, and a pool has many children

    return text(run_id(scheduler, native, attempt, anchor_ms))
