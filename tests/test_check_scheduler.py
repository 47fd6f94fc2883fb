"""`taskscope check SCHEDULER`: one look, in human words."""

import json
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from services.process import free_port
from taskscope import bridges
from taskscope.cli import run

OUTSIDE = Path(__file__).parent / "programs" / "outside"


@pytest.fixture(autouse=True)
def _outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bridges, "__path__", [*bridges.__path__, str(OUTSIDE)])
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def client(redis_url: str) -> Any:
    with Redis.from_url(redis_url) as client:
        yield client


def test_a_scheduler_that_works_is_shown(client: Redis, redis_url: str, capsys: Any):
    client.rpush("work", *range(7))
    client.sadd("workers", "one@host", "two@host")

    assert run(["check", f"redislist={redis_url}"]) == 0
    out = capsys.readouterr().out
    assert f"ok     redislist: {redis_url} answers." in out
    assert "work\t7\t\t\t" in out
    assert "one@host\tup" in out
    assert "two@host\tup" in out


def test_reading_takes_nothing_away(client: Redis, redis_url: str):
    client.rpush("work", "a")
    client.sadd("workers", "one@host")
    before = {key: client.dump(key) for key in (b"work", b"workers")}
    assert run(["check", f"redislist={redis_url}"]) == 0
    assert {key: client.dump(key) for key in (b"work", b"workers")} == before


def test_an_empty_place_is_a_problem(client: Redis, redis_url: str, capsys: Any):
    assert run(["check", f"redislist={redis_url}"]) == 1
    assert "Nothing of redislist is there: no worker and no queue was found." in capsys.readouterr().out


def test_a_queue_without_workers_is_a_problem(client: Redis, redis_url: str, capsys: Any):
    client.rpush("work", "a")
    assert run(["check", f"redislist={redis_url}"]) == 1
    assert "No worker was found" in capsys.readouterr().out


def test_a_place_that_refuses_is_a_problem_told_without_the_password(capsys: Any):
    port = free_port()
    assert run(["check", f"redislist=redis://:hunter2@127.0.0.1:{port}/0"]) == 1
    said = capsys.readouterr()
    assert f"WRONG  redislist: 127.0.0.1:{port} refuses the connection" in said.out
    assert "hunter2" not in said.out + said.err


def test_a_scheduler_of_the_settings_goes_by_its_name(client: Redis, redis_url: str, capsys: Any):
    client.sadd("workers", "one@host")
    schedulers = {"shop": {"system": "redislist", "target": redis_url}}
    Path("taskscope.yaml").write_text(json.dumps({"schedulers": schedulers}))

    assert run(["check", "shop", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["about"] == "shop"
    assert [line.get("worker") for line in lines if line.get("type") == "worker"] == ["one@host"]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("shop", "'shop' is no scheduler of the settings (there: mod)"),
        ("mod", "only `taskscope serve` imports"),
        ("quarz=redis://x", "quarz"),
        ("redislist=amqp://:hunter2@x/0", "redis://…"),
        ("redislist=redis://:hunter2@x/zero", "no number"),
    ],
)
def test_wrong_use_is_a_sentence_and_exit_code_2(told: str, words: str, capsys: Any):
    schedulers = {"mod": {"system": "apscheduler", "target": "shop:scheduler"}}
    Path("taskscope.yaml").write_text(json.dumps({"schedulers": schedulers}))

    assert run(["check", told]) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert said.out == ""
    assert "hunter2" not in said.err


def test_without_a_name_all_of_the_settings_are_looked_at(redis_url: str, capsys: Any):
    schedulers = {
        "good": {"system": "redislist", "target": redis_url},
        "bad": {"system": "redislist", "target": "redis://:hunter2@x/zero"},
    }
    Path("taskscope.yaml").write_text(json.dumps({"schedulers": schedulers, "history": None, "port": 0}))

    assert run(["check"]) == 1
    said = capsys.readouterr().out
    assert f"ok     schedulers.good: {redis_url} can be watched; `taskscope check good` connects." in said
    assert "WRONG  schedulers.bad: schedulers.bad.target ends in no number" in said
    assert "hunter2" not in said
