"""The way from inside: hooks on the methods of one worker object.

The worker's own process tells everything. A child that it forks for a job writes what it knows into a file without a
name, which the worker reads when the child is gone: a few µs, no connection, and nothing is lost when it is killed.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from taskscope.bridges._hooked import Hooked
from taskscope.bridges._quiet import quiet
from taskscope.bridges._rq_attempts import Attempts, Doing
from taskscope.bridges._rq_layout import MARK, Keys
from taskscope.bridges._rq_outside import client_of, prefix_of
from taskscope.bridges._rq_readings import Readings
from taskscope.bridges._rq_runs import Attempt, Runs
from taskscope.bridges._rq_survey import Surveyor
from taskscope.contracts import Emit
from taskscope.errors import BadArgument
from taskscope.events import Fact, Reading
from taskscope.facts import BIT_OF, TERMINAL
from taskscope.instance import instance

if TYPE_CHECKING:
    from taskscope.bridges.rq import RQBridge

_LATELY = 86_400.0  # seconds; an attempt's end is newer than its beginning, whose job is asked for alone
_HOOKED = (
    "prepare_execution", "prepare_job_execution", "handle_execution_ended", "handle_job_success", "handle_job_retry",
    "handle_job_failure", "fork_work_horse", "monitor_work_horse", "register_birth",
)  # fmt: skip


class Inside:
    """Watches one worker."""

    def __init__(self, bridge: "RQBridge", emit: Emit) -> None:
        """Raises `BadArgument` if the worker is being watched already."""
        worker = self._worker = bridge.target
        if any(hasattr(vars(worker).get(name), "of_taskscope") for name in _HOOKED):
            raise BadArgument(
                f"the worker given as {bridge.name!r} is being watched already; close that Exporter before"
            )
        self._client, self._keys = client_of(worker), Keys(prefix_of(bridge))
        self._surveyor = Surveyor(self._client, self._keys)
        self._readings = Readings(bridge.name, self._client, self._keys, described=False)
        self._attempts = Attempts(bridge.name, worker, bridge.instance or instance(), self._tell)
        self._emit: Emit | None = emit
        self._name = bridge.name
        self._pid = os.getpid()
        self._forking = False
        self._page: int | None = None
        """A file without a name, on which a child writes one fact in each line."""
        there = [name for name in _HOOKED if hasattr(worker, name)]  # a worker without children has fewer
        self._hooked = Hooked(worker, {name: self._hook(name) for name in there})

    def poll(self) -> Iterator[Reading]:
        """What is true right now, also of other queues: what a reading leaves out is promised no more."""
        survey = self._surveyor.survey(lambda batch, survey: None)
        self._readings.look(survey)
        return self._readings.read(survey, None)

    def detach(self) -> None:
        """Take the hooks out."""
        self._hooked.remove()
        self._emit = None
        if self._client is not self._worker.connection:
            self._client.close()

    def abandon(self) -> bool:
        """A child for a job keeps the hooks; what it has to say goes into the file."""
        self._emit = None
        if self._forking:
            return False
        self._hooked.remove()
        return True

    def _hook(self, name: str) -> Callable[..., Any]:
        """Ours around a method of the worker, whose own is called whatever goes wrong with ours."""
        before, after = self._ours(f"before_{name}"), self._ours(f"after_{name}")

        def hooked(*args: Any, **kwargs: Any) -> Any:
            before(args, kwargs)
            result = self._hooked.found[name](*args, **kwargs)
            after((result, *args), kwargs)
            return result

        hooked.of_taskscope = True  # type: ignore[attr-defined] # how our own hooks are known
        return hooked

    def _ours(self, name: str) -> Callable[..., None]:
        """What is called around it: a method of ours, or of the attempts, or nothing."""
        method = getattr(self, f"_{name}", None) or getattr(self._attempts, name, None)
        return quiet(lambda args, kwargs: method(*args, **kwargs)) if method else _nothing

    def _after_register_birth(self, _: None) -> None:
        self._worker.connection.hset(self._worker.key, MARK, 1)

    def _before_fork_work_horse(self, *_: Any) -> None:
        """Whatever becomes of the child, its page is ours."""
        self._turn_over()
        self._page = os.memfd_create("taskscope") if hasattr(os, "memfd_create") else _nameless_file()
        self._forking = True

    def _after_fork_work_horse(self, *_: Any) -> None:
        """Only the worker gets here; the child executes its job and exits."""
        self._forking = False

    def _after_monitor_work_horse(self, _: None, job: Any, *__: Any, **___: Any) -> None:
        """The child is gone. What it wrote down is told; else the worker told the end, or Redis knows it."""
        for fact in self._written():
            self._tell(fact)
            if BIT_OF[fact.status] & TERMINAL:
                self._attempts.open.pop(job.id, None)
        if doing := self._attempts.open.pop(job.id, None):
            self._ask_for_the_end(doing)

    def _ask_for_the_end(self, doing: Doing) -> None:
        """A child that was not forked, as those of a `SpawnWorker`, wrote nothing down."""
        runs = Runs(self._name, self._client, self._keys, described=False, catch_up=_LATELY)
        attempt = Attempt(doing.id, doing.job, doing.anchor, self._worker.name)
        for fact in runs.outcome(attempt, time.time()):
            name = doing.job.name or fact.job
            self._tell(replace(fact, job=name, anchor=doing.anchor, instance=self._attempts.instance))

    def _tell(self, fact: Fact) -> None:
        """In the worker at once, in its child onto the page."""
        if os.getpid() == self._pid:
            if self._emit is not None:
                self._emit(fact)
        elif self._page is not None:
            os.write(self._page, msgspec.json.encode(fact) + b"\n")

    def _written(self) -> list[Fact]:
        """What the page says; a line that the child did not finish is none."""
        if self._page is None:
            return []
        with open(self._page, "rb", closefd=False) as page:
            page.seek(0)
            lines = [line for line in page if line.endswith(b"\n")]
        self._turn_over()
        return [msgspec.json.decode(line, type=Fact) for line in lines]

    def _turn_over(self) -> None:
        page, self._page = self._page, None
        if page is not None:
            os.close(page)


def _nothing(args: Any, kwargs: Any) -> None:
    """Nothing of ours belongs there."""


def _nameless_file() -> int:
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
