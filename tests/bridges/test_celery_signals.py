"""What receivers of ours do in one process: of an app without a worker, traced as a worker does it."""

import gc
from collections.abc import Iterator
from contextlib import suppress
from functools import reduce
from typing import Any
from weakref import ref

import pytest
from celery import Celery, signals
from celery._state import _task_stack
from celery.app.trace import build_tracer
from celery.backends.base import DisabledBackend
from celery.beat import Scheduler, Service
from celery.schedules import schedule
from celery.utils.dispatch import Signal

import taskscope
from taskscope.bridges import _celery_signals, find
from taskscope.bridges._celery_publish import stamp
from taskscope.events import Jobs
from taskscope.facts import merge, row_of
from taskscope.testing import Recorder

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def app() -> Celery:
    found = Celery("shop", broker="memory://", set_as_current=False)
    found.conf.update(task_ignore_result=True)
    return found


@pytest.fixture
def seen(app: Celery) -> Iterator[Recorder]:
    """What is told of the app."""
    recorder, bridge = Recorder(), find(app)(app, "shop")
    bridge.attach(recorder.emit)
    yield recorder
    bridge.detach()


def execute(app: Celery, task: Any, task_id: str = "1", **request: Any) -> Any:
    """What a worker does with a message."""
    trace = build_tracer(task.name, task, app=app)
    return trace(task_id, (), {}, {"id": task_id, "delivery_info": {"routing_key": "celery"}} | request)


def receivers() -> dict[str, list[Any]]:
    return {name: list(kind.receivers) for name, kind in vars(signals).items() if isinstance(kind, Signal)}


def test_nothing_stays_connected(app: Celery):
    before = receivers()
    bridge = find(app)(app, "shop")

    bridge.attach(lambda event: None)
    assert receivers() != before
    bridge.detach()
    assert receivers() == before

    exporter = taskscope.watch(app, history=None, port=None)
    assert receivers() != before
    exporter.close()
    assert receivers() == before


def test_an_exporter_that_was_never_needed_leaves_nothing_and_starts_no_more(app: Celery):
    exporter = taskscope.watch(app, history=None, port=None)
    exporter.close()

    signals.beat_init.send(sender=type("Service", (), {"app": app}))

    assert "new" in repr(exporter) or "closed" in repr(exporter)
    assert exporter.url is None


def test_tasks_of_another_app_are_not_told(app: Celery, seen: Recorder):
    other = Celery("other", broker="memory://", set_as_current=False)
    other.conf.update(task_ignore_result=True)

    execute(other, other.task(work, name="theirs", shared=False))
    execute(app, app.task(work, name="ours", shared=False), "2")

    assert set(seen.runs()) == {"2"}


class Argument:
    """An object of the program."""


def works_on(argument: Argument) -> None:
    """A task."""


def test_what_waits_to_be_told_keeps_no_argument_of_the_task(app: Celery):
    waiting: list[Any] = []
    bridge = find(app)(app, "shop")
    bridge.attach(waiting.append)
    argument = Argument()
    gone = ref(argument)
    task = app.task(works_on, name="works", shared=False)

    build_tracer(task.name, task, app=app)("1", (argument,), {}, {"id": "1"})
    bridge.detach()
    del argument
    gc.collect()

    assert gone() is None
    assert [told().status for told in waiting[1:]] == ["success"]


def test_the_trace_of_a_message_is_never_overwritten(app: Celery, seen: Recorder):
    mine = {"traceparent": "00-11111111111111111111111111111111-2222222222222222-00"}
    stamped: list[dict[str, Any]] = []

    def publishes() -> None:
        for headers in ({}, dict(mine)):
            signals.before_task_publish.send(sender="x", headers=headers)
            stamped.append(headers)

    execute(app, app.task(publishes, name="publishes", shared=False), traceparent=TRACE)

    assert [headers["traceparent"] for headers in stamped] == [TRACE, mine["traceparent"]]
    assert all(headers["taskscope_enqueued"] > 1_700_000_000 for headers in stamped)
    assert {fact.trace_id for fact in seen.facts} == {TRACE.split("-")[1]}


def test_outside_of_tasks_no_trace_is_invented():
    headers: dict[str, Any] = {}

    stamp(headers=headers)

    assert set(headers) == {"taskscope_enqueued"}


def test_a_message_belongs_to_the_span_that_publishes_it():
    trace = pytest.importorskip("opentelemetry.sdk.trace")
    headers: dict[str, Any] = {}

    with trace.TracerProvider().get_tracer("t").start_as_current_span("s") as span:
        stamp(headers=headers)

    assert headers["traceparent"].split("-")[1:3] == [
        f"{span.get_span_context().trace_id:032x}",
        f"{span.get_span_context().span_id:016x}",
    ]


def test_a_retry_is_not_due_when_beat_made_its_first_attempt_due():
    headers = {"retries": 1, "taskscope_due": 5.0, "taskscope_entry": "nightly", "taskscope_enqueued": 5.0}

    stamp(headers=headers)

    assert "taskscope_due" not in headers
    assert headers["taskscope_entry"] == "nightly"
    assert headers["taskscope_enqueued"] > 1_700_000_000


