"""The collector as a daemon: several schedulers, brokers that go and come, signals, and what it says of it."""

import json
import socket
import sqlite3
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from redis import Redis

from services.process import until
from serving import Serve, Served

SHOP = """
from apscheduler.schedulers.background import BackgroundScheduler

def invoices():
    pass

scheduler = BackgroundScheduler()
scheduler.add_job(invoices, "interval", seconds=0.2, id="invoices")
scheduler.start()
"""
BAD_FILES = {  # and what the complaint must name
    "schedulers: [": "line 1",
    '{"prot": 1}': "prot",
    '{"host": "0.0.0.0"}': "0.0.0.0",
    '{"schedulers": {"x": {"system": "quarz", "target": "redis://x/0"}}}': "quarz",
    '{"schedulers": {"x": {"system": "redislist", "target": "redis://x/zero"}}}': "schedulers.x.target",
    '{"schedulers": {"x": {"system": "redislist", "target": "redis://x/0", "options": {"k": 1}}}}': "options.k",
    '{"schedulers": {"x": {"system": "apscheduler", "target": "no_such:thing"}}}': "no_such",
}
AWAY = "redis://:hunter2@127.0.0.1:1/0"


def source(url: str, **options: Any) -> dict[str, Any]:
    return {"system": "redislist", "target": url, "options": options}


def push(url: str, *events: str, key: str = "events") -> None:
    with Redis.from_url(url) as redis:
        redis.rpush(key, *events)


def rows(served: Served, scheduler: str) -> int:
    """How many runs of it the history holds, asked from the file itself."""
    with sqlite3.connect(served.history.removeprefix("sqlite:///")) as database:
        query = "select count(*) from run join job on run.job = job.id where job.scheduler = ?"
        return int(database.execute(query, (scheduler,)).fetchone()[0])


def test_schedulers_of_several_systems_are_watched_at_once(serve: Serve, redis_url: str):
    served = serve({"schedulers": {"lists": source(redis_url), "away": source(AWAY)}})
    push(redis_url, *(f"job:{n}:success" for n in range(50)))
    until(lambda: served.runs(scheduler="lists") == 50, what="50 runs")

    assert served.value("scheduler_up", scheduler="lists") == 1
    assert served.value("scheduler_up", scheduler="away") == 0
    assert served.end() == 0


@pytest.mark.slow
def test_sigterm_stores_what_was_taken_and_ends_well(serve: Serve, redis_url: str):
    served = serve({"schedulers": {"lists": source(redis_url)}})
    until(lambda: "lists" in served.parts() and served.is_ready(), what="readiness")
    for start in range(0, 20_000, 1000):
        push(redis_url, *(f"job:{n}:success" for n in range(start, start + 1000)))
    code = served.end()

    with Redis.from_url(redis_url) as redis:
        taken = 20_000 - redis.llen("events")
    assert code == 0
    assert taken > 0
    assert rows(served, "lists") == taken
    assert served.log.rstrip().endswith("taskscope has ended")
    assert "Traceback" not in served.log


@pytest.mark.slow
def test_a_broker_that_goes_is_told_and_comes_back_while_the_others_go_on(
    serve: Serve, redis_server: Any, redis_url: str
):
    served = serve(
        {
            "schedulers": {
                "lists": source(redis_url),
                "shop": {"system": "apscheduler", "target": "shop:scheduler"},
            }
        },
        files={"shop.py": SHOP},
    )
    until(served.is_ready, what="readiness")
    until(lambda: served.value("scheduler_up", scheduler="lists") == 1, what="a scheduler that is up")

    redis_server.stop()
    until(lambda: served.value("scheduler_up", scheduler="lists") == 0, what="a scheduler that is down")
    until(lambda: "refuses the connection" in served.parts()["lists"]["message"], what="why it is down")
    lists, shop = served.parts()["lists"], served.parts()["shop"]
    before = served.runs(scheduler="shop")
    until(lambda: served.runs(scheduler="shop") > before + 3, what="more runs of the other scheduler")
    assert not served.is_ready()
    assert lists["ready"] is False
    assert lists["age"] > 0
    assert shop["ready"] is True
    assert served.value("scheduler_up", scheduler="shop") == 1

    redis_server.start()
    push(redis_url, "job:again:success")
    until(served.is_ready, what="readiness again")
    until(lambda: served.runs(scheduler="lists") == 1, what="a run after the broker is back")
    until(lambda: served.value("scheduler_up", scheduler="lists") == 1, what="a scheduler that is up")
    assert served.log.count("cannot hear scheduler lists") == 1
    assert served.log.count("hears scheduler lists again") == 1


