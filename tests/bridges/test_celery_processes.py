"""Celery's processes of every kind: pools, publishers, beats, and how they end; with real brokers."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery_programs import Shop, of, shop

from services.process import answers, until
from services.redis import Redis
from taskscope import Exporter
from taskscope.facts import RANKED
from taskscope.testing import Recorder

pytestmark = pytest.mark.slow


@pytest.fixture
def plain(redis_server: Redis, redis_url: str, tmp_path: Path) -> Iterator[Shop]:
    """A shop on an empty Redis, no program of which runs yet."""
    with shop(tmp_path, redis_url) as opened:
        yield opened


def stored(opened: Shop) -> dict[bytes, str]:
    """The status of each run in the history file, whoever owns it."""
    with sqlite3.connect(f"file:{opened.directory}/shop.db?mode=ro", uri=True) as database:
        return {row[0][6:]: RANKED[row[1]] for row in database.execute("select id, rank from run")}


@pytest.mark.parametrize("pool", ["threads", "solo", "gevent"])
def test_runs_of_every_pool_are_told(plain: Shop, pool: str):
    if pool == "gevent":
        pytest.importorskip("gevent")
    worker = plain.worker("-P", pool, "-c", "4")
    worked, failed, flaky = plain.send("shop.work", 0.2), plain.send("shop.fail"), plain.send("shop.flaky")

    runs = [plain.ended(task_id) for task_id in (worked, failed, flaky)]

    assert [run["status"] for run in runs] == ["success", "failed", "retried"]
    assert plain.ended(flaky, attempt=2)["status"] == "success"
    assert {run["worker"] for run in runs} == {"w@shop"}
    (begun,), (over,) = plain.ledger.lines("begin", "work"), plain.ledger.lines("end", "work")
    assert begun["run"] == worked
    assert 0 <= runs[0]["duration"] / 1000 - (over["at"] - begun["at"]) < 0.25
    assert "in fail\n" in runs[1]["stack_trace"]
    until(lambda: plain.metric("taskscope_scheduler_up{", '"shop"') == 1)

    last = plain.send("shop.work", 1.0, kwargs={"label": "last"})
    until(lambda: plain.ledger.lines("begin", "last"))
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0

    assert plain.ledger.lines("end", "last")
    assert stored(plain)[of(last)] == "success"


def test_a_worker_that_ends_in_order_tells_what_its_children_did(plain: Shop):
    worker = plain.worker("-c", "2")
    sent = [plain.send("shop.work", 0.1) for _ in range(10)]
    until(lambda: len(plain.ledger.lines("begin")) >= 4)

    worker.send_signal(signal.SIGTERM)

    assert worker.wait(30) == 0
    ends = {line["run"] for line in plain.ledger.lines("end")}
    found = stored(plain)
    assert {task_id for task_id in sent if found.get(of(task_id)) == "success"} == ends
    assert set(found.values()) <= {"success", "queued"}  # what it had not begun goes back to the broker


def test_a_worker_that_is_gone_leaves_no_run_open(plain: Shop):
    """First one that is told to leave its work, then one that is killed."""
    worker = plain.worker("-c", "1")
    left = plain.send("shop.work", 20)
    until(lambda: plain.ledger.lines("begin"))
    worker.send_signal(signal.SIGQUIT)
    worker.wait(30)

    worker = plain.worker("-c", "1", name="next")
    assert plain.ended(left)["status"] in ("retried", "unknown", "failed")  # as Celery likes
    killed = plain.send("shop.work", 20, kwargs={"label": "killed"})
    until(lambda: (run := plain.run(killed)) and run["status"] == "started", what="its start")
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait(30)

    plain.worker("-c", "1", name="last")
    run = plain.ended(killed)
    assert (run["status"], run["reason"]) == ("unknown", "lost")
    assert plain.ledger.lines("end") == []


def test_a_publisher_stamps_and_does_nothing_else(plain: Shop):
    code = """
