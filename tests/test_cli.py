import json
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from taskscope import __version__
from taskscope.bridges.fake import FakeScheduler
from taskscope.cli import commands, run
from taskscope.exporter import Exporter
from taskscope.sinks.metrics.catalog import CATALOG


def every_command(group: click.Group = commands, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from every_command(command, (*path, name))


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TASKSCOPE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TASKSCOPE_CONFIG", raising=False)


@pytest.mark.parametrize("path", list(every_command()), ids=" ".join)
def test_every_command_explains_itself_with_an_example_that_can_be_typed(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
):
    assert run([*path, "--help"]) == 0
    example = next(line for line in capsys.readouterr().out.splitlines() if "Example: " in line)
    words = shlex.split(example.partition("Example: ")[2])
    assert words[: len(path) + 1] == ["taskscope", *path]
    command = commands
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    command.make_context(path[-1], words[len(path) + 1 :], resilient_parsing=False).close()


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]):
    assert run([]) == 0
    assert "taskscope demo" in capsys.readouterr().out


def test_the_version_can_be_asked(capsys: pytest.CaptureFixture[str]):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"taskscope {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["rnus"], "rnus"),
        (["runs", "--fialed"], "--fialed"),
        (["runs", "--since", "yesterday"], "--since"),
        (["runs", "--limit", "0"], "--limit"),
        (["runs", "--history", "mysql://localhost/x"], "mysql"),
        (["show", "the-last-one"], "the-last-one"),
        (["config", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["demo", "--port", "70000"], "--port"),
        (["serve", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["assets", "/dev/null/assets"], "/dev/null/assets/"),
        (["assets", "n" * 300], "name another folder"),
        (["assets", "here", "--grafana-url", "http://graphs.example:70000"], "1 to 65535"),
        (["assets", "here", "--prometheus-url", "http://[::1]:0"], "1 to 65535"),
    ],
    ids=" ".join,
)
def test_wrong_use_is_one_sentence_on_stderr_and_exit_code_2(
    arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]
):
    assert run(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert output.err.startswith("taskscope: ")
    assert word in output.err


def test_a_wrong_setting_is_one_sentence_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    Path("taskscope.yaml").write_text("prot: 9750\n")
    assert run(["config"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_settings_are_shown_without_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("TASKSCOPE_HISTORY", "postgresql://me:hunter2@db/runs")
    assert run(["config"]) == 0
    assert "hunter2" not in capsys.readouterr().out
    assert run(["config", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["port"] == 9750
    assert shown["history"].startswith("postgresql://me:***@")


def test_every_metric_is_listed(capsys: pytest.CaptureFixture[str]):
    assert run(["metrics", "--json"]) == 0
    assert [row["metric"] for row in json.loads(capsys.readouterr().out)] == [
        metric.sample for metric in CATALOG
    ]


def test_bridges_say_what_they_watch_and_whether_it_is_installed(capsys: pytest.CaptureFixture[str]):
    assert run(["bridges", "--json"]) == 0
    rows = {row["system"]: row for row in json.loads(capsys.readouterr().out)}
    assert "BaseScheduler" in rows["apscheduler"]["watches"]
    assert rows["apscheduler"]["installed"] == "yes"
    assert "fake" not in rows, "it is for tests and demos"


def test_check_finds_nothing_wrong_and_follows_a_run_all_the_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    monkeypatch.setenv("TASKSCOPE_PORT", str(free))
    assert run(["check", "--json"]) == 0
    findings = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(finding["good"] for finding in findings)
    assert [finding["about"] for finding in findings] == [
        "settings",
        "port",
        "history",
        "disk",
        "made-up run, event",
        "made-up run, row",
        "made-up run, counter",
    ]


def test_check_looks_at_what_the_program_is_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TASKSCOPE_PORT", "0")
    scheduler = FakeScheduler()
    with Exporter(scheduler, service="billing", port=None, strict=True):
        scheduler.job("invoices").run()

    assert run(["check", "--service", "billing"]) == 0
    assert f"{tmp_path}/home/billing.db can be written" in capsys.readouterr().out
    assert run(["check", "--history", f"{tmp_path}/home/billing.db"]) == 0
    assert "It holds 1 run and" in capsys.readouterr().out
    assert run(["check", "--history", f"{tmp_path}/home/billing.db/x.db"]) == 1
    assert "billing.db/x.db cannot be created" in capsys.readouterr().out


def test_check_leaves_nothing_behind(tmp_path: Path):
    run(["check"])
    assert list(tmp_path.iterdir()) == []


def wrong(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What `check` complains about."""
    assert run(["check", "--json"]) == 1
    findings = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return {finding["about"]: finding["sentence"] for finding in findings if not finding["good"]}


def test_check_says_that_the_port_is_taken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = str(server.getsockname()[1])
        monkeypatch.setenv("TASKSCOPE_PORT", taken)
        found = wrong(capsys)
    assert list(found) == ["port"]
    assert taken in found["port"]


def test_check_knows_a_taskscope_that_serves_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    with Exporter(FakeScheduler(), history=f"sqlite:///{tmp_path}/runs.db", port=0, strict=True) as exporter:
        assert exporter.url is not None
        monkeypatch.setenv("TASKSCOPE_PORT", exporter.url.rpartition(":")[2])
        monkeypatch.setenv("TASKSCOPE_HISTORY", f"sqlite:///{tmp_path}/runs.db")
        assert run(["check"]) == 0
    output = capsys.readouterr().out
    assert "A taskscope serves on" in output
    assert f"owned by process {os.getpid()}" in output
    assert "Nothing " not in output


def test_check_tells_that_the_taskscope_there_is_another_services_and_that_nothing_watches_for_this_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    scheduler = FakeScheduler()
    with Exporter(scheduler, service="oncall", port=None, strict=True):
        scheduler.job("page").run()
    with Exporter(FakeScheduler(), service="billing", port=0, strict=True) as exporter:
        assert exporter.url is not None
        monkeypatch.setenv("TASKSCOPE_PORT", exporter.url.rpartition(":")[2])
        assert run(["check", "--service", "oncall"]) == 1
        assert run(["check", "--service", "billing"]) == 0
    output = capsys.readouterr().out
    assert " is taken by the taskscope for service billing; give oncall another port, else it is" in output
    assert "ok     port: A taskscope for service billing serves on " in output
    assert (
        "\n--     history: Nothing watches for service oncall now; the history's last run was at 2" in output
    )


def test_check_says_that_settings_are_wrong_and_stops(capsys: pytest.CaptureFixture[str]):
    Path("taskscope.yaml").write_text("prot: 9750\n")
    found = wrong(capsys)
    assert list(found) == ["settings"]
    assert found["settings"].startswith("taskscope.yaml: prot"), "files and keys keep their case"
    assert found["settings"].endswith("did you mean `port`?")


@pytest.mark.parametrize("wrong", ["port", "host"])
def test_serve_that_cannot_listen_leaves_no_history_behind(
    wrong: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("TASKSCOPE_PORT", str(taken.getsockname()[1] if wrong == "port" else 0))
        monkeypatch.setenv("TASKSCOPE_HOST", "127.0.0.1" if wrong == "port" else "0.0.0.0")
        assert run(["serve"]) == 2
    assert capsys.readouterr().err.count("taskscope: ") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("system", "target", "word"),
    [
        ("apscheduler", "nowhere:scheduler", "nowhere"),
        ("apscheduler", "json", "module:attribute"),
        ("quarz", "json:x", "quarz"),
    ],
)
def test_check_says_what_of_the_schedulers_cannot_be_found(
    system: str, target: str, word: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TASKSCOPE_PORT", "0")
    settings = {"schedulers": {"shop": {"system": system, "target": target}}}
    Path("taskscope.yaml").write_text(json.dumps(settings))
    found = wrong(capsys)
    assert list(found) == ["schedulers.shop"]
    assert word in found["schedulers.shop"]


def test_check_does_not_import_what_serve_would_watch(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TASKSCOPE_PORT", "0")
    monkeypatch.syspath_prepend(".")
    Path("explosive.py").write_text("raise SystemExit('imported')\n")
    Path("taskscope.yaml").write_text(
        '{schedulers: {shop: {system: apscheduler, target: "explosive:scheduler"}}}'
    )
    assert run(["check"]) == 0


def test_check_says_that_the_history_cannot_be_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "occupied").write_text("a file")
    monkeypatch.setenv("TASKSCOPE_PORT", "0")
    monkeypatch.setenv("TASKSCOPE_HISTORY", f"sqlite:///{tmp_path}/occupied/runs.db")
    assert "occupied" in wrong(capsys)["history"]


def test_check_says_that_a_database_is_away(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TASKSCOPE_PORT", "0")
    monkeypatch.setenv("TASKSCOPE_HISTORY", "postgresql://me:hunter2@127.0.0.1:1/runs")
    found = wrong(capsys)
    assert list(found) == ["history"]
    assert "hunter2" not in found["history"]


def test_a_reader_that_has_seen_enough_is_no_failure():
    command = [sys.executable, "-m", "taskscope", "metrics"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_output_that_cannot_be_written_is_one_sentence():
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "taskscope", "metrics"]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=30)
    assert result.returncode == 2
    assert "No space left" in result.stderr
    assert result.stderr.count("\n") == 1
