"""How the exam makes each kind of scheduler do something. A new bridge adds its driver here."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, ClassVar

from apscheduler.schedulers.background import BackgroundScheduler

from services.process import until
from taskscope.testing import FakeRun, FakeScheduler


class Driver(ABC):
    """A scheduler that the exam can give work to."""

    system: ClassVar[str]
    target: Any

    def __init__(self) -> None:
        self.executed: list[str] = []

    @abstractmethod
    def run(self, job: str, does: Callable[[], object] = lambda: None) -> None:
        """Let the job run once, soon; it does this."""

    @abstractmethod
    def define(self, job: str) -> None:
        """Add a job that does not run during the exam."""

    @abstractmethod
    def hooks(self) -> object:
        """Everything on the scheduler that a bridge could leave behind, to be compared."""

    def close(self) -> None:  # noqa: B027 - most have nothing to end
        """End the scheduler."""


class FakeDriver(Driver):
    system = "fake"

    def __init__(self) -> None:
        super().__init__()
        self.target = FakeScheduler()

    def run(self, job: str, does: Callable[[], object] = lambda: None) -> None:
        run: FakeRun = self.target.job(job).start()
        begun = time.monotonic()
        try:
            does()
        except Exception as error:  # noqa: BLE001 - as any scheduler does
            run.end(time.monotonic() - begun, fails=error)
        else:
            run.end(time.monotonic() - begun)
        self.executed.append(job)

    def define(self, job: str) -> None:
        self.target.job(job, next_run=time.time() + 3600)

    def hooks(self) -> object:
        return list(self.target.listeners), list(self.target.changed)


class APSchedulerDriver(Driver):
    system = "apscheduler"

    def __init__(self) -> None:
        super().__init__()
        self.target = BackgroundScheduler(timezone="UTC")
        self.target.start()

    def run(self, job: str, does: Callable[[], object] = lambda: None) -> None:
        def work() -> None:
            try:
                does()
            finally:
                self.executed.append(job)

        now = datetime.now(UTC)
        self.target.add_job(work, "date", run_date=now, id=job, max_instances=100, misfire_grace_time=None)
        until(lambda: self.target.get_job(job) is None, what="the submission")

    def define(self, job: str) -> None:
        self.target.add_job(print, "interval", hours=1, id=job)

    def hooks(self) -> object:
        executors = {alias: dict(vars(executor)) for alias, executor in self.target._executors.items()}
        for attributes in executors.values():
            attributes.pop("_instances")
        return list(self.target._listeners), executors

    def close(self) -> None:
        self.target.pause()
        with (
            self.target._jobstores_lock
        ):  # between two rounds: within one, a shutdown breaks APScheduler's thread
            pass
        self.target.shutdown()


DRIVERS: tuple[type[Driver], ...] = (APSchedulerDriver, FakeDriver)
