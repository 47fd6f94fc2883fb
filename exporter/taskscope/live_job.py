"""A job that is known: what it remembers, how it is defined, what it does now."""

from itertools import islice
from math import inf

import msgspec
from msgspec.structs import replace

from taskscope.counts import JobState
from taskscope.events import Job, Trigger
from taskscope.queued import RunKey

_FAILURES = 100  # of a job, remembered so that one which is told again counts once
_SHARING = 1_000  # triggers of jobs that share a name
_BUSY = frozenset({"EXECUTING", "BLOCKED"})  # because of runs in progress
_ABNORMAL = frozenset({"ERROR", "BLOCKED"})


class LiveJob(msgspec.Struct):
    """Changed by the pipeline's thread alone, as `Live` that it belongs to."""

    state: JobState
    definition: Job | None = None
    running: dict[RunKey, float] = {}
    """Runs in progress and when they started."""
    failures: dict[RunKey, None] = {}
    """The latest failures since the last success, oldest first: each counts once, also when it is told again."""
    abnormal: dict[str, float] = {}
    """States (ERROR, BLOCKED) that a trigger of the job is in, and the first reading that said so."""
    defined: float = 0.0
    """When the latest `Defined` was told."""
    queue: str = ""
    """The queue of the first run that was told of."""
    resumed: float = 0.0
    """When it was first read after it had been paused."""
    heard: bool = False
    """Heard of since this process began; one that is only remembered gives way where there is no room."""

    def succeed(self, at: float) -> None:
        """A run of it succeeded then."""
        state = self.state
        if at > state.last_success:
            state.last_success = at
        if at >= state.last_failure and (self.failures or state.consecutive_failures):
            self.failures.clear()
            state.consecutive_failures = 0

    def fail(self, run: RunKey, at: float) -> None:
        """This run of it failed or was lost then."""
        if at > self.state.last_success and run not in self.failures:
            self.failures[run] = None
            if len(self.failures) > _FAILURES:
                del self.failures[next(iter(self.failures))]
            self.state.consecutive_failures += 1
        self.state.last_failure = max(self.state.last_failure, at)

    def define(self, definitions: list[Job], at: float) -> None:
        """What its scheduler promises; of several jobs that share the name the one that is due first counts."""
        first = min(definitions, key=_due)
        self.definition, self.state.removed, self.heard = _joined(first, definitions), 0.0, True
        states = {trigger.state for definition in definitions for trigger in definition.triggers}
        self.abnormal = {state: self.abnormal.get(state, at) for state in sorted(states & _ABNORMAL)}
        if self.state.paused and not first.paused:
            self.resumed = at
        self.state.paused = first.paused
        self.state.next_run = 0.0 if first.paused else first.next_run or 0.0
        self.state.interval = first.interval or 0.0

    def rest(self) -> bool:
        """Nothing of it runs: no trigger executes or is blocked. False where none did."""
        if self.definition is None or not any(one.state in _BUSY for one in self.definition.triggers):
            return False
        triggers = [
            replace(one, state="WAITING") if one.state in _BUSY else one for one in self.definition.triggers
        ]
        self.definition = replace(self.definition, triggers=tuple(triggers))
        self.abnormal = {state: since for state, since in self.abnormal.items() if state not in _BUSY}
        return True

    def remember(self, saved: JobState) -> None:
        """Put saved memories under those made since: the later holds, the first sight is the earlier."""
        state = self.state
        if saved.last_success <= state.last_success and state.last_success:
            failures = state.consecutive_failures
        else:
            failures = state.consecutive_failures + saved.consecutive_failures
        state.consecutive_failures = failures
        if saved.last_run >= state.last_run:
            state.last_duration = saved.last_duration
        state.first_seen = min(saved.first_seen, state.first_seen) or state.first_seen
        state.last_run = max(saved.last_run, state.last_run)
        state.last_success = max(saved.last_success, state.last_success)
        state.last_failure = max(saved.last_failure, state.last_failure)
        if self.definition is not None:
            return  # what its scheduler promised since is newer than what was saved
        state.next_run = state.next_run or saved.next_run
        state.interval = state.interval or saved.interval
        state.paused = state.paused or saved.paused
        state.removed = state.removed or saved.removed


def _joined(first: Job, definitions: list[Job]) -> Job:
    """The job with the triggers of those that share its name, of which there may be thousands."""
    others = (trigger for job in definitions if job is not first for trigger in job.triggers)
    room = max(0, _SHARING - len(first.triggers))
    added = tuple(  # without schedules: the job's would be very long, and another whenever one was due
        Trigger(key=other.key, state=other.state, next_run=other.next_run) for other in islice(others, room)
    )
    return replace(first, triggers=first.triggers + added) if added else first


def _due(job: Job) -> float:
    return inf if job.paused or not job.next_run else job.next_run
