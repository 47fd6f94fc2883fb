"""Which run is being executed here, in this thread, coroutine or process-pool child, and what it reports."""

import logging
import sys
import time
from collections.abc import Callable
from contextvars import ContextVar, Token
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

logger = logging.getLogger("taskscope")

_LONGEST = 4_096  # characters of what a run says of itself


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


enter: Callable[[Making], Token[Making | None]] = _current.set
"""Says that from here on this run is being executed; hand the token to `leave`."""

entered: Callable[[], Making | None] = _current.get
"""What was entered last and is not left; None outside of any run."""


def leave(token: Token[Making | None]) -> None:
    """Say that the run is over."""
    try:
        _current.reset(token)
    except ValueError:  # a coroutine that nobody awaited to its end is closed wherever the collector runs
        _current.set(None)


def capture_exception(error: BaseException | None = None, /, **data: Any) -> None:
    """Report this exception, by default the one that is being handled, as one that the current run survives.

    `data` is kept with it, by repr and without secrets. Never raises and never blocks; outside of a run, and where
    nobody watches, it does nothing.
    """
    if (error := error or sys.exception()) is not None:
        _tell(lambda now: {"captured": _captured(error, data, now)})


def describe_run(*, entity: object = None, key: object = None, result: object = None) -> None:
    """Say what the current run works for, what it is called there, and what came of it, each when it is known.

    `entity` is a shop, a tenant, a database; `key` the number of an order, the name of a file; `result` a few words.
    Of two values of one the greater text stays. Never raises and never blocks; outside of a run, and where nobody
    watches, it does nothing.
    """
    told = {"entity": entity, "key": key, "result": result}
    _tell(lambda now: {name: str(value)[:_LONGEST] for name, value in told.items() if value is not None})


def _captured(error: BaseException, data: dict[str, Any], now: float) -> Any:
    from uuid import uuid4  # slow to import, as the others, and a pool has many children

    from taskscope.events import Captured
    from taskscope.failure import describe_caught

    return Captured(key=uuid4().hex, at=now, error=describe_caught(error, data))


def _tell(what: Callable[[float], dict[str, Any]]) -> None:
    """Tell something of the current run, which makes it a fact about it."""
    try:
        making = _current.get()
        if making is not None and (tell := getattr(making, "tell", None)) is not None:
            tell(_fact(making(), what))
    except Exception:  # whatever is wrong here: the program has trouble enough
        logger.debug("taskscope could not tell what a run says of itself", exc_info=True)


def _fact(run: Run, what: Callable[[float], dict[str, Any]]) -> Any:
    from taskscope.events import Fact

    now = time.time()
    return Fact(
        scheduler=run.scheduler,
        native=run.native,
        attempt=run.attempt,
        anchor=run.anchor,
        job=run.job_name,
        due=run.due,
        status="started",
        started=0.0,
        at=now,
        **what(now),
    )


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
    if record.exc_info and not getattr(record, "captured", False):
        record.captured = True
        capture_exception(record.exc_info[1], logger=record.name, logged=record.getMessage())


@lru_cache(maxsize=256)
def _text(scheduler: str, native: str, attempt: int, anchor_ms: int) -> str:
    from taskscope.identity import run_id, text  # slow to import, and a pool has many children

    return text(run_id(scheduler, native, attempt, anchor_ms))
