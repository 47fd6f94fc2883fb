"""How the exam makes each kind of scheduler do something. A new bridge adds its driver here."""

import atexit
import builtins
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, ClassVar

import redis
from apscheduler.schedulers.background import BackgroundScheduler
from celery import Celery, signals
from celery._state import set_default_app
from celery.beat import Scheduler, Service
from celery.utils.dispatch import Signal
from celery.worker import WorkController, state
from rq import Queue, SimpleWorker
from rq.timeouts import TimerDeathPenalty

from services.process import until
from services.redis import Redis
from taskscope.testing import FakeRun, FakeScheduler

_numbers = count()


class Driver(ABC):
    """A scheduler that the exam can give work to."""

    system: ClassVar[str]
    parts: ClassVar[tuple[str, ...]] = ()
    """What follows the scheduler's name in the names of parts that may be down by themselves."""
    target: Any
    hears_of_jobs: ClassVar[bool] = True
    """Does the scheduler say when a job is added? Where it does not, polls find it."""

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

    def noted(self, job: str, does: Callable[[], object]) -> Callable[[], None]:
        """The same, taking note that it was executed."""

        def work() -> None:
            try:
                does()
            finally:
                self.executed.append(job)

        return work

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
        now = datetime.now(UTC)
        self.target.add_job(
            self.noted(job, does), "date", run_date=now, id=job, max_instances=100, misfire_grace_time=None
        )
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


class CeleryDriver(Driver):
    """A worker with a pool of threads, and a beat, both in this process, begun with the first run and the first job."""

    system = "celery"
    parts = ("-beat",)

    def __init__(self) -> None:
        super().__init__()
        self.target = Celery(f"exam-{next(_numbers)}", broker="memory://", set_as_current=False)
        self.target.conf.update(
            beat_max_loop_interval=0.2,
            broker_transport_options={"polling_interval": 0.01},
            task_default_queue=self.target.main,
            task_ignore_result=True,
            worker_hijack_root_logger=False,
            worker_timer_precision=0.05,
        )
        self._work: dict[str, Callable[[], object]] = {}
        self._numbers = count()
        self._ends = ExitStack()
        self._lock = threading.Lock()
        self._worker: WorkController | None = None
        self._beat: Service | None = None

    def run(self, job: str, does: Callable[[], object] = lambda: None) -> None:
        number = str(next(self._numbers))
        self._work[number] = does
        task = self._task(job)
        self._begin()
        task.apply_async((number,))

    def define(self, job: str) -> None:
        self._begin()
        self.target.conf.beat_schedule = {
            **self.target.conf.beat_schedule,
            job: {"task": job, "schedule": 3600},
        }
        self._beat = Service(self.target, scheduler_cls=Scheduler)
        thread = threading.Thread(target=self._beat.start)
        thread.start()
        self._ends.callback(thread.join)
        self._ends.callback(self._beat.stop)
        until(lambda: self._beat.scheduler._heap is not None, what="a tick of beat")

    def hooks(self) -> object:
        receivers = {
            name: list(signal.receivers)
            for name, signal in vars(signals).items()
            if isinstance(signal, Signal) and name not in ("worker_process_init", "beat_init")
        }
        return receivers, dict(vars(self._beat.scheduler)) if self._beat else None

    def close(self) -> None:
        self._ends.close()

    def _task(self, job: str) -> Any:
        def work(number: str) -> None:
            try:
                self._work.pop(number)()
            finally:
                self.executed.append(job)

        with self._lock:
            task = self.target.tasks.get(job) or self.target.task(work, name=job, shared=False)
            if self._worker is not None:
                self._worker.consumer.update_strategies()
        return task

    def _begin(self) -> None:
        with self._lock:
            if self._worker is None:
                self.target.finalize()
                self.target.set_default()  # what the threads of the pool ask for their tasks
                self._ends.callback(set_default_app, None)
                self._worker = WorkController(
                    app=self.target,
                    pool="threads",
                    concurrency=4,
                    hostname="exam@here",
                    without_heartbeat=True,
                    without_mingle=True,
                    without_gossip=True,
                )
                thread = threading.Thread(target=self._worker.start, daemon=True)
                thread.start()
                self._ends.callback(self._end, thread)
                until(lambda: getattr(self._worker.consumer, "task_consumer", None), what="the worker")

    def _end(self, thread: threading.Thread) -> None:
        state.should_terminate = 0
        self.target.send_task("the message that wakes it")
        thread.join(30)
        state.should_terminate = None


class RQDriver(Driver):
    """A worker that executes jobs in this process, also several at once, each on a thread of the exam's."""

    system = "rq"
    hears_of_jobs = False
    server: ClassVar[Redis | None] = None

    def __init__(self) -> None:
        super().__init__()
        if RQDriver.server is None:
            RQDriver.server = Redis()
            atexit.register(RQDriver.server.remove)
            RQDriver.server.start()
        assert RQDriver.server.ask("FLUSHALL") == b"+OK\r\n"
        connection = redis.Redis(port=RQDriver.server.port)
        self.queue = Queue(connection=connection)
        self.target = OneEach([self.queue], connection=connection)
        self.names: set[str] = set()

    def run(self, job: str, does: Callable[[], object] = lambda: None) -> None:
        self._name(job, self.noted(job, does))
        enqueued = self.queue.enqueue(job)
        self.queue.remove(enqueued)
        self.target.execute_job(enqueued, self.queue)

    def define(self, job: str) -> None:
        self.queue.enqueue_in(timedelta(hours=1), job)

    def hooks(self) -> object:
        return {name: value for name, value in vars(self.target).items() if callable(value)}

    def close(self) -> None:
        for name in self.names:
            delattr(builtins, name)
        self.queue.connection.close()

    def _name(self, job: str, work: Callable[[], object]) -> None:
        setattr(builtins, job, work)  # where RQ looks for a function without a module
        self.names.add(job)


class OneEach(SimpleWorker):
    """Keeps what it executes for each thread: RQ 2 has room for one execution."""

    death_penalty_class = TimerDeathPenalty
    _here = threading.local()

    if not isinstance(getattr(SimpleWorker, "execution", None), property):

        @property
        def execution(self) -> Any:
            return getattr(self._here, "execution", None)

        @execution.setter
        def execution(self, execution: Any) -> None:
            self._here.execution = execution


DRIVERS: tuple[type[Driver], ...] = (APSchedulerDriver, CeleryDriver, FakeDriver, RQDriver)