class Picky(DisabledBackend):
    """Cannot store what tasks return."""

    def mark_as_done(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("the disk is full")


class Full(Picky):
    """Cannot store anything."""

    def mark_as_failure(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("the disk is full")


@pytest.mark.filterwarnings("ignore:Exception raised outside body:RuntimeWarning")
@pytest.mark.parametrize("kind", [Picky, Full])
def test_a_task_whose_result_cannot_be_stored_ends(app: Celery, seen: Recorder, kind: type[DisabledBackend]):
    task = app.task(work, name="work", shared=False)
    task.backend = kind(app)
    with suppress(RuntimeError):
        execute(app, task, retries=2)

    assert {fact.status for fact in seen.facts} == {"started", "failed"}
    assert [fact.status for fact in seen.facts] == ["started", "failed"]
    assert {(fact.native, fact.attempt) for fact in seen.facts} == {("1", 2)}
    end = seen.facts[-1]
    assert end.reason == "error"
    assert end.error is not None
    assert end.error.message == "the disk is full"


def test_a_task_that_is_called_where_an_exception_is_handled_succeeds(app: Celery, seen: Recorder):
    try:
        raise ValueError("another matter")
    except ValueError:
        execute(app, app.task(work, name="work", shared=False))

    assert [fact.status for fact in seen.facts] == ["started", "success"]


class Reject(Exception):
    """The user's own, which only shares its name with one of Celery's."""


def test_an_exception_of_the_users_own_means_nothing_by_its_name(app: Celery, seen: Recorder):
    def refuses() -> None:
        raise Reject("too little money")

    execute(app, app.task(refuses, name="refuses", shared=False))

    assert (seen.facts[-1].status, seen.facts[-1].reason) == ("failed", "error")


class Shy(schedule):
    """One that cannot be shown the first time."""

    def __repr__(self) -> str:
        if self.nowfun is None:
            self.nowfun = self.app.now
            raise RuntimeError("not now")
        return super().__repr__()


def test_a_beat_in_a_process_of_its_own_that_cannot_be_read_once_is_read_again(
    app: Celery, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(_celery_signals, "_REPORT", 0.05)
    app.conf.beat_schedule = {"often": {"task": "work", "schedule": Shy(60.0, app=app)}}
    recorder, bridge = Recorder(), find(app)(app, "shop")
    bridge.resume = lambda: bridge.attach(recorder.emit) or True
    bridge.attach(recorder.emit)
    bridge.abandon()  # as in the child that a worker forks for it

    signals.beat_init.send(sender=Service(app, scheduler_cls=Scheduler))

    recorder.wait_for(lambda: any(isinstance(event, Jobs) for event in recorder.events))
    bridge.detach()


def test_a_task_that_ends_its_own_worker_failed(app: Celery, seen: Recorder):
    with pytest.raises(SystemExit):
        execute(app, app.task(leave, name="leave", shared=False))
    _task_stack.pop()

    assert (seen.facts[-1].status, seen.facts[-1].error.kind) == ("failed", "SystemExit")


def test_inside_a_task_one_can_ask_which_it_is(app: Celery, seen: Recorder):
    asked: list[Any] = []

    def asks() -> None:
        asked.append(taskscope.current_run())

    execute(app, app.task(asks, name="asks", shared=False), "7", retries=2)

    assert (asked[0].job_name, asked[0].run_id, asked[0].attempt) == ("asks", "7", 2)
    assert taskscope.current_run() is None


def test_a_task_can_report_an_exception_that_it_survives(app: Celery, seen: Recorder):
    def survives() -> None:
        taskscope.capture_exception(ValueError("half of it"), shop=7)

    execute(app, app.task(survives, name="survives", shared=False), "8", retries=1)

    (told,) = [fact for fact in seen.facts if fact.captured]
    assert (told.native, told.attempt, told.job, told.instance) == (
        "8",
        1,
        "survives",
        seen.facts[-1].instance,
    )
    assert (told.captured.error.kind, told.captured.error.message) == ("ValueError", "half of it")
    assert seen.facts[-1].status == "success"


def test_a_task_can_say_what_it_is_called_and_what_came_of_it(app: Celery, seen: Recorder):
    def ships() -> None:
        taskscope.describe_run(entity="shop-7", key="order-4711")
        taskscope.describe_run(result="package 88")

    execute(app, app.task(ships, name="ships", shared=False), "9", retries=1)

    row = reduce(merge, (row_of(fact, bytes(16)) for fact in seen.facts if fact.native == "9"))
    assert (row.entity, row.key, row.result, row.status) == ("shop-7", "order-4711", "package 88", "success")
    assert {fact.attempt for fact in seen.facts} == {1}


def work() -> None:
    """Does nothing."""


def leave() -> None:
    raise SystemExit(3)
