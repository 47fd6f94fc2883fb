"""What the tests of bridges ask of a scheduler and of what was seen."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any

from taskscope.testing import Recorder

ENDS = ("success", "failed", "skipped")


def now() -> datetime:
    """The present moment, aware."""
    return datetime.now(UTC)


def stop(scheduler: Any) -> None:
    """Shut down between two rounds: within one, a shutdown breaks APScheduler's thread."""
    if scheduler.running:
        scheduler.pause()
        with scheduler._jobstores_lock:
            pass
        scheduler.shutdown()


def ended(seen: Recorder, count: int, timeout: float = 20) -> None:
    """Wait until so many ends have been told."""
    seen.wait_for(lambda: sum(fact.status in ENDS for fact in seen.facts) >= count, timeout)


def reasons(seen: Recorder, job: str | None = None) -> Counter[tuple[str, str]]:
    """(status, reason) of every run's latest fact."""
    last = [facts[-1] for facts in seen.runs(job).values()]
    return Counter((fact.status, fact.reason) for fact in last)


def statuses(seen: Recorder, job: str | None = None) -> list[list[str]]:
    """The statuses of each run, as they were told."""
    return [[fact.status for fact in facts] for facts in seen.runs(job).values()]
