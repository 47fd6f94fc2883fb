"""`/api/monitoring/health`, and `taskscope health`, which asks it."""

import json

import pytest
from asking import NOW

from healthy import health_of
from taskscope.cli import run
from taskscope.events import SchedulerState, WorkerState
from taskscope.settings import Check, Health, Settings
from taskscope.settings import Token as TokenSetting

HURRIED = Settings(history=None, health=Health(checks={"worker_down": Check(window=0.001)}))


@pytest.fixture
def client(serve, live):
    live.fold([WorkerState(scheduler="main", worker="w1", at=NOW, up=False)])
    live.fold([SchedulerState(scheduler="other", system="fake", at=NOW, up=True, running=True)])
    now = iter(range(1000))
    return serve(HURRIED, health=health_of(live, HURRIED, clock=lambda: NOW + 10 * next(now)))


def test_the_whole_and_each_scheduler_are_told_with_what_to_do(client):
    client.ask("/api/monitoring/health")

    answer = client.ask("/api/monitoring/health").json

    assert (answer["score"], answer["status"]) == (70, "degraded")
    assert {one["scheduler"]: one["score"] for one in answer["schedulers"]} == {"main": 70, "other": 100}
    first = answer["checks"][0]
    assert (first["check"], first["scheduler"], first["ok"], first["deduction"]) == (
        "worker_down",
        "main",
        False,
        30,
    )
    assert first["advice"].startswith("Start the workers")
    assert first["since"].startswith("2025-11-21T")
    assert all(check["advice"] is None for check in answer["checks"] if check["ok"])


def test_schedulers_can_be_chosen(client):
    answer = client.ask("/api/monitoring/health", {"scheduler": "other"}).json

    assert [one["scheduler"] for one in answer["schedulers"]] == ["other"]
    assert client.ask("/api/monitoring/health", {"shop": "1"}).status == 400


@pytest.mark.parametrize(("scheduler", "code"), [(None, 1), ("main", 1), ("other", 0)])
def test_the_command_says_it_in_its_exit_code(client, capsys, scheduler, code):
    client.ask("/api/monitoring/health")
    chosen = ["--scheduler", scheduler] if scheduler else []

    assert run(["health", "--url", f"http://127.0.0.1:{client.port}", *chosen]) == code
    printed = capsys.readouterr().out
    assert f" of 100: {'degraded' if code else 'healthy'}" in printed
    assert ("Start the workers" in printed) == bool(code)


def test_the_command_gives_programs_json(client, capsys):
    run(["health", "--url", f"http://127.0.0.1:{client.port}", "--json"])

    assert json.loads(capsys.readouterr().out)["status"] in ("healthy", "degraded")


def test_the_command_asks_where_the_settings_say_that_it_serves(client, capsys, monkeypatch, tmp_path):
    client.ask("/api/monitoring/health")
    (tmp_path / "taskscope.yaml").write_text(f"host: 0.0.0.0\ninsecure: true\nport: {client.port}\n")
    monkeypatch.chdir(tmp_path)

    assert run(["health"]) == 1
    assert run(["health", "--url", f"127.0.0.1:{client.port}"]) == 1, "http:// may be left out"


def test_where_nobody_answers_the_exit_code_is_that_of_unhealthy(capsys):
    assert run(["health", "--url", "http://127.0.0.1:1"]) == 2
    assert "no taskscope answers on http://127.0.0.1:1" in capsys.readouterr().err


def test_an_unknown_scheduler_is_named_beside_those_that_are_there(client, capsys):
    assert run(["health", "--url", f"http://127.0.0.1:{client.port}", "--scheduler", "mian"]) == 2
    assert "there is no scheduler 'mian'; there are main, other" in capsys.readouterr().err


def test_the_command_sends_a_token(serve, capsys, monkeypatch):
    from hashlib import sha256

    token = TokenSetting(name="t", sha256=sha256(b"secret").hexdigest(), scopes=("monitoring",))
    url = f"http://127.0.0.1:{serve(Settings(history=None, tokens=(token,))).port}"

    assert run(["health", "--url", url]) == 2
    assert "401: give it a token" in capsys.readouterr().err
    monkeypatch.setenv("TASKSCOPE_TOKEN", "secret")
    assert run(["health", "--url", url]) == 0
