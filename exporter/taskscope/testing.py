"""For tests, yours and ours: a scheduler that follows a script, and a sink that remembers everything.

scheduler, seen = FakeScheduler(), Recorder()
with taskscope.Exporter(scheduler, sinks=[seen], history=None, port=None):
    scheduler.job("nightly").run(duration=2.5)
    seen.wait_for(lambda: seen.changes)
"""

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from taskscope.bridges.fake import Clock, FakeJob, FakeRun, FakeScheduler
from taskscope.contracts import Sink, Told, made
from taskscope.events import Event, Fact
from taskscope.facts import Change

__all__ = ["Clock", "FakeJob", "FakeRun", "FakeScheduler", "Recorder"]

T = TypeVar("T")


class Recorder(Sink):
    """Remembers every event as it arrives and every change as it is committed."""

    def __init__(self, on_commit: Callable[[Sequence[Change]], object] | None = None) -> None:
        self.events: list[Event] = []
        self.changes: list[Change] = []
        self._on_commit = on_commit
        self._news = threading.Condition()

    def emit(self, told: Told) -> None:
        """Remember one event: what a bridge that is tested alone is attached to."""
        event = made(told)
        if event is not None:
            self.arrived([event])

    def arrived(self, events: Sequence[Event]) -> None:
        """Remember these events."""
        with self._news:
            self.events.extend(events)
            self._news.notify_all()

    def committed(self, changes: Sequence[Change]) -> None:
        """Remember these changes and hand them on."""
        if self._on_commit is not None:
            self._on_commit(changes)
        with self._news:
            self.changes.extend(changes)
            self._news.notify_all()

    @property
    def facts(self) -> list[Fact]:
        """The facts among the events, in order of arrival."""
        return [event for event in list(self.events) if isinstance(event, Fact)]

    def runs(self, job: str | None = None) -> dict[str, list[Fact]]:
        """The facts of each run, by its native id; of one job, or of all."""
        runs: dict[str, list[Fact]] = {}
        for fact in self.facts:
            if job is None or fact.job == job:
                runs.setdefault(fact.native, []).append(fact)
        return runs

    def wait_for(self, true: Callable[[], T], timeout: float = 10.0) -> T:
        """Wait until `true()` is, asked after everything that comes, and return what it said.

        Raises `AssertionError` when it is not within `timeout` seconds.
        """
        with self._news:
            result = self._news.wait_for(true, timeout)
        if not result:
            raise AssertionError(
                f"not seen within {timeout:g} s; seen: {[fact.status for fact in self.facts][-50:]}"
            )
        return result
