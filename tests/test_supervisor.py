"""How bridges are kept at work: each failure and its end is said once, and nothing of one hurts another."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from services.process import until
from taskscope.backoff import Backoff
from taskscope.contracts import Bridge, Emit
from taskscope.events import Event, QueueState, Reading, SchedulerState
from taskscope.settings import Settings
from taskscope.supervisor import Supervisor

SETTINGS = Settings(poll_interval=0.05, poll_timeout=0.3, reading_ttl=20)


class Scripted(Bridge):
    """A bridge that hears and answers as the test says."""

    system = "scripted"

    def __init__(self, target: Any = "", name: str = "s") -> None:
        self.url = "redis://:hunter2@broker.example/0"
        self.listens_until, self.hears, self.detached = threading.Event(), threading.Event(), 0
        self.fails_to_listen: Exception | None = None
        self.fails_to_read: Exception | None = None
        self.readings: list[Reading] = []
        self.calls = 0

    def attach(self, emit: Emit) -> None:
        self.emit = emit

    def listen(self, stop: threading.Event, heard: Callable[[], None]) -> None:
        self.calls += 1
        if self.fails_to_listen:
            raise self.fails_to_listen
        self.hears.wait(10)
        heard()
        while not stop.wait(0.01) and not self.fails_to_listen:
            pass
        self.emit(QueueState(scheduler="s", queue="last", at=time.time()))
        self.listens_until.wait(10)
        self.emit(QueueState(scheduler="s", queue="late", at=time.time()))

    def poll(self) -> Iterable[Reading]:
        if self.fails_to_read:
            raise self.fails_to_read
        return self.readings

    def detach(self) -> None:
        self.detached += 1


class Watch:
    """A supervisor at work, and what it told."""

    def __init__(self, bridge: Scripted, settings: Settings = SETTINGS) -> None:
        self.told: list[Event] = []
        self.bridge = bridge
        self.supervisor = Supervisor(bridge, "s", self._take, settings)
        self.supervisor.attach("instance")
        self.supervisor.start()

    def _take(self, told: Any) -> None:
        self.told.append(told)

    @property
    def up(self) -> bool | None:
        """What was said last; None before anything was."""
        states = [event.up for event in self.told if isinstance(event, SchedulerState)]
        return states[-1] if states else None

    def queues(self) -> set[str]:
        return {event.queue for event in self.told if isinstance(event, QueueState)}

    def end(self, patience: float = 5.0) -> None:
        self.supervisor.end()
        self.supervisor.join(time.monotonic() + patience)


@pytest.fixture
def bridge() -> Scripted:
    return Scripted()


@pytest.fixture
def watch(bridge: Scripted) -> Iterator[Watch]:
    watch = Watch(bridge)
    yield watch
    bridge.hears.set()
    bridge.listens_until.set()
    watch.end()


def test_pauses_double_up_to_the_last_and_no_two_are_the_same():
    pauses = [Backoff().next() for _ in range(50)]
    assert all(0.25 <= pause <= 0.5 for pause in pauses)
    assert len(set(pauses)) > 40
    backoff = Backoff(last=30)
    ranges = [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert all(most / 2 <= backoff.next() <= most for most in ranges)
    backoff.reset()
    assert backoff.next() <= 0.5


def test_one_that_has_not_connected_yet_is_not_ready_and_not_told_to_be_down(watch: Watch, bridge: Scripted):
    assert watch.supervisor.trouble == "it has not answered yet"
    assert watch.up is None
    bridge.hears.set()
    until(lambda: watch.up, what="a scheduler that is up")
    assert watch.supervisor.trouble == ""
    assert time.time() - watch.supervisor.seen_at < 5


def test_one_that_is_only_read_is_down_until_it_is_heard(watch: Watch, bridge: Scripted, caplog: Any):
    caplog.set_level(logging.INFO, "taskscope")
    bridge.readings = [
        SchedulerState(
            scheduler="s", system="scripted", at=time.time(), up=True, running=True, summary=("a",)
        )
    ]
    bridge.hears.set()
    until(lambda: watch.up, what="a scheduler that is up")
    bridge.listens_until.set()
    bridge.fails_to_listen = ConnectionRefusedError(111, "Connection refused")
    until(lambda: watch.up is False, what="a scheduler that is down")
    until(lambda: bridge.calls >= 3, what="more tries")
    assert "broker.example:6379 refuses the connection" in watch.supervisor.trouble
    bridge.fails_to_listen = None
    until(lambda: watch.up, what="a scheduler that is up again")
    assert watch.supervisor.trouble == ""
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "its connection ended" in caplog.text
    assert {record.scheduler for record in caplog.records} == {"s"}


def test_one_whose_reading_fails_is_down_however_well_it_is_heard(
    watch: Watch, bridge: Scripted, caplog: Any
):
    bridge.hears.set()
    until(lambda: watch.up, what="a scheduler that is up")
    bridge.fails_to_read = RuntimeError("redis://:hunter2@broker.example broke")
    until(lambda: watch.up is False, what="a scheduler that is down")
    assert "RuntimeError: redis://:***@broker.example broke" in watch.supervisor.trouble
    assert "hunter2" not in caplog.text
    bridge.fails_to_read = None
    until(lambda: watch.up, what="a scheduler that is up again")


def test_silence_beyond_the_time_to_live_is_trouble(bridge: Scripted):
    settings = Settings(poll_interval=0.05, reading_ttl=0.4)
    watch = Watch(bridge, settings)
    bridge.hears.set()
    until(lambda: watch.up, what="a scheduler that is up")
    until(lambda: watch.up is False, what="a scheduler that is down")
    assert watch.supervisor.trouble == "nothing was heard of it for 0.4 s"
    bridge.listens_until.set()
    watch.end()


def test_what_was_received_is_told_before_the_end(watch: Watch, bridge: Scripted):
    bridge.hears.set()
    until(lambda: watch.up, what="a scheduler that is up")
    bridge.listens_until.set()
    watch.end()
    assert watch.queues() == {"last", "late"}
    assert bridge.detached == 1
    assert not any(thread.name.endswith("-s") for thread in threading.enumerate())


def test_a_connection_that_does_not_end_is_left_behind_and_heard_no_more(
    watch: Watch, bridge: Scripted, caplog: Any
):
    bridge.hears.set()
    until(lambda: watch.up, what="a scheduler that is up")
    watch.end(patience=0.3)
    assert "leaves the connection of scheduler s behind" in caplog.text
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "taskscope-listen-s"]
    bridge.listens_until.set()
    thread.join(5)
    assert watch.queues() == {"last"}


def test_a_question_that_hangs_is_named(watch: Watch, bridge: Scripted):
    hangs = threading.Event()
    bridge.poll = lambda: hangs.wait(10) and ()  # type: ignore[method-assign]
    bridge.hears.set()
    until(lambda: watch.supervisor.trouble == "it does not answer since 0.3 s", what="a hanging question")
    hangs.set()


def test_one_that_watches_an_object_does_not_listen(bridge: Scripted):
    bridge.url = ""
    watch = Watch(bridge)
    until(lambda: watch.supervisor.seen_at, what="a reading")
    watch.end()
    assert bridge.calls == 0
