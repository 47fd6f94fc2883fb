"""A program that forwards: it keeps nothing, serves nothing, and says how that goes."""

import asyncio
import hashlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry, generate_latest

import taskscope
from services.ingesting import receiving
from services.process import free_port, until
from taskscope import check
from taskscope.configure import load
from taskscope.events import Removed
from taskscope.settings import JobRule, Settings, Token
from taskscope.testing import FakeScheduler, Recorder

TOKEN = "correct horse battery staple"
INGEST = Token(name="sender", sha256=hashlib.sha256(TOKEN.encode()).hexdigest(), scopes=("ingest",))


@pytest.fixture
def seen():
    return Recorder()


@pytest.fixture
def collector(tmp_path, seen):
    with taskscope.Exporter(
        history=f"sqlite:///{tmp_path}/collector.db", port=0, tokens=[INGEST], sinks=[seen]
    ) as collector:
        yield collector


def watching(collector, *schedulers, **how):
    return taskscope.Exporter(*schedulers, forward=collector.url, forward_token=TOKEN, **how)


def page(exporter):
    exporter.refresh()
    return b"".join(exporter.metrics.render().blocks).decode()


def test_runs_and_readings_arrive_at_the_collector_and_nothing_is_kept_here(
    collector, seen, tmp_path, monkeypatch
):
    monkeypatch.setenv("TASKSCOPE_HOME", str(tmp_path / "home"))
    scheduler = FakeScheduler()
    with watching(collector, scheduler, service="billing") as exporter:
        for number in range(10):
            scheduler.job("invoices").run(
                duration=0.5, fails=LookupError("none") if number % 5 == 0 else None
            )
        assert exporter.flush(10)

        assert exporter.url is None
        assert exporter.degraded == {}
        assert next((part.name, part.ready) for part in exporter.ready()) == ("forward", True)
        assert f"to {collector.url}" in repr(exporter)
        until(lambda: ("billing", "invoices") in collector.live.jobs)
        until(lambda: "billing" in collector.live.schedulers)
        until(lambda: collector.live.jobs["billing", "invoices"].definition is not None)
    assert not (tmp_path / "home").exists()
    assert len(seen.runs("invoices")) == 10
    assert 'taskscope_runs_total{job_name="invoices",scheduler="billing",status="success"} 8.0' in page(
        collector
    )
    assert 'taskscope_runs_total{job_name="invoices",scheduler="billing",status="failed"} 2.0' in page(
        collector
    )


def test_what_is_told_while_the_collector_is_away_arrives_later(tmp_path):
    port, scheduler = free_port(), FakeScheduler()
    with taskscope.Exporter(scheduler, forward=f"http://127.0.0.1:{port}", service="billing") as exporter:
        scheduler.burst(300, jobs=1)
        until(lambda: exporter.degraded)
        assert "does not answer" in exporter.degraded["forward"]
        assert not exporter.ready()[0].ready
        own = exporter._own(0.0)
        assert ("does not answer" in own.store, dict(own.degraded)) == (True, {}), "told once"
        until(lambda: exporter._own(0.0).lag > 0)
        assert 'taskscope_degraded{reason="forward"} 1.0' in page(exporter)
        assert "taskscope_store_up 0.0" in page(exporter)
        with taskscope.Exporter(history=f"sqlite:///{tmp_path}/c.db", port=port) as collector:
            until(lambda: not exporter.degraded)
            assert exporter.flush(10)
            assert 'job_name="burst-0",scheduler="billing",status="success"} 300.0' in page(collector)
            assert "taskscope_store_up 1.0" in page(exporter)


def test_close_sends_the_last_ones_and_leaves_nothing_behind(collector, seen):
    before = set(threading.enumerate())
    scheduler = FakeScheduler()
    exporter = watching(collector, scheduler).start()
    scheduler.burst(500, jobs=1)
    exporter.close()
    exporter.close()

    assert len(seen.runs()) == 500
    until(lambda: set(threading.enumerate()) <= before)
    assert scheduler.listeners == []