import threading
import celery_shop
from celery.utils.threads import LocalManager
sent = celery_shop.work.delay()
print(sent.id, threading.active_count(), repr(celery_shop.exporter))
"""
    said = subprocess.run(
        [sys.executable, "-c", code],
        env=plain.environment,
        cwd=plain.directory,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split(maxsplit=2)

    assert said[1] == "1"
    assert "new, no port" in said[2]
    assert [path.name for path in plain.directory.iterdir() if path.suffix == ".db"] == []
    plain._customer.close()
    bare = plain.send("shop.work")  # by a program that knows nothing of taskscope
    plain.worker("-P", "solo")
    run = plain.ended(said[0])
    assert run["enqueued_at"] < run["started_at"]
    assert (plain.ended(bare)["status"], plain.ended(bare)["queue_wait"]) == ("success", None)


def test_a_beat_is_read_and_its_runs_know_when_they_were_due(plain: Shop):
    plain.worker("-P", "solo")
    beat = plain.program("beat")

    until(lambda: plain.metric("taskscope_scheduler_up{", '"shop-beat"') == 1, what="the beat")
    until(lambda: len(plain.ledger.lines("end", "beat")) >= 3, what="its tasks")
    until(lambda: plain.metric("runs_total{", '"shop.work"', '"success"') >= 3)

    jobs = {job["name"]: job for job in plain.get("/api/job/")["data"]}
    assert jobs["shop.work"]["triggers"][0]["schedule"] == "freq: 1.00 second"
    night = jobs["shop.nightly"]["triggers"][0]
    assert (night["schedule"], night["timezone"]) == ("crontab: 30 3 * * *", "UTC")
    (next_run,) = [plain.metric("job_next_run_timestamp_seconds{", '"shop.nightly"')]
    assert time.gmtime(next_run)[3:6] == (3, 30, 0)
    assert 0 < next_run - time.time() <= 86400
    for line in plain.ledger.lines("end", "beat")[:3]:
        run = plain.ended(line["run"])
        assert run["details"] == {"beat_entry": "every second"}
        assert 0 <= run["start_delay"] < 1500
        assert run["due_at"] <= run["enqueued_at"]

    beat.kill()
    until(lambda: plain.metric("taskscope_scheduler_up{", '"shop-beat"') is None, what="its silence")


def test_a_beat_with_a_database_is_read(plain: Shop):
    with sqlite3.connect(f"{plain.ledger.path}.database") as database:
        database.execute("create table entry (name text, task text, seconds real, enabled int)")
        database.execute(
            "insert into entry values ('on', 'shop.work', 3600, 1), ('off', 'shop.nightly', 60, 0)"
        )
    database.close()
    plain.program("beat", "-S", "celery_shop:DatabaseScheduler")

    until(lambda: answers(f"http://127.0.0.1:{plain.port}/-/healthy"), what="the beat")
    until(lambda: plain.get("/api/job/")["total"] == 2)

    jobs = {job["name"]: job for job in plain.get("/api/job/")["data"]}
    assert [jobs[name]["triggers"][0]["state"] for name in ("shop.work", "shop.nightly")] == [
        "WAITING",
        "PAUSED",
    ]
    assert jobs["shop.work"]["triggers"][0]["schedule"] == "freq: 1.00 hour, UTC"
    with sqlite3.connect(f"{plain.ledger.path}.database") as database:
        database.execute("delete from entry where name = 'off'")
    database.close()
    until(lambda: triggers(plain)["shop.nightly"] == 0, what="the removal")


def test_a_beat_takes_no_job_away_that_others_send(plain: Shop):
    plain.worker("-P", "solo")
    plain.ended(plain.send("shop.mailed", queue="mail"))

    plain.program("beat")
    until(lambda: triggers(plain).get("shop.nightly") == 1, what="the reading of beat")

    jobs = {job["name"]: job["removed_at"] for job in plain.get("/api/job/")["data"]}
    assert jobs["shop.mailed"] is None


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_worker_says_how_much_it_can_do_does_and_holds(plain: Shop, pool: str):
    plain.worker("-P", pool, "-c", "2", "--prefetch-multiplier", "2")
    slots = 1 if pool == "solo" else 2
    for _ in range(8):
        plain.send("shop.work", 20)

    def said(name: str) -> float | None:
        return plain.metric(f"taskscope_worker_{name}{{", '"w@shop"')

    until(lambda: plain.ledger.lines("begin", "work"), what="their begin")
    until(lambda: (said("slots"), said("active_runs")) == (slots, slots), what="what it does")
    until(lambda: said("reserved_runs") == (0 if pool == "solo" else 4), what="what it holds")


def test_a_worker_needs_no_collector_to_work_and_finds_it_again(plain: Shop):
    url = f"http://127.0.0.1:{plain.port}"
    plain.worker("-c", "2", TASKSCOPE_FORWARD=url, TASKSCOPE_PORT="null", TASKSCOPE_HISTORY="null")
    sent = [plain.send("shop.work") for _ in range(30)]
    until(lambda: len(plain.ledger.lines("end")) == 30, what="the work")

    seen = Recorder()
    with Exporter(history=None, port=plain.port, sinks=[seen]):
        until(
            lambda: len(seen.runs("shop.work")) == 30 and all(map(ended, seen.runs().values())),
            what="the runs",
        )

    assert set(seen.runs()) == set(sent) == {line["run"] for line in plain.ledger.lines("end")}


def test_on_rabbitmq_queues_have_their_names_and_the_lost_are_delivered_again(
    rabbitmq_url: str, tmp_path: Path
):
    with shop(tmp_path, rabbitmq_url) as opened:
        opened.worker("-c", "1", "-Q", "celery,mail,orders")
        died = opened.send("shop.die_once")
        placed = opened.send("shop.work", exchange="shop", routing_key="orders.placed")
        mailed, urgent = opened.send("shop.mailed", queue="mail"), opened.send("shop.work", priority=4)

        assert opened.ended(placed)["queue"] == "orders"  # a topic exchange: the key is not the queue's name
        assert opened.ended(mailed)["queue"] == "mail"
        assert opened.ended(urgent)["details"] == {"priority": 4}
        run = opened.ended(died)
        assert (run["status"], run["details"]) == ("success", {"redelivered": True})
        assert len(opened.ledger.lines("begin", "die_once")) == 2
        assert opened.metric("runs_total{", '"shop.die_once"', '"success"') == 1


def triggers(plain: Shop) -> dict[str, int]:
    """The jobs that are known, and how many triggers make each due."""
    return {job["name"]: len(job["triggers"]) for job in plain.get("/api/job/")["data"]}


def ended(facts) -> bool:
    return facts[-1].status == "success"