def test_a_broker_that_is_away_at_start_is_found_later(serve: Serve, redis_server: Any, redis_url: str):
    redis_server.stop()
    served = serve({"schedulers": {"lists": source(redis_url)}})
    until(lambda: served.value("scheduler_up", scheduler="lists") == 0, what="a scheduler that is down")
    part = served.parts()["lists"]
    assert (part["ready"], part["at"], part["age"]) == (False, None, None)

    redis_server.start()
    until(served.is_ready, what="readiness")
    until(lambda: served.value("scheduler_up", scheduler="lists") == 1, what="a scheduler that is up")


@pytest.mark.slow
def test_sighup_adds_changes_and_removes_schedulers(serve: Serve, redis_url: str):
    second = redis_url[:-1] + "1"
    served = serve({"schedulers": {"one": source(redis_url)}})
    push(redis_url, "job:a:success")
    until(lambda: served.runs(scheduler="one") == 1, what="a run")
    began = served.process.pid

    served.reload({"schedulers": {"one": source(redis_url), "two": source(second)}})
    push(second, "job:a:success", "job:b:success")
    until(lambda: served.runs(scheduler="two") == 2, what="runs of the new scheduler")
    assert set(served.parts()) == {"history", "one", "two"}

    served.reload({"schedulers": {"one": source(redis_url, key="others"), "two": source(second)}})
    push(redis_url, "job:c:success", key="others")
    until(lambda: served.runs(scheduler="one") == 2, what="a run from the other list")

    served.reload({"schedulers": {"two": source(second)}})
    until(
        lambda: served.value("scheduler_up", scheduler="one") is None, what="the end of what was read of it"
    )
    push(redis_url, "job:d:success", key="others")
    push(second, "job:e:success")
    until(lambda: served.runs(scheduler="two") == 3, what="a run of the one that stays")
    assert set(served.parts()) == {"history", "two"}
    assert served.value("reading_timestamp_seconds", scheduler="one") is None
    assert served.runs(scheduler="one") == 2
    with Redis.from_url(redis_url) as redis:
        assert redis.llen("others") == 1
    assert served.process.poll() is None
    assert served.process.pid == began
    assert rows(served, "one") == 2


@pytest.mark.slow
def test_sighup_takes_over_rules_tokens_and_retention(serve: Serve, redis_url: str):
    settings: dict[str, Any] = {"schedulers": {"lists": source(redis_url)}}
    settings["dedup_window"] = "1s"
    served = serve(settings | {"jobs": [{"match": "nightly", "team": "old", "grace": "5m"}]})
    push(redis_url, "nightly:a:success", "noise:a:success", "long:a:started")
    until(lambda: served.value("job_info", job_name="nightly", team="old") == 1, what="the team")
    until(lambda: served.value("runs_in_progress", job_name="long") == 1, what="a run in progress")
    assert served.value("job_limit_seconds", job_name="nightly", limit="grace") == 300

    token, digest = "a", "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    rules = [
        {"match": "nightly", "team": "new", "grace": "1m"},
        {"match": "noise", "ignore": True},
        {"match": "long", "name": "short"},
    ]
    tokens = [{"name": "all", "sha256": digest, "scopes": ["metrics", "monitoring"]}]
    served.reload(
        settings | {"jobs": rules, "tokens": tokens, "retention": {"max_runs": 1, "interval": "1s"}}
    )

    assert served.ask("/metrics")[0] == 401
    served.token = token
    until(lambda: served.value("job_info", job_name="nightly", team="new") == 1, what="the new team")
    assert served.value("job_info", job_name="nightly", team="old") is None
    assert served.value("job_limit_seconds", job_name="nightly", limit="grace") == 60
    push(redis_url, "noise:b:success", "long:a:success", "nightly:b:success")
    until(lambda: served.runs(job_name="nightly") == 2, what="the last run")
    assert served.runs(job_name="noise") == 1
    assert served.value("runs_in_progress", job_name="long") == 0
    until(lambda: rows(served, "lists") == 1, what="retention by the new rule")


