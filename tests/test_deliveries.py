"""Deliveries: events of other processes, whose sender hears that they are durable, or that they are not."""

import threading
import time
from concurrent.futures import wait

import pytest
from msgspec.structs import replace

from services.process import until
from taskscope import Exporter
from taskscope.admission import Admission
from taskscope.deliveries import Deliveries
from taskscope.errors import BadEvent, Overloaded, Unavailable
from taskscope.events import Fact, Heartbeat, QueueState
from taskscope.settings import Settings
from taskscope.sinks.history.records import Filter
from taskscope.testing import FakeScheduler, Recorder

ELSEWHERE = "another-host:7:0190"


def fact(native="n", status="success", **fields):
    now = time.time()
    return Fact(
        **{"scheduler": "s", "native": native, "status": status, "at": now, "anchor": now, "job": "j"}
        | fields
    )


def stored(exporter):
    return [run.status for run in exporter.queries.iterate(Filter())]


@pytest.fixture(params=["sqlite", "postgresql"])
def history(request, tmp_path):
    return (
        f"sqlite:///{tmp_path}/r.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    )


def test_once_its_end_is_told_a_delivery_is_durable_and_what_was_refused_is_named(history):
    seen = Recorder()
    with Exporter(history=history, port=None, sinks=[seen]) as exporter:
        end = exporter.pipeline.deliver(
            [fact("1"), fact("2", anchor=1.0), fact("3", duration=-1.0), fact("4")]
        )

        refused = end.result(10)

        assert stored(exporter) == ["success"] * 2
        assert list(refused) == [1, 2]
        assert "outside of the time that is kept" in refused[1]
        assert refused[2].startswith("duration=-1.0 is no time or duration")
        assert [event.native for event in seen.events] == ["1", "4"]
        assert len(seen.changes) == 2


def test_what_a_process_dropped_counts_once_however_often_it_tells_it():
    beat = Heartbeat(instance=ELSEWHERE, at=time.time(), dropped={"overflow": 3})
    later = replace(beat, at=beat.at + 1, dropped={"overflow": 2})
    with Exporter(history=None, port=None) as exporter:
        for told in (beat, beat, later, beat, later):
            exporter.pipeline.deliver([told]).result(10)
    assert exporter.pipeline.dropped == {"overflow": 5}


def test_a_delivery_without_history_counts_and_what_is_delivered_twice_counts_once():
    with Exporter(history=None, port=None) as exporter:
        queue = QueueState(scheduler="s", queue="q", at=time.time(), ready=3)
        told = [end := fact("1"), fact("1", "started", anchor=end.anchor), queue]
        for _ in range(2):
            assert exporter.pipeline.deliver(told).result(5) == {}

        assert exporter.store.totals()["s", "j"].statuses["success"] == 1
        assert exporter.live.queues["s", "q"].ready == 3


def test_what_the_store_cannot_hold_is_named_to_its_sender_alone(tmp_path):
    with Exporter(history=f"sqlite:///{tmp_path}/r.db", port=None) as exporter:
        apply = exporter.store.apply

        def stumble(rows, *more):
            if any(row.job == "poison" for row in rows):
                raise BadEvent("it is too large")
            return apply(rows, *more)

        exporter.store.apply = stumble
        poison = [fact("2", "started", job="poison"), fact("2", job="poison", anchor=None)]
        ends = [exporter.pipeline.deliver(events) for events in ([fact("1"), *poison], [fact("3")])]

        refused, other = (end.result(10) for end in ends)

        assert list(refused) == [1, 2]
        assert "BadEvent: it is too large" in refused[1]
        assert other == {}
        assert stored(exporter) == ["success"] * 2


def test_a_run_told_here_and_by_others_is_one(history):
    scheduler = FakeScheduler()
    with Exporter(scheduler, history=history, port=None) as exporter:
        until(lambda: exporter.pipeline.opened)
        ends = []
        for number in range(200):
            exporter.pipeline.emit(one := fact(f"{number}", "started"))
            ends.append(exporter.pipeline.deliver([fact(f"{number}", "success", anchor=one.anchor)]))
        assert {len(end.result(20)) for end in ends} == {0}
        until(lambda: exporter.pipeline.backlog == 0)

        assert stored(exporter) == ["success"] * 200
        assert exporter.store.totals()["s", "j"].triggers == {"fired": 200, "completed": 200}


def test_while_the_store_is_away_deliveries_fail_and_are_kept_by_nobody(postgres_server, postgres_url):
    with Exporter(history=postgres_url, port=None) as exporter:
        deliver, told = exporter.pipeline.deliver, [fact("1"), fact("2")]
        assert deliver([fact("before")]).result(10) == {}

        postgres_server.stop()
        first, second = deliver(told[:1]), deliver(told[1:])
        for end in (first, second):
            with pytest.raises(Unavailable, match="cannot be written"):
                end.result(20)
        assert exporter.pipeline.backlog == 0
        until(lambda: deliver(told).done(), what="a refusal at once, now that it is known to be away")

        postgres_server.start()
        until(lambda: exporter.pipeline.failure is None, timeout=60)
        assert [deliver(told).result(10) for _ in range(2)] == [{}, {}]
        assert stored(exporter) == ["success"] * 3


def test_a_delivery_does_not_wait_for_the_end_of_a_burst_nor_a_burst_for_deliveries(monkeypatch):
    for where in ("burst", "pipeline"):
        monkeypatch.setattr(f"taskscope.{where}.HOLD", 30.0)
    scheduler, over = FakeScheduler(), threading.Event()

    def pour():
        while not over.is_set():
            scheduler.burst(700)

    with Exporter(scheduler, history=None, port=None, queue_size=100_000_000) as exporter:
        pouring = threading.Thread(target=pour)
        pouring.start()
        try:
            until(lambda: exporter.pipeline.lag > 0.1, what="a burst that is let through first")
            assert exporter.store.totals() == {}
            exporter.pipeline.deliver([fact("1")]).result(10)
            assert exporter.store.totals().keys() > {("s", "j")}, "the burst was carried with it"
        finally:
            over.set()
            pouring.join()
        while exporter.pipeline.backlog:
            exporter.pipeline.deliver([fact("2")]).result(10)
    assert exporter.pipeline.dropped == {}


def test_a_burst_is_let_through_first_only_while_no_sender_waits():
    pipeline = Exporter(history=None, port=None).pipeline

    for waits in (False, True):
        for number in range(600):
            pipeline.emit(fact(f"{number}"))
        if waits:
            pipeline.deliver([fact("sent")])
        assert pipeline._holds() is not waits


def test_an_idle_pipeline_takes_a_delivery_at_once():
    with Exporter(history=None, port=None, flush_interval=30.0) as exporter:
        until(lambda: exporter.pipeline.opened)

        assert exporter.pipeline.deliver([fact()]).result(5) == {}


def test_deliveries_of_many_threads_are_all_answered(history):
    with Exporter(history=history, port=None) as exporter:
        ends = []

        def send(sender):
            for number in range(20):
                told = [fact(f"{sender}-{number}-{n}") for n in range(10)]
                ends.append(exporter.pipeline.deliver(told))

        senders = [threading.Thread(target=send, args=(number,)) for number in range(4)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        assert wait(ends, 30).not_done == set()

        assert [end.result() for end in ends] == [{}] * 80
        assert len(stored(exporter)) == 800


def test_the_end_of_taskscope_fails_what_waits_and_what_comes(tmp_path):
    exporter = Exporter(history=f"sqlite:///{tmp_path}/r.db", port=None).start()
    until(lambda: exporter.pipeline.opened)
    busy, go_on = threading.Event(), threading.Event()
    exporter.pipeline.do(lambda: (busy.set(), go_on.wait(10)))
    assert busy.wait(10)
    waits = exporter.pipeline.deliver([fact()])

    closing = threading.Thread(target=exporter.close)
    closing.start()
    until(exporter.pipeline._stop.is_set)
    go_on.set()
    closing.join(20)

    for end in (waits, exporter.pipeline.deliver([fact()])):
        with pytest.raises(Unavailable, match="taskscope is ending"):
            end.result(5)


def test_more_than_there_is_room_for_is_refused_and_a_large_one_is_taken():
    deliveries = Deliveries(10, Admission(Settings()), lambda: None)
    large = deliveries.deliver([fact(f"{number}") for number in range(50)])

    with pytest.raises(Overloaded, match="too much waits"):
        deliveries.deliver([fact("more")]).result(0)

    with deliveries.turn(1, time.time(), pytest.fail) as events:
        assert len(events) == 50
    assert large.result(0) == {}
    assert not deliveries.deliver([fact("more")]).done()


def test_a_fault_of_ours_is_told_to_the_sender_who_may_try_again():
    deliveries = Deliveries(10, Admission(Settings()), lambda: None)
    end = deliveries.deliver([fact()])

    with pytest.raises(ZeroDivisionError), deliveries.turn(10, time.time(), pytest.fail):
        raise ZeroDivisionError

    with pytest.raises(Unavailable, match="a fault of taskscope"):
        end.result(0)


@pytest.mark.parametrize("kept", [True, False])
def test_runs_of_a_sender_that_falls_silent_are_lost_and_those_of_others_are_not(tmp_path, kept):
    history = f"sqlite:///{tmp_path}/r.db" if kept else None
    quick = {"heartbeat": 0.1, "lost_after": 0.6}
    with Exporter(history=history, port=None, **quick) as exporter:

        def tell(*instances):
            now = time.time()
            exporter.pipeline.deliver([Heartbeat(instance=one, at=now) for one in instances]).result(10)

        tell(ELSEWHERE, "other:8:0191")
        exporter.pipeline.deliver(
            [
                fact("1", "started", instance=ELSEWHERE),
                fact("2", "started", instance="other:8:0191"),
                fact("3", "started"),
            ]
        ).result(10)

        def lost():
            tell("other:8:0191")
            return exporter.store.totals()["s", "j"].statuses.get("unknown", 0)

        until(lost, what="the loss of one run")
        until(lambda: len(exporter.live.jobs["s", "j"].running) == 2, what="two that go on")
        assert lost() == 1


def test_nobody_is_silent_whom_a_collector_that_was_away_could_not_hear(tmp_path):
    history, quick = f"sqlite:///{tmp_path}/r.db", {"heartbeat": 0.05, "lost_after": 3.0}
    with Exporter(history=history, port=None, **quick) as exporter:
        old = time.time() - 100
        exporter.pipeline.deliver([Heartbeat(instance=ELSEWHERE, at=old)]).result(10)
        exporter.pipeline.deliver([fact("1", "started", at=old, anchor=old, instance=ELSEWHERE)]).result(10)
        # as if it were away since
        exporter.pipeline.do(lambda: exporter.store.beat([ELSEWHERE], old)).result(10)

    with Exporter(history=history, port=None, **quick) as exporter:
        until(lambda: exporter.pipeline.opened)
        stays_started_until(exporter, exporter.pipeline._heard_since + 1.0)
        heard = time.time()
        exporter.pipeline.deliver([Heartbeat(instance=ELSEWHERE, at=heard)]).result(10)
        stays_started_until(exporter, heard + quick["lost_after"])
        until(lambda: stored(exporter) == ["unknown"], what="silence")


def stays_started_until(exporter, end):
    """All the time it looks for lost runs."""
    while (found := stored(exporter)) and time.time() < end:
        assert found == ["started"]
