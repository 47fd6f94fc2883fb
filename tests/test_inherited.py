"""A taskscope that begins anew goes on with the runs in progress, and lets go of those that are over."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from services.process import until
from taskscope import Exporter
from taskscope.events import Fact, Heartbeat
from taskscope.facts import Row, row_of
from taskscope.identity import run_id
from taskscope.live import Live
from taskscope.settings import JobRule
from taskscope.sinks.history.records import Filter

SENDER = "another-host:7:0190"
BEGAN = time.time() - 3600.0


def fact(status: str = "started", native: str = "n", **fields: Any) -> Fact:
    """Of a run that began an hour ago; it is told as its sender does, whose process is named."""
    known = {"scheduler": "s", "job": "j", "at": BEGAN, "anchor": BEGAN, "instance": SENDER} | fields
    return Fact(native=native, status=status, **known)


def row(told: Fact) -> Row:
    """What the store holds of it."""
    return row_of(told, run_id(told.scheduler, told.native, told.attempt, int(BEGAN * 1000)))


@pytest.fixture(params=["sqlite", "postgresql"])
def history(request: pytest.FixtureRequest, tmp_path: Any) -> str:
    url = f"sqlite:///{tmp_path}/r.db"
    return url if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@contextmanager
def collecting(history: str, **settings: Any) -> Iterator[Exporter]:
    """A collector with this history."""
    lively = {"heartbeat": 0.1, "lost_after": 1.0, "jobs": [JobRule(match="j", max_duration=60)]}
    with Exporter(history=history, port=None, **lively | settings) as collector:
        until(lambda: collector.pipeline.opened)
        yield collector


def tell(collector: Exporter, *events: Any) -> None:
    """As what is ingested is told: it is durable then."""
    assert collector.pipeline.deliver(events).result(10) == {}


def lives(collector: Exporter) -> None:
    tell(collector, Heartbeat(instance=SENDER, at=time.time()))


def running(collector: Exporter) -> list[float]:
    with collector.live.lock:
        return [at for job in collector.live.jobs.values() for at in job.running.values()]


def stuck(collector: Exporter) -> tuple[str, ...]:
    """What the check names."""
    results = [result for score in collector.health.scores()[1:] for result in score.checks]
    return next(result.objects for result in results if result.check == "stuck_run")


def test_a_run_whose_sender_lives_is_in_progress_and_stuck_until_it_ends(history: str) -> None:
    with collecting(history) as before:
        tell(before, fact())
    with collecting(history) as collector:
        assert running(collector) == [pytest.approx(BEGAN, abs=0.001)]
        (named,) = stuck(collector)
        (run,) = collector.queries.iterate(Filter())
        assert named.startswith("j (")
        for _ in range(15):  # longer than silence may last
            lives(collector)
            time.sleep(0.1)
        assert len(running(collector)) == 1

        tell(collector, fact("success", at=time.time(), started=BEGAN, duration=3600.0))
        assert running(collector) == []
        assert collector.queries.run(run.id).status == "success"


def test_a_run_whose_sender_is_dead_is_lost(history: str) -> None:
    with collecting(history) as before:
        tell(before, fact())
    with collecting(history) as collector:
        assert len(running(collector)) == 1
        until(lambda: running(collector) == [], what="its loss")
        until(lambda: [run.status for run in collector.queries.iterate(Filter())] == ["unknown"])


def test_a_run_that_ended_is_not_in_progress_nor_one_that_nobody_would_miss(history: str) -> None:
    with collecting(history) as before:
        tell(before, fact(), fact(native="of nobody", instance=""))
        tell(before, fact("failed", at=time.time()))
    with collecting(history) as collector:
        assert running(collector) == []


def test_a_run_that_ends_where_another_replica_hears_it_is_not_in_progress_here(postgres_url: str) -> None:
    with collecting(postgres_url, lost_after=60.0) as other:
        tell(other, fact())
        with collecting(postgres_url, lost_after=60.0) as collector:
            assert len(running(collector)) == 1
            tell(other, fact("success", at=time.time()))
            until(lambda: running(collector) == [], what="its end")


def test_a_run_of_which_its_sender_tells_again_is_one_run() -> None:
    live = Live()
    live.restore({}, [row(fact())])

    live.fold([fact(), fact()])

    assert list(live.jobs["s", "j"].running) == [("s", "n", 0)]
    assert live.inherited() == []


def test_what_was_heard_while_the_store_was_away_is_not_taken_from_it() -> None:
    live = Live()
    live.fold([fact(), fact("success", "m", at=BEGAN + 1)])

    live.restore({}, [row(fact()), row(fact(native="m"))])

    assert list(live.jobs["s", "j"].running) == [("s", "n", 0)]


def test_a_run_that_is_called_otherwise_by_now_ends() -> None:
    live = Live()
    live.restore({}, [row(fact())])

    live.fold([fact("success", job="renamed", at=BEGAN + 1)])

    assert live.jobs["s", "j"].running == {}