def test_what_cannot_change_is_named_once_and_stays(serve: Serve, redis_url: str):
    settings: dict[str, Any] = {"schedulers": {"lists": source(redis_url)}}
    served = serve(settings)
    until(served.is_ready, what="readiness")
    served.reload(settings | {"port": 1, "batch_size": 7, "metrics_open": True})

    until(lambda: "must be started again" in served.log, what="a warning")
    warning = [line for line in served.log.splitlines() if "must be started again" in line]
    assert len(warning) == 1
    assert warning[0].endswith("for what changed of port, batch_size")
    assert served.is_ready()


def test_after_a_bad_file_all_is_as_before(serve: Serve, redis_url: str):
    served = serve({"schedulers": {"lists": source(redis_url)}})
    until(served.is_ready, what="readiness")
    for number, (wrong, word) in enumerate(BAD_FILES.items(), 1):
        (served.folder / "taskscope.yaml").write_text(wrong)
        served.reload()
        complaints = [line for line in served.log.splitlines() if "keeps its old settings" in line]
        assert len(complaints) == number
        assert word in complaints[-1]

    push(redis_url, "job:a:success")
    until(lambda: served.runs(scheduler="lists") == 1, what="a run")
    assert "Traceback" not in served.log


def test_the_log_in_json_is_an_object_a_line_that_names_the_scheduler_and_no_secret(
    serve: Serve, redis_url: str
):
    served = serve({"schedulers": {"away": source(AWAY)}}, "--log-format", "json", "--log-level", "debug")
    until(lambda: "cannot read" in served.log and "cannot hear" in served.log, what="two warnings")
    served.reload({"schedulers": {}})
    served.end()

    lines = [json.loads(line) for line in served.log.splitlines()]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    assert [line["scheduler"] for line in lines if line["level"] == "warning"] == ["away", "away"]
    assert "hunter2" not in served.log
    assert all(abs(time.time() - _seconds(line["time"])) < 120 for line in lines)


def test_systemd_hears_when_it_is_ready_reads_again_and_stops(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        served = serve({})
        assert systemd.recv(100) == b"READY=1"
        assert served.ask("/-/healthy")[0] == 200
        served.reload()
        assert systemd.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert systemd.recv(100) == b"READY=1"
        assert served.end() == 0
        assert systemd.recv(100) == b"STOPPING=1"


@pytest.mark.slow
def test_a_collector_with_postgresql_keeps_all_when_it_ends(serve: Serve, redis_url: str, postgres_url: str):
    served = serve({"schedulers": {"lists": source(redis_url)}, "history": postgres_url})
    push(redis_url, *(f"job:{n}:success" for n in range(3000)))
    until(lambda: served.runs(scheduler="lists") > 0, what="some runs")
    assert served.end() == 0

    with Redis.from_url(redis_url) as redis:
        taken = 3000 - redis.llen("events")
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as database:
        assert database.execute("select count(*) from taskscope.run").fetchone() == (taken,)


def test_the_log_says_less_where_settings_say_so(serve: Serve):
    served = serve({"log_level": "error"})
    until(served.is_ready, what="readiness")
    assert served.log == ""
    served.process.kill()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (source("amqp://:hunter2@x/0"), ["schedulers.lists.target", "redis://"]),
        (source("redis://:hunter2@x/zero"), ["schedulers.lists.target", "no number"]),
        (source("redis://x/0", kye="k"), ["schedulers.lists.options", "kye", "did you mean `key`"]),
        (
            {"system": "redislist", "target": "shop:scheduler"},
            ["schedulers.lists.target", "shop", "redis://"],
        ),
        ({"system": "quarz", "target": "redis://x/0"}, ["schedulers.lists.system", "quarz", "redislist"]),
    ],
)
def test_a_wrong_scheduler_is_one_sentence_and_exit_code_2(
    serve: Serve, wrong: dict[str, Any], words: list[str]
):
    served = serve({"schedulers": {"lists": wrong}})

    assert served.process.wait(30) == 2
    (line,) = served.log.splitlines()
    assert line.startswith("taskscope: ")
    assert all(word in line for word in words)
    assert "hunter2" not in line


def test_with_a_log_in_json_the_last_sentence_is_json_too(serve: Serve):
    served = serve({"prot": 1}, "--log-format", "json")

    assert served.process.wait(30) == 2
    (line,) = served.log.splitlines()
    assert json.loads(line)["level"] == "critical"
    assert "prot is no setting" in json.loads(line)["message"]


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
