"""Errands: work of other threads, done by the pipeline; its end is told only when it is durable."""

import threading
from concurrent.futures import CancelledError, wait

import pytest

from services.process import until
from taskscope import Exporter
from taskscope.errands import Errands
from taskscope.errors import BadEvent, Unavailable
from taskscope.testing import FakeScheduler


class Clock:
    """Stands still until it is told to go on."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def errands(clock: Clock) -> Errands:
    return Errands(most=3, patience=10.0, clock=clock)


def test_work_is_done_in_order_and_gives_its_result(errands: Errands) -> None:
    done: list[int] = []
    ends = [errands.do(lambda n=n: done.append(n) or n) for n in range(3)]

    assert errands.step(0.0) is False

    assert done == [0, 1, 2]
    assert [end.result(0) for end in ends] == [0, 1, 2]


def test_more_than_fits_is_refused_at_once_and_what_waits_is_done(errands: Errands) -> None:
    ends = [errands.do(lambda: "done") for _ in range(4)]

    with pytest.raises(Unavailable, match="too much waits to be written"):
        ends[3].result(0)
    errands.step(0.0)
    assert [end.result(0) for end in ends[:3]] == ["done"] * 3


def test_work_that_had_no_turn_in_time_fails_and_is_not_done(errands: Errands, clock: Clock) -> None:
    done: list[int] = []
    end = errands.do(lambda: done.append(1))

    clock.now = 10.1
    errands.step(0.0)

    with pytest.raises(Unavailable, match="no time for it within 10 s"):
        end.result(0)
    assert done == []


def test_what_one_asked_for_does_not_hurt_the_others(errands: Errands) -> None:
    def bad() -> None:
        raise BadEvent("impossible")

    first, second = errands.do(bad), errands.do(lambda: "done")

    errands.step(0.0)

    with pytest.raises(BadEvent, match="impossible"):
        first.result(0)
    assert second.result(0) == "done"


def test_an_errand_that_is_cancelled_while_it_waits_is_not_done(errands: Errands) -> None:
    done: list[int] = []
    end = errands.do(lambda: done.append(1))

    assert end.cancel()
    errands.step(0.0)

    assert done == []
    with pytest.raises(CancelledError):
        end.result(0)


def test_a_long_queue_leaves_events_their_turn(errands: Errands, clock: Clock) -> None:
    def slow() -> None:
        clock.now += 0.02

    for _ in range(3):
        errands.do(slow)

    assert errands.step(0.0) is True, "two took longer than a moment"
    assert errands.step(0.0) is False


def test_a_store_that_is_away_fails_what_waits_and_what_comes_until_it_is_back(errands: Errands) -> None:
    waits = errands.do(lambda: "done")
    errands.suspend(Unavailable("the disk is full"))
    comes = errands.do(lambda: "done")

    for end in (waits, comes):
        with pytest.raises(Unavailable, match="the disk is full"):
            end.result(0)

    errands.resume()
    again = errands.do(lambda: "done")
    errands.step(0.0)
    assert again.result(0) == "done"


def test_work_that_finds_the_store_away_says_so_to_the_pipeline(errands: Errands) -> None:
    def away() -> None:
        raise Unavailable("gone")

    end = errands.do(away)

    with pytest.raises(Unavailable, match="gone"):
        errands.step(0.0)
    with pytest.raises(Unavailable, match="gone"):
        end.result(0)


def test_in_a_forked_child_errands_fail_also_where_the_parent_held_the_lock(errands: Errands) -> None:
    waits = errands.do(lambda: "done")
    errands._lock.acquire()

    errands.abandon()

    with pytest.raises(Unavailable, match="only its parent writes"):
        errands.do(lambda: "done").result(0)
    assert not waits.done(), "it is the parent's"


def test_an_idle_pipeline_does_errands_within_a_moment_on_its_own_thread(tmp_path) -> None:
    with Exporter(history=f"sqlite:///{tmp_path}/runs.db", port=None) as exporter:
        until(lambda: exporter.pipeline.opened)

        name = exporter.pipeline.do(lambda: threading.current_thread().name).result(5)

    assert name == "taskscope"


def test_errands_are_done_while_events_pour_in(tmp_path) -> None:
    scheduler, stop = FakeScheduler(), threading.Event()

    def pour() -> None:
        while not stop.is_set():
            scheduler.burst(100)

    pouring = threading.Thread(target=pour)
    with Exporter(scheduler, history=f"sqlite:///{tmp_path}/runs.db", port=None) as exporter:
        pouring.start()
        try:
            until(lambda: exporter.pipeline.backlog > 0, what="a backlog")
            ends = [exporter.pipeline.do(lambda n=n: n) for n in range(50)]
            assert [end.result(20) for end in ends] == list(range(50))
        finally:
            stop.set()
            pouring.join()


def test_what_an_errand_wrote_is_there_once_its_end_is_told(tmp_path) -> None:
    with Exporter(history=f"sqlite:///{tmp_path}/runs.db", port=None) as exporter:
        exporter.pipeline.do(lambda: exporter.store.beat(["host:1:x"], 1.0)).result(5)

        with exporter.queries._reader.snapshot() as connection:
            beats = connection.exec_driver_sql("SELECT pid, beat FROM instance WHERE pid = 1").all()

    assert beats == [(1, 1000)]


def test_the_end_of_taskscope_fails_what_waits_and_what_comes(tmp_path) -> None:
    exporter = Exporter(history=f"sqlite:///{tmp_path}/runs.db", port=None).start()
    busy, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        busy.set()
        go_on.wait(10)

    held = exporter.pipeline.do(hold)
    busy.wait(10)
    waiting = [exporter.pipeline.do(lambda: "done") for _ in range(3)]
    closing = threading.Thread(target=exporter.close)
    closing.start()
    until(exporter.pipeline._stop.is_set)
    go_on.set()
    closing.join()

    assert held.result(0) is None
    assert wait(waiting, timeout=5).not_done == set(), "each is done or failed, none is lost"
    with pytest.raises(Unavailable, match="taskscope is ending"):
        exporter.pipeline.do(lambda: "done").result(0)


def test_a_member_refuses_errands_with_the_reason(tmp_path) -> None:
    history = f"sqlite:///{tmp_path}/runs.db"
    with Exporter(history=history, port=None) as owner, Exporter(history=history, port=None) as member:
        until(lambda: owner.pipeline.opened and member.pipeline.failure)

        with pytest.raises(Unavailable, match="is owned by process"):
            member.pipeline.do(lambda: "done").result(5)


def test_a_quiet_program_notices_that_its_store_is_back(postgres_server, postgres_url) -> None:
    settings = {"history": postgres_url, "port": None, "heartbeat": 0.1}
    with Exporter(**settings) as exporter:
        until(lambda: exporter.pipeline.opened)
        postgres_server.stop()
        until(lambda: exporter.degraded.get("store"), what="a sentence about the store")
        with pytest.raises(Unavailable, match="cannot be written"):
            exporter.pipeline.do(lambda: "done").result(5)

        postgres_server.start()

        until(lambda: not exporter.degraded, timeout=60, what="recovery without any event")
        assert exporter.pipeline.do(lambda: "done").result(5) == "done"
