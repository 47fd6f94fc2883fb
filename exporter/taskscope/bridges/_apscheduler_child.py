"""What an executor gets in a job's place: it looks like the job, and runs it measured.

Children of process pools import this module: it needs the standard library and `taskscope.run`, nothing else.
"""

import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import Token
from typing import Any, NamedTuple

from taskscope.run import Run, enter, leave

NEWS = struct.Struct("<QIddI")
"""The datagram about a run: submission number, index of the run, start, duration (-1: it begins), pid."""


class RunTimes(list[Any]):
    """The due times of a submission; remembers which of them is being executed."""

    current = 0

    def __iter__(self) -> Iterator[Any]:
        for self.current, due in enumerate(super().__iter__()):
            yield due

    def __reduce__(self) -> tuple[Any, ...]:
        return RunTimes, (self.copy(),)


class Report(NamedTuple):
    """How a run went in a process-pool child."""

    place: int
    """Of its due time in the submission."""
    started: float
    duration: float
    pid: int
    error: Any
    """`taskscope.events.Error`; None after a success."""
    reason: str


class SubmissionId(str):
    """A job's id that knows of which submission it speaks, since APScheduler's own does not."""

    submission: Any
    """The submission; None beyond the process that submitted."""
    reports: list[Report]
    """What a process-pool child measured: it travels back with the events, which hold this id."""

    def __new__(cls, job_id: str, submission: Any, reports: list[Report]) -> "SubmissionId":
        """The id of the job, and what it carries."""
        self = super().__new__(cls, job_id)
        self.submission, self.reports = submission, reports
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return SubmissionId, (str.__str__(self), None, self.reports)


class StandIn:
    """Stands in for a job in an executor: what it is asked the job answers, except for `id` and `func`."""

    __slots__ = ("job", "times")

    def __init__(self, job: Any, times: RunTimes) -> None:
        self.job, self.times = job, times

    def __getattr__(self, name: str) -> Any:
        return getattr(self.job, name)

    def __str__(self) -> str:
        return str(self.job)

    @property
    def func(self) -> Callable[..., Any]:
        """The job's function, measured."""
        return self._call

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        index = self.times.current
        token = self._begin(index)
        try:
            result = self.job.func(*args, **kwargs)
        except BaseException as error:
            self._end(index, error)
            raise
        else:
            self._end(index, None)
            return result
        finally:
            leave(token)

    def _begin(self, index: int) -> Token[Run | None]:
        raise NotImplementedError

    def _end(self, index: int, error: BaseException | None) -> None:
        raise NotImplementedError


class ChildSubmission(StandIn):
    """A submission as it arrives in a process-pool child."""

    __slots__ = ("_address", "_begun", "_number", "_reports", "_runs", "_started")

    def __init__(
        self, job: Any, times: RunTimes, runs: list[tuple[Any, ...]], number: int, address: str
    ) -> None:
        super().__init__(job, times)
        self._runs, self._number, self._address = runs, number, address
        self._reports: list[Report] = []
        self._started = self._begun = 0.0

    @property
    def id(self) -> SubmissionId:
        """The job's id, which carries the reports home."""
        return SubmissionId(self.job.id, None, self._reports)

    def _begin(self, index: int) -> Token[Run | None]:
        self._started = time.time()
        self._send(index, -1.0)
        token = enter(Run(*self._runs[index]))
        self._begun = time.perf_counter()
        return token

    def _end(self, index: int, error: BaseException | None) -> None:
        duration = time.perf_counter() - self._begun
        if error is None:  # should the worker die or its result be lost, this run succeeded all the same
            self._send(index, duration)
        described, reason = _described(error) if error is not None else (None, "")
        self._reports.append(Report(index, self._started, duration, os.getpid(), described, reason))

    def _send(self, index: int, duration: float) -> None:
        """Send, or lose it: the report comes with the result anyway."""
        if self._address:
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto(
                    NEWS.pack(self._number, index, self._started, duration, os.getpid()), self._address
                )


def _described(error: BaseException) -> tuple[Any, str]:
    from taskscope.failure import describe, reason_of  # only a failure pays for this import

    return describe(error, skip=1), reason_of(error)
