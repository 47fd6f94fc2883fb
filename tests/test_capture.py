"""Exceptions that a run reports, and does not fail of."""

import asyncio
import contextvars
import json
import logging
import threading
import time
from datetime import UTC, datetime, timedelta
from urllib.request import urlopen

import pytest
from apscheduler.executors.asyncio import AsyncIOExecutor
from apscheduler.executors.pool import ProcessPoolExecutor as Processes
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler

import taskscope
from services.process import until
from taskscope import capture_exception, describe_run
from taskscope.events import Captured, Error, Fact
from taskscope.facts import row_of
from taskscope.run import Run, RunFilter, enter, leave
from taskscope.testing import FakeScheduler, Recorder

MILLISECOND = timedelta(milliseconds=1)
RUN = Run(scheduler="s", job_name="nightly", native="n", attempt=2, due=1.5, anchor=1.5)


class Making:
    """A run whose facts are kept."""

    def __init__(self):
        self.facts = []

    def __call__(self):
        return RUN

    def tell(self, fact):
        self.facts.append(fact)


@pytest.fixture
def making():
    made = Making()
    token = enter(made)
    yield made
    leave(token)


def fail():
    raise LookupError("no price")


def survive(**data):
    try:
        fail()
    except LookupError:
        capture_exception(**data)


def test_what_is_handled_is_told_with_the_run_and_its_data(making):
    survive(shop=7, password="x")

    (fact,) = making.facts
    assert (fact.scheduler, fact.job, fact.native, fact.attempt, fact.anchor) == ("s", "nightly", "n", 2, 1.5)
    error = fact.captured.error
    assert (error.kind, error.message) == ("LookupError", "no price")
    assert error.data == {"shop": "7", "password": "'x'"}
    assert error.stack.index("in survive") < error.stack.index("in fail")


def test_the_stack_begins_where_the_run_begins(making):
    def whole():
        survive()

    whole()

    assert "in whole" in making.facts[0].captured.error.stack


def test_any_two_are_told_apart(making):
    survive()
    survive()

    assert len({fact.captured.key for fact in making.facts}) == 2


def test_an_exception_that_was_never_raised_is_told(making):
    capture_exception(ValueError("made up"))

    assert making.facts[0].captured.error.message == "made up"


class Vicious(Exception):
    def __str__(self):
        raise SystemExit

    __repr__ = __str__


class Unspeakable:
    def __repr__(self):
        raise MemoryError


@pytest.mark.parametrize(
    "report",
    [
        lambda: capture_exception(),
        lambda: capture_exception(Vicious(), what=Unspeakable(), much="x" * 10**6),
        lambda: capture_exception("no exception"),
        lambda: capture_exception(ValueError("\ud800")),
        lambda: describe_run(key=Unspeakable()),
    ],
    ids=["nothing is handled", "vicious", "wrong", "surrogate", "unspeakable"],
)
def test_it_never_raises(making, report):
    report()


def test_it_never_raises_where_telling_does(making):
    making.tell = lambda fact: 1 / 0

    survive()
    describe_run(entity="shop-7")


def test_a_run_says_what_it_works_for_what_it_is_called_and_what_came_of_it(making):
    describe_run(entity="shop-7")
    describe_run(key=4711, result="package 88" + "8" * 9_999)

    first, second = making.facts
    assert (first.entity, first.key, first.result) == ("shop-7", "", "")
    assert (second.entity, second.key, second.result[:10]) == ("", "4711", "package 88")
    assert len(second.result) == 4_096
    assert (first.captured, first.native, first.attempt) == (None, "n", 2)


def test_what_a_run_says_of_itself_is_not_when_it_began(making):
    describe_run(key="order-4711")

    row = row_of(making.facts[0], bytes(16))
    assert (row.status, row.started) == ("started", 0)


def test_outside_of_a_run_and_where_nobody_watches_nothing_happens():
    survive()
    describe_run(entity="shop-7")
    token = enter(lambda: RUN)
    survive()
    describe_run(entity="shop-7")
    leave(token)


def test_coroutines_and_threads_with_the_context_belong_to_the_run(making):
    async def task():
        await asyncio.gather(asyncio.to_thread(survive), asyncio.create_task(inner()))

    async def inner():
        survive()

    asyncio.run(task())
    thread = threading.Thread(target=contextvars.copy_context().run, args=(survive,))
    thread.start()
    thread.join()

    assert len(making.facts) == 3


def test_a_logged_exception_is_reported_once_where_the_filter_is_asked_to(making):
    logger, handlers = logging.getLogger("program"), [logging.NullHandler(), logging.NullHandler()]
    for handler in handlers:
        handler.addFilter(RunFilter(capture=True))
        handler.handle = handler.filter
        logger.addHandler(handler)
    try:
        try:
            fail()
        except LookupError:
            logger.exception("shop %d", 7)
            logger.warning("not that bad", exc_info=True)
        logger.error("no exception")
    finally:
        for handler in handlers:
            logger.removeHandler(handler)

    (fact,) = making.facts
    assert fact.captured.error.data == {"logger": "'program'", "logged": "'shop 7'"}


def nightly():
    describe_run(entity="shop-7", key="order-4711")
    survive(shop=7)
    survive(shop=8)
    time.sleep(0.2)
    describe_run(result="package 88")


