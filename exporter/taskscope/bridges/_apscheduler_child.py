"""What an executor gets in a job's place: it looks like the job, and runs it measured.

Children of process pools import this module: it needs the standard library and `taskscope.run`, nothing else.
"""

import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from contextvars import Token
from operator import attrgetter
from typing import Any, NamedTuple

from taskscope.run import Making, Run, enter, leave

NEWS = struct.Struct("<QIddI")
"""The datagram about a run: submission number, place of the run in it, start, duration (-1: it begins), pid."""

_TOLD = 1_000  # facts of one run that its report holds


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
    told: tuple[Any, ...] = ()
    """`taskscope.events.Fact`s that the run told of itself."""


class SubmissionId(str):
    """A job's id that knows of which submission it speaks, since APScheduler's own does not."""

    __slots__ = ("carries",)

    carries: Any
    """The submission itself; in a process-pool child, and from there back home, the list of its reports."""

    def __reduce__(self) -> tuple[Any, ...]:
        return carrying, (str.__str__(self), self.carries)


def carrying(job_id: str, carries: Any) -> SubmissionId:
    """The id of the job, and what it carries."""
    carrier = SubmissionId(job_id)
    carrier.carries = carries
    return carrier


class Likeness:
    """Looks like a job to an executor: what it is asked the job answers, except for `id` and `func`."""

    __slots__ = ("job",)

    job: Any

    args = property(attrgetter("job.args"))
    kwargs = property(attrgetter("job.kwargs"))
    misfire_grace_time = property(attrgetter("job.misfire_grace_time"))
    _jobstore_alias = property(attrgetter("job._jobstore_alias"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.job, name)

    def __str__(self) -> str:
        return str(self.job)


class StandIn(Likeness):
    """Stands in for a job in a process-pool child, and has its runs measured."""

    __slots__ = ("_many", "_reporter", "_times", "id")

    def __init__(self, job: Any, times: Any, reporter: "Reporter", reports: list[Report]) -> None:
        self.job, self._times, self._reporter = job, times, reporter
        self._many = len(times) > 1
        self.id = carrying(job.id, reports)

    def func(self, *args: Any, **kwargs: Any) -> Any:
        """The job's function, followed."""
        place = self._times.current if self._many else 0
        token = self._reporter.begin(place)
        try:
            result = self.job.func(*args, **kwargs)
        except BaseException as error:
            self._reporter.end(place, error)
            raise
        else:
            self._reporter.end(place, None)
            return result
        finally:
            leave(token)


def in_child(job: Any, times: Any, runs: list[tuple[Any, ...]], number: int, address: str) -> StandIn:
    """The stand-in as it arrives in a process-pool child."""
    reports: list[Report] = []
    return StandIn(job, times, Reporter(runs, reports, number, address), reports)


class Reporter:
    """Measures runs in a process-pool child and reports them: at once by datagram, and with the result."""

    def __init__(self, runs: list[tuple[Any, ...]], reports: list[Report], number: int, address: str) -> None:
        self._runs, self._reports, self._number, self._address = runs, reports, number, address
        self._started = self._begun = 0.0
        self._told: list[Any] = []

    def begin(self, place: int) -> Token[Making | None]:
        """Send that it has started."""
        self._started = time.time()
        self._send(place, -1.0)
        self._told = []
        token = enter(_Executed(self._runs[place], self._told))
        self._begun = time.perf_counter()
        return token

    def end(self, place: int, error: BaseException | None) -> None:
        """Put down how it went."""
        duration = time.perf_counter() - self._begun
        if error is None:  # should the worker die or its result be lost, this run succeeded all the same
            self._send(place, duration)
        described, reason = _described(error) if error is not None else (None, "")
        report = Report(place, self._started, duration, os.getpid(), described, reason, tuple(self._told))
        self._reports.append(report)

    def _send(self, place: int, duration: float) -> None:
        """Send, or lose it: the report comes with the result anyway."""
        if self._address:
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto(
                    NEWS.pack(self._number, place, self._started, duration, os.getpid()), self._address
                )


class _Executed:
    """The run that is being executed, and what it tells of itself until it has ended."""

    __slots__ = ("_context", "_told")

    def __init__(self, context: tuple[Any, ...], told: list[Any]) -> None:
        self._context, self._told = context, told

    def __call__(self) -> Run:
        return Run(*self._context)

    def tell(self, fact: Any) -> None:
        """Keep it for the report."""
        if len(self._told) < _TOLD:
            self._told.append(fact)


def _described(error: BaseException) -> tuple[Any, str]:
    from taskscope.failure import describe, reason_of  # only a failure pays for this import

    return describe(error, skip=1), reason_of(error)
