"""Every way in which a task of Celery ends, in a real worker with a prefork pool and Redis, against the ledger."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from celery.worker.request import Request
from celery_programs import Shop, of, shop
from ledger import NEAR

from services.process import until
from services.redis import Redis

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("celery-endings")]  # one worker of Celery serves all


@pytest.fixture(scope="module")
def prefork(redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A worker with two children, each of which ends after five tasks."""
    url = f"redis://127.0.0.1:{redis.port}"
    with shop(tmp_path_factory.mktemp("prefork"), f"{url}/3", f"{url}/4") as opened:
        opened.worker("-c", "2", "--max-tasks-per-child", "5", "-Q", "celery,mail")
        yield opened


def told(run: dict[str, Any]) -> tuple[Any, ...]:
    return run["status"], run["reason"], run["exception"]


ENDINGS = {
    "work": ("success", None, None),
    "fail": ("failed", "error", "ValueError"),
    "fail_unpicklably": ("failed", "error", "celery_shop.Unpicklable"),
    "soft": ("failed", "timeout", "billiard.exceptions.SoftTimeLimitExceeded"),
    "hard": ("failed", "timeout", "billiard.exceptions.TimeLimitExceeded"),
    "die": ("failed", "worker_lost", "billiard.exceptions.WorkerLostError"),
    "leave": ("failed", "worker_lost", "billiard.exceptions.WorkerLostError")
    if hasattr(Request, "_worker_lost_info")
    else ("failed", "error", "SystemExit"),  # an older Celery says nothing of it in the main process
    "ignore": ("skipped", "ignored", None),
    "reject": ("skipped", "rejected", None),
    "unheard_of": ("failed", "unknown_task", "celery.exceptions.NotRegistered"),
}


@pytest.fixture(scope="module")
def endings(prefork: Shop) -> dict[str, dict[str, Any]]:
    """One task of each kind, when it has ended."""
    sent = {name: prefork.send(f"shop.{name}") for name in ENDINGS}
    return {name: prefork.ended(task_id) | {"native": task_id} for name, task_id in sent.items()}


@pytest.mark.parametrize("name", ENDINGS)
def test_each_ending_says_what_it_is(endings: dict[str, dict[str, Any]], prefork: Shop, name: str):
    run = endings[name]

    assert told(run)[:2] == ENDINGS[name][:2]
    if ENDINGS[name][2] is not None:
        assert run["exception"] == ENDINGS[name][2]
    assert (run["task"], run["queue"], run["worker"]) == (f"shop.{name}", "celery", "w@shop")
    assert (run["scheduler"], run["attempt"]) == ("shop", 0)
    assert run["enqueued_at"] is not None


@pytest.mark.parametrize("name", [name for name in ENDINGS if name != "unheard_of"])
def test_each_run_started_when_the_ledger_says(endings: dict[str, dict[str, Any]], prefork: Shop, name: str):
    (begun,) = prefork.ledger.lines("begin", name)

    assert begun["run"] == endings[name]["native"]  # what current_run() said in the task
    assert -0.01 < begun["at"] - seconds(endings[name]["started_at"]) < NEAR


def test_no_ending_is_counted_twice(endings: dict[str, dict[str, Any]], prefork: Shop):
    until(lambda: sum(prefork.ledger.lines("begin", name) != [] for name in ENDINGS) == len(ENDINGS) - 1)
    for name, (status, *_) in ENDINGS.items():
        counted = {
            other: prefork.metric("runs_total{", f'"shop.{name}"', f'status="{other}"')
            for other in ("success", "failed", "retried", "skipped", "unknown")
        }
        assert counted == {other: float(other == status) for other in counted}, name


