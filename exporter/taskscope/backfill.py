"""Functions by which a program starts work again, when somebody asks: only it knows what is missing.

They belong to the process, as the modules do that hold them. Only the standard library is imported at first: with such
a module, the children of a process pool import this one.
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import NamedTuple, TypeAlias, TypeVar

from taskscope.errors import BadArgument, Unavailable

Function: TypeAlias = Callable[[str | None, bool], int | str | None]
F = TypeVar("F", bound=Function)
Key: TypeAlias = tuple[str, str]

_AT_ONCE = 4
"""Functions that may run in this process, each on a thread of its own."""


class Backfill(NamedTuple):
    """What was asked for, and what came of it."""

    scheduler: str
    job: str
    entity: str | None
    force: bool
    actor: str
    """The name of the token; empty where none is needed."""
    started: float
    ended: float | None = None
    result: str = ""
    error: str = ""
    """Class and message of what the function raised."""

    @property
    def key(self) -> Key:
        """Of which job."""
        return self.scheduler, self.job


class Backfills:
    """The functions that are registered, and what they do."""

    def __init__(self) -> None:
        self._functions: dict[tuple[str | None, str], Function] = {}
        self._running: dict[Key, Backfill] = {}
        self._ended: dict[Key, Backfill] = {}
        os.register_at_fork(after_in_child=self._running.clear)  # their threads are the parent's

    def register(self, scheduler: str | None, job: str, function: Function) -> None:
        """Take this function for the job; None: of whichever scheduler. It takes the place of an earlier one."""
        self._functions[scheduler, job] = function

    def function(self, key: Key) -> Function | None:
        """The function for this job."""
        return self._functions.get(key) or self._functions.get((None, key[1]))

    def latest(self, key: Key) -> Backfill | None:
        """What this process does for the job, or did last."""
        return self._running.get(key) or self._ended.get(key)

    def start(self, asked: Backfill, function: Function, shown: Callable[[str], str]) -> Future[Backfill]:
        """Call the function on a thread of its own; `shown` makes fit to be shown what it says.

        The future ends with what came of it, also where the function raises. Raises `Unavailable` while one runs for
        the same job, or too many do.
        """
        running = self._running.setdefault(asked.key, asked)  # of two at once, only one finds its own
        if running is not asked:
            raise Unavailable(f"A backfill of {asked.job!r} runs already; wait until it has ended.")
        try:
            if len(self._running) > _AT_ONCE:
                raise Unavailable(f"{_AT_ONCE} backfills run already; wait until one has ended.")
            end: Future[Backfill] = Future()
            end.set_running_or_notify_cancel()  # whoever no longer waits for it does not cancel it
            work = (asked, function, shown, end)
            Thread(target=self._work, args=work, name="taskscope-backfill", daemon=True).start()
        except (Unavailable, RuntimeError) as error:  # also where the system has no thread left
            del self._running[asked.key]
            raise Unavailable(str(error)) from error
        return end

    def _work(
        self, asked: Backfill, function: Function, shown: Callable[[str], str], end: Future[Backfill]
    ) -> None:
        begun = time.monotonic()
        told = _told(asked, function, shown)
        ended = self._ended[asked.key] = told._replace(ended=asked.started + time.monotonic() - begun)
        del self._running[asked.key]
        end.set_result(ended)


backfills = Backfills()
"""Those of this process."""


def on_backfill(job: str, *, scheduler: str | None = None) -> Callable[[F], F]:
    """Have the function below start a job's work again when somebody asks for it; use it as a decorator.

    It is called as `function(entity, force)`, on a thread of its own, and never twice at once for one job. `entity` is
    the shop, tenant or database that is meant, None for all; with `force` it creates everything anew, also what
    failed, without it only what is missing. It may return how much it made, or a sentence. Without `scheduler` it is
    for the job of this name of every scheduler that is watched here.
    """
    if not isinstance(job, str) or not job:
        raise BadArgument(f"job must be the name of a job, not {job!r}: @taskscope.on_backfill('orders')")

    def register(function: F) -> F:
        from inspect import iscoroutinefunction  # slow to import

        if iscoroutinefunction(function):
            raise BadArgument(
                f"what starts {job!r} again must be a plain function: no loop runs on its thread"
            )
        backfills.register(scheduler, job, function)
        return function

    return register


def _told(asked: Backfill, function: Function, shown: Callable[[str], str]) -> Backfill:
    """What the function says, or what it raises."""
    try:
        said = function(asked.entity, asked.force)
        return asked._replace(result="" if said is None else shown(str(said)))
    except BaseException as error:  # noqa: BLE001 - whatever it raises is told to whoever asked
        from taskscope.failure import describe  # slow to import, and mostly not needed

        told = describe(error)
        return asked._replace(error=shown(f"{told.kind}: {told.message}"))
