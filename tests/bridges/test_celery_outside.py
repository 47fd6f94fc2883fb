"""Real workers that know nothing of taskscope, watched by their broker's URL alone, against the ledger of the tasks."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from celery_outside import Outside, Plain, kill, outside, plain
from ledger import NEAR
from redis import Redis as Client

from services.process import until
from services.rabbitmq import RabbitMQ
from services.redis import Redis
from taskscope.bridges import _celery_state

pytestmark = pytest.mark.slow

ENDINGS = {
    "work": ("success", None, None),
    "mailed": ("success", None, None),
    "fail": ("failed", "error", "ValueError"),
    "soft": ("failed", "timeout", "billiard.exceptions.SoftTimeLimitExceeded"),
    "hard": ("failed", "timeout", "billiard.exceptions.TimeLimitExceeded"),
    "die": ("failed", "worker_lost", "billiard.exceptions.WorkerLostError"),
    "reject": ("skipped", "rejected", None),
    "unheard_of": ("failed", "unknown_task", "celery.exceptions.NotRegistered"),
    "parent": ("success", None, None),
}


# The workers of each kind serve all its tests, which therefore stay together.
@pytest.fixture(
    scope="module",
    params=[
        pytest.param("redis", marks=pytest.mark.xdist_group("celery-outside")),
        pytest.param("rabbitmq", marks=pytest.mark.xdist_group("rabbitmq")),
    ],
)
def broker(request: pytest.FixtureRequest) -> str:
    """Of each kind one, for this module alone."""
    server = request.getfixturevalue(request.param)
    if isinstance(server, RabbitMQ):
        return server.new_vhost()
    assert isinstance(server, Redis)
    assert server.ask("FLUSHALL") == b"+OK\r\n"
    return f"redis://127.0.0.1:{server.port}/7"


@pytest.fixture(scope="module")
def shop(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plain]:
    """Two workers on one host, each with queues of its own."""
    with plain(tmp_path_factory.mktemp("shop"), broker) as opened:
        opened.worker("-E", "-c", "2")
        opened.worker("-E", "-P", "threads", "-c", "3", "-Q", "mail", name="w2")
        yield opened


@pytest.fixture(scope="module")
def watching(shop: Plain) -> Iterator[Outside]:
    with outside(shop.directory, shop.broker, queues=["celery", "mail", "unread"]) as opened:
        until(lambda: opened.metric("worker_slots", "w2@shop"), what="an answer of the workers")
        yield opened


@pytest.fixture(scope="module")
def endings(shop: Plain, watching: Outside) -> dict[str, dict[str, Any]]:
    """One task of each kind, when it has ended."""
    sent = {name: shop.send(name, queue="mail" if name == "mailed" else "celery") for name in ENDINGS}
    return {name: watching.ended(task_id) for name, task_id in sent.items()}


@pytest.mark.parametrize("name", ENDINGS)
def test_each_ending_says_what_it_is(endings: dict[str, dict[str, Any]], name: str) -> None:
    run = endings[name]

    assert (run["status"], run["reason"], run["exception"]) == ENDINGS[name]
    assert (run["task"], run["queue"]) == (f"shop.{name}", "mail" if name == "mailed" else "celery")
    assert run["worker"] == ("w2@shop" if name == "mailed" else "w1@shop")


def test_a_failure_has_its_message_and_traceback(endings: dict[str, dict[str, Any]]) -> None:
    assert endings["fail"]["message"] == "cannot\ngo on"
    assert "KeyError: 'missing'" in endings["fail"]["stack_trace"]


def test_starts_and_durations_are_those_of_the_ledger(shop: Plain, watching: Outside) -> None:
    run = watching.ended(shop.send("work", 0.3))
    begin, end = (shop.ledger.lines(what, "shop.work")[-1]["at"] for what in ("begin", "end"))

    assert -0.01 <= begin - seconds(run["started_at"]) < NEAR
    assert -0.01 <= run["duration"] / 1000 - (end - begin) < NEAR


@pytest.mark.parametrize("queue", ["celery", "mail"])
def test_every_attempt_is_a_run_with_prefork_and_with_threads(
    shop: Plain, watching: Outside, queue: str
) -> None:
    noted = len(shop.ledger.lines("begin", "shop.flaky"))
    task_id = shop.send("flaky", queue=queue)
    runs = [watching.ended(task_id, attempt) for attempt in range(3)]

    assert [run["status"] for run in runs] == ["retried", "retried", "success"]
    assert [run["exception"] for run in runs] == ["ConnectionError", "ConnectionError", None]
    assert {run["worker"] for run in runs} == {"w2@shop" if queue == "mail" else "w1@shop"}
    assert [run["message"] for run in runs[:2]] == ["attempt 0", "attempt 1"]  # as from inside
    assert len(shop.ledger.lines("begin", "shop.flaky")) == noted + 3


def test_revoked_and_expired_tasks_never_start(shop: Plain, watching: Outside) -> None:
    expired = shop.send("work", expires=-1)
    revoked = shop.send("work", countdown=1.5)
    until(lambda: revoked in watching.seen.runs(), what="the task")
    assert watching.run(revoked)["due_at"] is not None
    shop.app.control.revoke(revoked)

    assert [watching.ended(one)["reason"] for one in (expired, revoked)] == ["expired", "cancelled"]
    assert watching.run(revoked)["started_at"] is None


def test_many_runs_are_counted_exactly(shop: Plain, watching: Outside) -> None:
    before = watching.metric("runs_total", 'job_name="shop.work"', 'status="success"') or 0
    noted = len(shop.ledger.lines("end", "shop.work"))
    for _ in range(200):
        shop.send("work")
    until(lambda: len(shop.ledger.lines("end", "shop.work")) == noted + 200, what="the work")
    want = before + 200

    until(
        lambda: watching.metric("runs_total", 'job_name="shop.work"', 'status="success"') == want,
        10,
        "the count",
    )


def test_workers_say_how_they_are(shop: Plain, watching: Outside) -> None:
    gate = shop.directory / "gate"
    held = [shop.send("gated", str(gate), queue="mail") for _ in range(5)]
    until(lambda: watching.metric("worker_active_runs", "w2@shop") == 3, what="three at work")
    workers = {row["worker"]: row for row in watching.get("/api/worker/")["data"]}

    assert {name: (row["up"], row["slots"]) for name, row in workers.items()} == {
        "w1@shop": (True, 2),
        "w2@shop": (True, 3),
    }
    until(
        lambda: watching.metric("runs_in_progress", 'job_name="shop.gated"') == 3,
        what="three runs in progress",
    )
    gate.touch()
    assert Counter(watching.ended(one)["status"] for one in held) == {"success": 5}


def seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).astimezone(UTC).timestamp()


def test_what_began_before_it_was_watched_has_its_name(redis_url: str, tmp_path: Path) -> None:
    with plain(tmp_path, redis_url) as shop:
        shop.worker("-E", "-c", "1")
        gate = tmp_path / "gate"
        begun, waits = shop.send("gated", str(gate)), shop.send("work")
        until(lambda: shop.ledger.lines("begin", "shop.gated"), what="its start")
        with outside(tmp_path, redis_url) as watching:
            until(
                lambda: watching.metric("runs_in_progress", 'job_name="shop.gated"'),
                what="the run in progress",
            )
            gate.touch()
            runs = [watching.ended(task_id) for task_id in (begun, waits)]

    assert [(run["task"], run["status"], run["queue"]) for run in runs] == [
        ("shop.gated", "success", "celery"),
        ("shop.work", "success", "celery"),
    ]
    assert abs(shop.ledger.lines("begin", "shop.gated")[0]["at"] - seconds(runs[0]["started_at"])) < NEAR


def test_runs_of_a_worker_that_falls_silent_are_lost(redis_url: str, tmp_path: Path) -> None:
    with plain(tmp_path, redis_url) as shop, outside(tmp_path, redis_url, worker_silence=4) as watching:
        worker = shop.worker("-E", "-c", "1")
        task_id = shop.send("gated", str(tmp_path / "never"))
        until(lambda: shop.ledger.lines("begin", "shop.gated"), what="its start")
        kill(worker)
        run = watching.ended(task_id)
        until(lambda: watching.metric("worker_up", "w1@shop") == 0, what="that it is down")

        assert run["status"] == "unknown"
        assert watching.metric("scheduler_up"), "the broker is there"
        assert watching.metric("scheduler_running") == 0


def test_a_worker_that_ends_in_order_is_down_at_once(redis_url: str, tmp_path: Path) -> None:
    with plain(tmp_path, redis_url) as shop, outside(tmp_path, redis_url) as watching:
        worker = shop.worker("-E", "-P", "solo")
        until(lambda: watching.metric("worker_up", "w1@shop") == 1, what="the worker")
        os.kill(worker.pid, signal.SIGTERM)
        until(lambda: watching.metric("worker_up", "w1@shop") == 0, what="its end")


def test_a_run_whose_end_was_missed_does_not_stay_in_progress(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_celery_state, "_RECENT", 0.5)
    with plain(tmp_path, redis_url) as shop, outside(tmp_path, redis_url) as watching:
        shop.worker("-c", "2")
        shop.app.control.enable_events(reply=True)
        gates = [tmp_path / "first", tmp_path / "second"]
        missed, goes_on = (shop.send("gated", str(gate)) for gate in gates)
        until(lambda: watching.metric("runs_in_progress", 'job_name="shop.gated"') == 2, what="both runs")
        shop.app.control.disable_events(reply=True)
        gates[0].touch()

        assert watching.ended(missed)["status"] == "unknown"
        assert watching.metric("runs_in_progress", 'job_name="shop.gated"') == 1, "the other goes on"
        shop.app.control.enable_events(reply=True)
        gates[1].touch()
        assert watching.ended(goes_on)["status"] == "success"


def test_runs_that_wait_are_told_beside_what_the_queue_holds_which_a_purge_takes_away(
    redis_url: str, tmp_path: Path
) -> None:
    def are(queue: str, said: int, counted: int) -> bool:
        label = f'queue="{queue}"'
        states = [
            watching.metric("queue_messages", label, f'state="{one}"') for one in ("ready", "in_flight")
        ]
        return (watching.metric("runs_queued", label), states) == (said, [counted, 0])

    with plain(tmp_path, redis_url) as shop, outside(tmp_path, redis_url) as watching:
        for options in ({}, {"countdown": 60}, {"queue": "mail"}):
            shop.send("work", **options)
        until(lambda: are("celery", 2, 2) and are("mail", 1, 1), what="what was sent")

        shop.app.control.purge()
        until(lambda: are("celery", 2, 0), what="what is missing")
        shop.worker("-E", "-Q", "mail", "-P", "solo")
        until(lambda: are("mail", 0, 0), what="the start of the run")


def test_events_are_switched_on_if_that_is_wanted_and_missed_aloud_if_not(
    redis_url: str, tmp_path: Path
) -> None:
    with plain(tmp_path, redis_url) as shop, Client.from_url(redis_url) as client:
        shop.worker("-P", "solo")
        before = set(client.scan_iter())
        with outside(tmp_path, redis_url) as watching:
            until(lambda: watching.metric("worker_slots", "w1@shop"), what="an answer of the worker")
            shop.send("work")
            until(lambda: "-E" in str(watching.get("/api/task/info")), what="a word about -E")
        with outside(tmp_path, redis_url, enable_events=True) as watching:
            until(lambda: watching.metric("worker_slots", "w1@shop"), what="an answer of the worker")
            assert watching.ended(shop.send("work"))["status"] == "success"
        until(lambda: set(client.scan_iter()) == before, 5, "that nothing is left in Redis")


def test_redis_goes_away_and_comes_back(redis_server: Redis, redis_url: str, tmp_path: Path) -> None:
    with plain(tmp_path, redis_url) as shop, outside(tmp_path, redis_url) as watching:
        shop.worker("-E", "-P", "solo")
        assert watching.ended(shop.send("work"))["status"] == "success"
        redis_server.stop()
        until(lambda: watching.metric("scheduler_up") == 0, what="that it is down")
        redis_server.start()
        until(lambda: watching.metric("scheduler_up") == 1, what="that it is up again")
        assert watching.ended(shop.send("work"), timeout=60)["status"] == "success"


def test_rabbitmq_closes_the_connections_and_takes_new_ones(
    rabbitmq_server: RabbitMQ, rabbitmq_url: str, tmp_path: Path
) -> None:
    with plain(tmp_path, rabbitmq_url) as shop, outside(tmp_path, rabbitmq_url) as watching:
        rabbitmq_server.call('rabbit_networking:close_all_connections("test")')
        until(lambda: watching.metric("scheduler_up") == 1, what="that it is up again")
        shop.worker("-E", "-P", "solo")
        assert watching.ended(shop.send("work"))["status"] == "success"