def test_a_failure_has_its_cause_and_its_place(endings: dict[str, dict[str, Any]]):
    run = endings["fail"]

    assert run["message"] == "cannot go on"
    assert run["stack_trace"].index("KeyError: 'missing'") < run["stack_trace"].index(
        "ValueError: cannot go on"
    )
    assert "in fail\n    raise error from cause" in run["stack_trace"]
    assert run["data"] == {"order": "17"}
    assert "trace_task" not in run["stack_trace"]


def test_a_plain_run_is_light(endings: dict[str, dict[str, Any]]):
    assert endings["work"]["details"] is None


def test_each_attempt_is_a_run_and_says_why_there_is_another(prefork: Shop):
    task_id = prefork.send("shop.flaky")

    runs = [prefork.ended(task_id, attempt) for attempt in range(3)]

    assert [told(run) for run in runs] == [
        ("retried", "error", "ConnectionError"),
        ("retried", "error", "ConnectionError"),
        ("success", None, None),
    ]
    assert [run["message"] for run in runs[:2]] == ["attempt 0", "attempt 1"]
    assert all("raise ConnectionError" in run["stack_trace"] for run in runs[:2])
    assert [run["attempt"] for run in runs] == [0, 1, 2]
    assert all(seconds(run["due_at"]) <= seconds(run["started_at"]) for run in runs[1:])  # by its countdown
    enqueued = [seconds(run["enqueued_at"]) for run in runs]
    assert enqueued == sorted(set(enqueued))  # each message has a stamp of its own
    assert len(prefork.ledger.lines("begin", "flaky")) == 3


def test_a_task_that_is_delivered_again_is_one_run(prefork: Shop):
    died, requeued = prefork.send("shop.die_once"), prefork.send("shop.requeue")

    until(lambda: len(prefork.ledger.lines("begin", "die_once")) == 2, what="the second delivery")
    assert told(prefork.ended(died))[0] == "success"
    until(lambda: len(prefork.ledger.lines("begin", "requeue")) == 2, what="the second delivery")
    until(lambda: told(prefork.ended(requeued))[0] == "success")
    for status in ("success", "retried"):  # told by a child and by the worker itself, in any order
        until(lambda status=status: prefork.metric("runs_total{", '"shop.requeue"', f'"{status}"') == 1)


def test_what_never_ran_says_why(prefork: Shop):
    late = prefork.send("shop.work", kwargs={"label": "never"}, expires=-1)
    revoked = prefork.send("shop.work", kwargs={"label": "never"}, countdown=1.5)
    prefork.app.control.revoke(revoked)

    assert told(prefork.ended(late)) == ("skipped", "expired", None)
    run = prefork.ended(revoked)
    assert told(run) == ("skipped", "cancelled", None)
    assert (run["started_at"], run["duration"]) == (None, None)
    assert seconds(run["due_at"]) - seconds(run["enqueued_at"]) == pytest.approx(1.5, abs=0.1)
    assert prefork.ledger.lines("begin", "never") == []


def test_a_message_that_makes_no_sense_is_a_run_that_was_rejected(prefork: Shop):
    task_id = prefork.send("shop.work", headers={"eta": "no time"})

    assert told(prefork.ended(task_id)) == ("skipped", "rejected", "celery.exceptions.InvalidTaskError")


def test_a_task_that_waits_for_its_time_is_queued(prefork: Shop):
    task_id = prefork.send("shop.work", kwargs={"label": "later"}, countdown=2)

    until(lambda: (run := prefork.run(task_id)) is not None and run["status"] == "queued", what="the waiting")

    run = prefork.ended(task_id)
    assert run["status"] == "success"
    assert seconds(run["started_at"]) >= seconds(run["due_at"])


def test_a_task_that_is_killed_on_demand_is_cancelled(prefork: Shop):
    task_id = prefork.send("shop.work", 20, kwargs={"label": "killed"})
    until(lambda: prefork.ledger.lines("begin", "killed"), what="its begin")

    prefork.app.control.revoke(task_id, terminate=True)

    run = prefork.ended(task_id)
    assert told(run) == ("skipped", "cancelled", None)
    assert run["started_at"] is not None
    assert prefork.ledger.lines("end", "killed") == []