def broken():
    survive()
    fail()


async def awaited():
    await asyncio.sleep(0)
    survive()


def asked(url):
    with urlopen(url, timeout=10) as answer:
        return json.load(answer)


def counted(exporter):
    rows = asked(f"{exporter.url}/api/error/")["data"]
    return {row["task"]: (row["count"], row["captured"]) for row in rows}


@pytest.mark.parametrize("pool", ["threadpool", "processpool"])
def test_runs_of_a_scheduler_report_from_threads_and_processes(pool, tmp_path):
    executor = Processes(1) if pool == "processpool" else {"type": "threadpool"}
    scheduler = BackgroundScheduler(timezone="UTC", executors={"default": executor})
    for job in (nightly, broken):
        scheduler.add_job(
            job,
            "interval",
            hours=1,
            id=job.__name__,
            next_run_time=datetime.now(UTC),
            misfire_grace_time=None,
        )
    try:
        with taskscope.Exporter(scheduler, history=f"sqlite:///{tmp_path}/runs.db", port=0) as exporter:
            scheduler.start()
            until(lambda: counted(exporter) == {"nightly": (0, 2), "broken": (1, 1)})
            metrics = page_with(
                exporter,
                'taskscope_captured_exceptions_total{job_name="nightly",scheduler="apscheduler"} 2.0',
            )
            about = f"{exporter.url}/api/task/?entity=shop-7&key=order-4711"
            until(lambda: [run["status"] for run in asked(about)["data"]] == ["success"])
            (run,) = asked(about)["data"]
            assert (run["task"], run["result"]) == ("nightly", "package 88")
            began, ended = (datetime.fromisoformat(run[f"{name}_at"]) for name in ("started", "ended"))
            assert abs((ended - began) / MILLISECOND - run["duration"]) < 2, (
                "it began before it said anything"
            )
    finally:
        scheduler.shutdown()

    for line in (
        'taskscope_new_errors_total{job_name="nightly",scheduler="apscheduler"} 1.0',
        'taskscope_new_errors_total{job_name="broken",scheduler="apscheduler"} 1.0',
        'taskscope_captured_exceptions_total{job_name="broken",scheduler="apscheduler"} 1.0',
        'taskscope_run_failures_total{exception="LookupError",job_name="broken",scheduler="apscheduler"} 1.0',
    ):
        assert line in metrics
    assert 'run_failures_total{exception="LookupError",job_name="nightly"' not in metrics


def page_with(exporter, line):
    """The page of metrics, once it has this line."""
    pages = []

    def there():
        with urlopen(f"{exporter.url}/metrics", timeout=10) as answer:
            pages.append(answer.read().decode())
        return line in pages[-1]

    until(there, what=line)
    return pages[-1]


def test_coroutines_of_a_scheduler_report(tmp_path):
    async def main():
        scheduler = AsyncIOScheduler(timezone="UTC", executors={"default": AsyncIOExecutor()})
        scheduler.add_job(
            awaited,
            "interval",
            hours=1,
            id="awaited",
            next_run_time=datetime.now(UTC),
            misfire_grace_time=None,
        )
        seen = Recorder()
        with taskscope.Exporter(scheduler, history=None, port=None, sinks=[seen]):
            scheduler.start()
            await asyncio.to_thread(seen.wait_for, lambda: [f for f in seen.facts if f.captured])
        scheduler.shutdown()
        return seen

    seen = asyncio.run(main())

    assert [fact.job for fact in seen.facts if fact.captured] == ["awaited"]


def captured(run, number):
    error = Error(kind="LookupError", message=f"no {number}")
    return Fact(
        scheduler="fake",
        native=run.native,
        status="started",
        at=run.due,
        anchor=run.due,
        job=run.job.name,
        captured=Captured(key=f"{number}", at=run.due, error=error),
    )


def test_a_run_that_reports_too_much_is_cut_short_and_that_is_counted(tmp_path):
    scheduler = FakeScheduler()
    url = f"sqlite:///{tmp_path}/runs.db"
    with taskscope.Exporter(scheduler, history=url, port=0, limits={"captured": 5}) as exporter:
        run = scheduler.job("nightly").start()
        for number in range(20):
            exporter.pipeline.emit(captured(run, number))
        run.end()
        until(lambda: counted(exporter) == {"nightly": (0, 5)})
        assert page_with(exporter, 'events_dropped_total{reason="surplus"} 15.0')


def test_states_of_groups_and_what_was_limited_are_exported(tmp_path):
    scheduler = FakeScheduler()
    url = f"sqlite:///{tmp_path}/runs.db"
    with taskscope.Exporter(scheduler, history=url, port=0, retention={"max_errors": 2}) as exporter:
        scheduler.job("nightly").run(fails=ValueError("a"))
        until(lambda: counted(exporter))
        scheduler.job("nightly").run(fails=KeyError("b"))
        scheduler.job("nightly").run(fails=OSError("c"))

        assert page_with(exporter, 'error_groups{scheduler="fake",state="open"} 3.0')
        assert page_with(exporter, 'error_groups{scheduler="fake",state="regressed"} 0.0')
        assert page_with(exporter, 'error_groups_limited_total{scheduler="fake"} 1.0')
