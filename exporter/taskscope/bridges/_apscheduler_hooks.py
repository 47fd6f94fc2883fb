"""Hooks on executor instances, through which an APScheduler's runs are followed."""

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

from apscheduler.executors.base import MaxInstancesReachedError
from apscheduler.executors.debug import DebugExecutor
from apscheduler.executors.pool import BasePoolExecutor
from apscheduler.util import iscoroutinefunction_partial

from taskscope.bridges._apscheduler_child import SubmissionId
from taskscope.bridges._apscheduler_jobs import gap_before
from taskscope.bridges._apscheduler_runs import Awaited, Submission, Watch
from taskscope.bridges._hooked import Hooked
from taskscope.bridges._quiet import quiet

logger = logging.getLogger("taskscope")


class Tap:
    """The hooks on one executor instance."""

    def __init__(self, executor: Any, alias: str, watch: Watch) -> None:
        self.executor, self.alias, self.watch = executor, alias, watch
        self.open: set[Submission] = set()
        """Submissions that the executor has not reported back."""
        self._settle, self._abandon = quiet(Submission.settle), quiet(Submission.abandon)
        self._refuse = quiet(self._leave_out)
        self.awaits = not isinstance(executor, BasePoolExecutor | DebugExecutor)
        """May it await coroutines? Pools call whatever they are given."""
        hooks: dict[str, Callable[..., Any]] = {
            "submit_job": self._submit_job,
            "_do_submit_job": self._do_submit_job,
            "_run_job_success": self._run_job_success,
            "_run_job_error": self._run_job_error,
        }
        self._hooked = Hooked(executor, hooks)
        self._found = self._hooked.found

    def remove(self) -> None:
        """Take the hooks out."""
        self._hooked.remove()
        for submission in list(self.open):
            submission.close()

    def _submit_job(self, job: Any, run_times: list[datetime]) -> None:
        try:
            self._found["submit_job"](job, run_times)
        except MaxInstancesReachedError:
            self._refuse(job, run_times)
            raise

    def _do_submit_job(self, job: Any, run_times: list[datetime]) -> None:
        submission = self._opened(job, run_times) if self.watch.active else None
        if submission is None:
            self._found["_do_submit_job"](job, run_times)
            return
        try:
            self._found["_do_submit_job"](submission, submission.times)
        except BaseException as error:
            self._abandon(submission, error)
            raise

    def _opened(self, job: Any, run_times: list[datetime]) -> Submission | None:
        """What follows these runs; None where trouble of ours keeps us from it."""
        try:
            awaited = self.awaits and iscoroutinefunction_partial(job.func)
            submission, watch = (Awaited if awaited else Submission)(self, job, run_times), self.watch
            self._merge(job, run_times)
            watch.submitted += len(run_times)
            watch.previous[job._jobstore_alias, job.id] = run_times[-1]
        except Exception:
            logger.exception("taskscope cannot follow job %s; it runs unwatched", job.id)
            return None
        self.open.add(submission)
        submission.open()
        return submission

    def _merge(self, job: Any, run_times: list[datetime]) -> None:
        if gap := gap_before(job, run_times):
            self.watch.merge(job, gap)

    def _leave_out(self, job: Any, run_times: list[datetime]) -> None:
        if not self.watch.active:
            return
        self._merge(job, run_times)
        self.watch.refused[(job._jobstore_alias, job.id)] = run_times[-1]
        self.watch.skip(job, run_times, "overlap")

    def _run_job_success(self, job_id: str, events: list[Any]) -> None:
        if type(job_id) is SubmissionId:
            self._settle(job_id.carries, events)
            job_id = job_id.carries.job.id
        self._found["_run_job_success"](job_id, events)

    def _run_job_error(self, job_id: str, exc: BaseException, traceback: Any = None) -> None:
        if type(job_id) is SubmissionId:
            self._abandon(job_id.carries, exc)
            job_id = job_id.carries.job.id
        self._found["_run_job_error"](job_id, exc, traceback)