def test_tasks_of_a_canvas_say_where_they_come_from(prefork: Shop):
    canvas = prefork.send("shop.canvas")
    prefork.ended(canvas)

    def sent(what: str) -> list[str]:
        return [line["job"] for line in prefork.ledger.lines(what)]

    (first,), (last,), (group,), (callback,) = map(sent, ("first", "last", "group", "callback"))
    assert prefork.ended(first)["details"] == {"parent": canvas, "root": canvas}
    assert prefork.ended(last)["details"] == {"parent": first, "root": canvas}
    members = [prefork.ended(member)["details"] for member in sent("member")]
    assert members == [{"group": group, "parent": canvas, "root": canvas}] * 2
    assert prefork.ended(callback)["details"]["root"] == canvas


def test_what_a_task_calls_and_sends_are_runs_too(prefork: Shop):
    parent = prefork.send("shop.parent")
    prefork.ended(parent)
    until(lambda: prefork.ledger.lines("end", "child") and prefork.ledger.lines("end", "eager"))

    (eager,), (child,) = prefork.ledger.lines("begin", "eager"), prefork.ledger.lines("begin", "child")
    assert prefork.ended(child["run"])["details"] == {"parent": parent, "root": parent}
    run = prefork.ended(eager["run"])
    assert (run["status"], run["details"]["eager"], run["queue"]) == ("success", True, None)


def test_queue_and_priority_are_those_of_the_message(prefork: Shop):
    mailed, urgent = prefork.send("shop.mailed", queue="mail"), prefork.send("shop.work", priority=3)

    assert prefork.ended(mailed)["queue"] == "mail"
    assert prefork.ended(urgent)["details"] == {"priority": 3}


def test_a_run_belongs_to_the_trace_of_its_message(prefork: Shop):
    trace, before = "0af7651916cd43dd8448eb211c80319c", len(prefork.ledger.lines("end", "child"))
    parent = prefork.send("shop.parent", headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})

    assert prefork.ended(parent)["trace_id"] == trace
    until(lambda: len(prefork.ledger.lines("end", "child")) > before)
    child = prefork.ledger.lines("begin", "child")[-1]["run"]
    assert prefork.ended(child)["trace_id"] == trace  # a task hands it on


def test_children_that_end_take_nothing_with_them(prefork: Shop):
    sent = [prefork.send("shop.work", kwargs={"label": "many"}) for _ in range(20)]

    until(lambda: len(prefork.ledger.lines("end", "many")) == 20, what="the work")
    until(
        lambda: all(prefork.index().get(of(task_id), {}).get("ended_at") for task_id in sent),
        what="their ends",
    )
    runs = [prefork.index()[of(task_id)] for task_id in sent]

    begins = {line["run"]: line for line in prefork.ledger.lines("begin", "many")}
    ends = {line["run"]: line for line in prefork.ledger.lines("end", "many")}
    assert Counter(run["status"] for run in runs) == {"success": 20}
    assert len({line["pid"] for line in begins.values()}) >= 4
    for task_id, run in zip(sent, runs, strict=True):
        took = ends[task_id]["at"] - begins[task_id]["at"]
        assert -0.002 <= run["duration"] / 1000 - took < NEAR


def test_the_worker_is_read(prefork: Shop):
    until(lambda: prefork.metric("taskscope_scheduler_up{", '"shop"') == 1)
    assert prefork.metric("taskscope_worker_up{", '"w@shop"') == 1
    task_id = prefork.send("shop.work", 3)
    until(lambda: prefork.metric("taskscope_worker_active_runs{", '"w@shop"') == 1)
    prefork.app.control.revoke(task_id, terminate=True)


def seconds(text: str) -> float:
    """RFC 3339 as seconds since the epoch."""
    return datetime.fromisoformat(text).timestamp()
