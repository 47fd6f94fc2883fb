"""What a worker does with each job, as its methods are called: one attempt from its beginning to its end."""

import sys
import time
from collections.abc import Callable
from contextvars import Token
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from taskscope.bridges._rq_layout import Job, error_of, function_in, reason_of
from taskscope.events import Error, Fact, Status
from taskscope.failure import describe
from taskscope.run import Making, Run, enter, leave


class Doing(Struct):
    """An attempt in progress in this worker."""

    id: str
    job: Job
    anchor: float
    began: float | None = None
    """By the monotonic clock, when the job's function was called."""
    started: float | None = None
    duration: float | None = None
    error: Error | None = None
    fate: tuple[Status, str] = ("failed", "error")
    """How it ends if it fails, and why."""
    token: Token[Making | None] | None = None


class Speaking(Struct):
    """What a job that is being executed may ask of its run, and say of it."""

    run: Run
    instance: str
    pass_on: Callable[[Fact], None]

    def __call__(self) -> Run:
        """The run as `current_run` tells it."""
        return self.run

    def tell(self, fact: Fact) -> None:
        """Pass on what the run itself says."""
        self.pass_on(replace(fact, instance=self.instance))


class Attempts:
    """The attempts that one worker has in progress, by job."""

    def __init__(self, scheduler: str, worker: Any, instance: str, tell: Callable[[Fact], None]) -> None:
        self._scheduler, self._worker, self.instance, self._tell = scheduler, worker, instance, tell
        self.open: dict[str, Doing] = {}

    def after_prepare_execution(self, execution: Any, job: Any) -> None:
        """The worker has taken the job."""
        self.open[job.id] = doing = Doing(execution.id, _job_of(job), execution.created_at.timestamp())
        self._tell(self._fact(doing, "started", doing.anchor))

    def after_prepare_job_execution(self, _: None, job: Any, *__: Any, **___: Any) -> None:
        """Its function is called next; RQ itself has unpickled its name in this process."""
        if doing := self.open.get(job.id):
            doing.job = _job_of(job, job.func_name)
            doing.token = enter(Speaking(self._run(doing), self.instance, self._tell))
            doing.began, doing.started = time.monotonic(), time.time()

    def before_handle_execution_ended(self, job: Any, *_: Any, **__: Any) -> None:
        """Its function has just returned or raised."""
        doing, error = self.open.get(job.id), sys.exception()
        if doing and doing.began is not None and doing.duration is None:
            doing.duration = time.monotonic() - doing.began
        if doing and doing.token is not None:
            leave(doing.token)
            doing.token = None
        if doing and error is not None:
            doing.error = describe(error)
            doing.fate = ("failed", reason_of(doing.error.stack))

    def after_handle_job_success(self, _: None, job: Any, *__: Any, **___: Any) -> None:
        """It succeeded, and Redis knows."""
        self._end(job, "success")

    def after_handle_job_retry(self, _: None, job: Any, *__: Any, **___: Any) -> None:
        """It returned a `Retry`: another attempt follows, or there were too many."""
        exceeded = str(getattr(job._status, "value", job._status)) == "failed"
        self._end(job, "failed" if exceeded else "retried", "error" if exceeded else "")

    def before_handle_job_failure(self, job: Any, *args: Any, **kwargs: Any) -> None:
        """It failed, or its process is gone; RQ forgets while it handles this whether the job was stopped."""
        if doing := self.open.get(job.id):
            why = kwargs.get("exc_string", args[2] if len(args) > 2 else "")
            reason = reason_of(why)
            again = job.should_retry and self._worker._stopped_job_id != job.id
            doing.fate = ("retried" if again else "failed", reason)
            doing.error = doing.error or error_of(why)

    def after_handle_job_failure(self, _: None, job: Any, *__: Any, **___: Any) -> None:
        """Redis knows that it failed."""
        if doing := self.open.get(job.id):
            self._end(job, *doing.fate)

    def _end(self, job: Any, status: Status, reason: str = "") -> None:
        doing = self.open.pop(job.id, None)
        if doing is None:
            return
        now, started = time.time(), doing.started or doing.anchor
        if doing.duration is None:  # whoever executed it is gone: the worker saw when
            doing.duration = max(0.0, now - started)
        self._tell(self._fact(doing, status, started + doing.duration, reason))

    def _run(self, doing: Doing) -> Run:
        return Run(self._scheduler, doing.job.name, doing.id, 0, None, doing.anchor)

    def _fact(self, doing: Doing, status: Status, at: float, reason: str = "") -> Fact:
        job, started = doing.job, doing.started or doing.anchor
        return Fact(
            scheduler=self._scheduler,
            native=doing.id,
            status=status,
            at=at,
            anchor=doing.anchor,
            job=job.name,
            enqueued=min(job.enqueued, started) if job.enqueued else None,
            started=started,
            duration=doing.duration,
            reason=reason,
            queue=job.queue,
            worker=self._worker.name,
            instance=self.instance,
            error=None if status == "success" else doing.error,
            details=job.details,
        )


def _job_of(job: Any, function: str = "") -> Job:
    """The job, without unpickling anything: while its function is not known, by the call that describes it."""
    named = {"group": job.group_id, "depends_on": list(job._dependency_ids)}
    enqueued = job.enqueued_at.timestamp() if job.enqueued_at else None
    return Job(
        id=job.id,
        name=function or function_in(job.description or ""),
        queue=job.origin,
        enqueued=enqueued,
        result_ttl=job.result_ttl,
        details={"job_id": job.id, **{name: value for name, value in named.items() if value}},
    )