def test_the_end_of_the_program_sends_the_last_ones(collector, seen, tmp_path):
    program = (
        "import taskscope\nfrom taskscope.testing import FakeScheduler\nscheduler = FakeScheduler()\n"
        f"taskscope.watch(scheduler, forward={collector.url!r}, forward_token={TOKEN!r})\n"
        "for _ in range(200): scheduler.job('j').run()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (0, b"")
    assert len(seen.runs("j")) == 200


def test_under_asyncio_it_is_the_same(collector, seen):
    async def scene():
        scheduler = FakeScheduler()
        async with watching(collector, scheduler) as exporter:
            scheduler.job("j").run()
            assert await asyncio.to_thread(exporter.flush, 10)

    asyncio.run(asyncio.wait_for(scene(), 30))
    assert len(seen.runs("j")) == 1


def test_with_strict_the_collector_must_take_what_is_sent(collector):
    with watching(collector, FakeScheduler(), strict=True) as exporter:
        assert exporter.degraded == {}
    with pytest.raises(taskscope.Unavailable, match="401"):
        taskscope.Exporter(FakeScheduler(), forward=collector.url, strict=True).start()
    with pytest.raises(taskscope.Unavailable, match="does not answer"):
        taskscope.Exporter(FakeScheduler(), forward="http://127.0.0.1:1", strict=True).start()


def test_a_wrong_token_loses_nothing_and_is_said(collector, caplog):
    scheduler = FakeScheduler()
    with taskscope.Exporter(scheduler, forward=collector.url, forward_token="wrong") as exporter:
        scheduler.job("j").run()
        until(lambda: "401" in exporter.degraded.get("forward", ""))
        assert exporter._carrier.backlog >= 1
        assert exporter._carrier.dropped == {}
    assert "wrong" not in caplog.text


def test_a_registry_of_the_programs_own_gets_what_taskscope_knows_of_itself_and_no_runs(collector):
    registry, scheduler = CollectorRegistry(), FakeScheduler()
    exporter = watching(collector, scheduler)
    registry.register(exporter.collector())
    scheduler.job("j").run()
    assert exporter.flush(10)

    text = generate_latest(registry).decode()
    assert "taskscope_store_up 1.0" in text
    assert "taskscope_build_info" in text
    assert 'job_name="j"' not in text, "the collector counts them"
    exporter.close()


def test_with_a_history_of_its_own_it_keeps_what_it_sends(collector, seen, tmp_path):
    scheduler = FakeScheduler()
    with watching(collector, scheduler, history=f"sqlite:///{tmp_path}/own.db", port=0) as exporter:
        scheduler.job("j").run()
        until(lambda: 'job_name="j",scheduler="fake",status="success"} 1.0' in page(exporter))
        assert exporter.url is not None
    assert len(seen.runs("j")) == 1


def test_jobs_that_are_no_more_and_a_departure_survive_the_way(collector, seen, tmp_path, caplog):
    how = {"history": f"sqlite:///{tmp_path}/own.db", "flush_interval": 1.0}
    with watching(collector, FakeScheduler(), **how) as exporter:
        for job in ("a", "b"):
            exporter.pipeline.emit(Removed(scheduler="cron", at=time.time(), job=job))
        exporter.adopt(exporter.settings, gone=["fake"])
    assert {event.job for event in seen.events if isinstance(event, Removed)} == {"a", "b"}
    assert "refused" not in caplog.text


def test_a_copy_has_the_names_that_its_program_gave_by_the_rules_of_that_moment(collector, seen, tmp_path):
    scheduler, rules = FakeScheduler(), [JobRule(match="a", name="b"), JobRule(match="b", name="c")]
    with watching(collector, scheduler, history=f"sqlite:///{tmp_path}/own.db", jobs=rules) as exporter:
        scheduler.job("a").run()
        until(lambda: seen.runs("b"))
        assert not seen.runs("c")
        exporter.adopt(replace(exporter.settings, jobs=(JobRule(match="a", name="d"),), redact=("mail",)))
        scheduler.job("a").run(fails=ValueError("mail=me@example.com"))
        until(lambda: seen.runs("d"))
        assert exporter.flush(10)

    assert set(collector.live.jobs) >= {("fake", "b"), ("fake", "d")}
    assert "example.com" not in str(seen.events)


def test_what_leaves_the_program_is_bounded_and_has_no_secrets():
    scheduler = FakeScheduler()
    with receiving() as receiver:
        limits = {"message": 100, "stack": 1_000}
        with taskscope.Exporter(scheduler, forward=receiver.url, limits=limits) as exporter:
            error = RuntimeError("password=hunter2 " + "x" * 1_000)
            error.api_key = "sk-hunter2"
            scheduler.job("j").define(data={"token": "hunter2"})
            scheduler.job("j").run(fails=error)
            assert exporter.flush(10)
            until(lambda: any(event["type"] == "jobs" for batch in receiver.batches for event in batch))

    told = [event for batch in receiver.batches for event in batch]
    assert "hunter2" not in str(told)
    (failed,) = [event for event in told if event.get("status") == "failed"]
    assert len(failed["error"]["message"]) <= 100
    assert len(failed["error"]["stack"]) <= 1_000


def test_the_programs_own_rules_name_and_ignore_its_jobs(collector, seen):
    scheduler = FakeScheduler()
    rules = [JobRule(match="sync-*", name="sync"), JobRule(match="noise", ignore=True)]
    with watching(collector, scheduler, jobs=rules) as exporter:
        for job in ("sync-17", "sync-18", "noise"):
            scheduler.job(job).run()
        assert exporter.flush(10)
    assert {job: len(seen.runs(job)) for job in ("sync", "noise")} == {"sync": 2, "noise": 0}


def test_the_collector_hears_what_was_dropped(collector):
    scheduler = FakeScheduler()
    with watching(collector, scheduler, queue_size=100, heartbeat=0.2, lost_after=1) as exporter:
        scheduler.burst(5_000, jobs=1)
        assert exporter.flush(10)
        dropped = exporter._carrier.dropped["overflow"]
        until(lambda: f'taskscope_events_dropped_total{{reason="overflow"}} {dropped}.0' in page(collector))
        beats = threading.Event()
        beats.wait(0.6)  # heartbeats that tell of it no more
        assert f'taskscope_events_dropped_total{{reason="overflow"}} {dropped}.0' in page(collector)


def test_what_waits_on_disk_for_one_collector_is_not_sent_to_another(collector, seen, tmp_path):
    scheduler, how = FakeScheduler(), {"spool": str(tmp_path / "spool")}
    with taskscope.Exporter(scheduler, forward="http://127.0.0.1:9", **how) as exporter:
        scheduler.job("secret").run()
        assert exporter.flush(10), "on disk"
    scheduler = FakeScheduler()
    with watching(collector, scheduler, **how) as exporter:
        scheduler.job("open").run()
        assert exporter.flush(10)

    assert (len(seen.runs("secret")), len(seen.runs("open"))) == (0, 1)
    assert len(list((tmp_path / "spool").glob("*/*"))) == 1


def test_forwarding_programs_that_fork_send_from_their_children(collector, seen, monkeypatch):
    scheduler = FakeScheduler()
    with watching(collector, scheduler) as exporter:
        scheduler.job("j").run()
        pid = os.fork()
        if not pid:
            code = 1
            try:
                if exporter.resume_in_child():
                    scheduler.job("j").run()
                    code = 0 if exporter.flush(10) else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert exporter.flush(10)
    runs = seen.runs("j")
    assert len(runs) == 2
    assert len({fact.instance for facts in runs.values() for fact in facts}) == 2


class TestSettings:
    def test_with_forward_neither_history_nor_port_are_kept_unless_they_are_named(self):
        assert (
            load(environ={}, forward="http://c:1").history,
            load(environ={}, forward="http://c:1").port,
        ) == (
            None,
            None,
        )
        named = load(environ={"TASKSCOPE_PORT": "9750"}, forward="http://c:1", history="auto")
        assert (named.history, named.port) == ("auto", 9750)
        assert load(named).port == 9750

    @pytest.mark.parametrize(
        "url", ["collector", "http://", "ftp://c", "http://u:hunter2@c", "unix:relative"]
    )
    def test_what_is_no_address_is_refused_with_a_sentence(self, url):
        with pytest.raises(taskscope.BadArgument, match="forward must be http://HOST:PORT") as caught:
            load(environ={}, forward=url)
        assert "hunter2" not in str(caught.value)

    def test_what_belongs_to_it_needs_it(self, tmp_path):
        with pytest.raises(taskscope.BadArgument, match="forward_token is set without forward"):
            load(environ={}, forward_token="x")
        with pytest.raises(taskscope.BadArgument, match=r"forward_certificates names .*nowhere.*no file"):
            load(environ={}, forward="https://c", forward_certificates=str(tmp_path / "nowhere"))

    def test_its_token_is_not_shown(self):
        assert "hunter2" not in taskscope.configure.describe(
            load(environ={}, forward="http://c", forward_token="hunter2")
        )


def test_check_says_whether_the_collector_takes_what_is_sent(collector, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def about(**how):
        return [found for found in check.findings(**how) if found.about == "forward"]

    (good,) = about(forward=collector.url, forward_token=TOKEN)
    (bad,) = about(forward=collector.url)
    assert good.good
    assert "takes what is sent" in good.sentence
    assert not bad.good
    assert "401" in bad.sentence
    assert about() == []


def test_settings_given_as_an_object_say_everything():
    assert load(Settings(forward="http://c:1")).port == 9750
