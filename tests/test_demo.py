import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import Request, urlopen

import pytest
import yaml

from services.process import program
from taskscope import cli
from taskscope.demo_jobs import asyncio_plans, background_plans
from taskscope.settings import Settings
from taskscope.shipped import shipped
from taskscope.sinks.history.queries import Queries
from taskscope.sinks.history.records import Filter, Run

COMMAND = [sys.executable, "-W", "error", "-m", "taskscope", "demo"]
PATIENCE = 30.0


class Demo:
    """The demo in a process group of its own, as a shell starts it."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder / "temporary"
        self.folder.mkdir()
        self.process = subprocess.Popen(
            [*COMMAND, "--port", "0", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=os.environ | {"TMPDIR": str(self.folder)},
        )
        assert self.process.stdout is not None
        first = self.process.stdout.readline()
        self.url = url_in(first)

    def stack(self) -> tuple[str, str]:
        """The URLs of its Prometheus and its Alertmanager, which it tells after its own pages."""
        assert self.process.stdout is not None
        lines = [self.process.stdout.readline() for _ in range(6)]
        return url_in(lines[-2]), url_in(lines[-1])

    def programs(self) -> list[int]:
        """The processes that work in its folder: Prometheus and Alertmanager, which are in groups of their own."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has just ended, or is not ours
                if (process / "cwd").readlink().is_relative_to(self.folder):
                    found.append(int(process.name))
        return found

    def end(self, number: signal.Signals | None = None) -> tuple[int, str, str]:
        """Exit code, output, errors; a signal goes to the whole group, as Ctrl-C does."""
        if number is not None:
            os.killpg(self.process.pid, number)
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err

    def kill(self) -> None:
        """Whatever is left of it."""
        for program_left in self.programs():
            os.kill(program_left, signal.SIGKILL)
        if members(self.process.pid):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


def url_in(line: str) -> str:
    return (re.search(r"http://[\d.:]+", line) or [line])[0]


def members(group: int) -> list[str]:
    """The processes of a group that still run, by their command."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            state, _, of = stat.read_text().rpartition(")")[2].split()[:3]
            if int(of) == group and state != "Z":
                found.append((stat.parent / "cmdline").read_text().replace("\0", " "))
    return found


def soon(is_true: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    deadline = time.monotonic() + seconds
    while not (true := is_true()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return true


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A short one: the socket beside a history has a name of 107 bytes at most, else a warning is logged."""
    with TemporaryDirectory(prefix="demo-") as folder:
        yield Path(folder)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    started: list[Demo] = []

    def start(*arguments: str) -> Demo:
        started.append(Demo(tmp_path, *arguments))
        return started[-1]

    yield start
    for one in started:
        one.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_the_demo_ends_cleanly_when_it_is_told_to(demo: Callable[..., Demo], number: signal.Signals):
    running = demo()
    assert soon(lambda: '"crunch"' in urlopen(f"{running.url}/api/task/?task=crunch").read().decode())
    code, out, err = running.end(number)
    assert (code, err) == (0, "")
    assert "Its history is removed" in out.splitlines()[-1]
    assert soon(lambda: not members(running.process.pid)), members(running.process.pid)
    assert list(running.folder.iterdir()) == []


def test_ctrl_c_in_the_first_moment_is_clean_too(demo: Callable[..., Demo]):
    running = demo()
    code, _, err = running.end(signal.SIGINT)
    assert (code, err) == (0, "")
    assert soon(lambda: not members(running.process.pid)), members(running.process.pid)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """The history that a demo of 14 seconds leaves."""
    folder = tmp_path_factory.mktemp("demo")
    running = Demo(folder, "--for", "14s", "--history", str(folder / "kept.db"))
    try:
        code, _, err = running.end()
        assert (code, err) == (0, "")
    finally:
        running.kill()
    queries = Queries(f"sqlite:///{folder}/kept.db", Settings())
    try:
        return queries.runs(Filter(), limit=1000).runs
    finally:
        queries.close()


def seen(runs: list[Run], job: str) -> set[str]:
    return {run.reason or run.exception or run.status for run in runs if run.job == job}


def test_as_the_compose_file_starts_it_the_demo_serves_others_and_remembers_in_postgresql(
    demo: Callable[..., Demo], postgres_url: str
):
    running = demo("--host", "0.0.0.0", "--history", postgres_url)
    url = f"http://127.0.0.1:{running.url.rpartition(':')[2]}"
    elsewhere = Request(f"{url}/api/task/?task=steady", headers={"Host": "jobs.example"})

    assert soon(lambda: '"success"' in urlopen(elsewhere).read().decode())

    code, out, err = running.end(signal.SIGTERM)
    assert (code, err) == (0, "")
    assert "It is all in postgresql" in out


def asked(url: str) -> Any:
    """What an API of the stack answers."""
    with urlopen(url, timeout=10) as answer:
        return json.load(answer)


@pytest.fixture
def stack(demo: Callable[..., Demo]) -> Demo:
    """The demo with Prometheus and Alertmanager beside it."""
    program("prometheus", "Prometheus")
    program("prometheus-alertmanager", "Alertmanager")
    return demo("--stack")


ONE_BY_ONE = pytest.mark.xdist_group("demo-stack")  # they would like the same ports


@ONE_BY_ONE
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_beside_the_demo_prometheus_finds_that_a_job_always_fails_and_taskscope_hears_of_it(stack: Demo):
    prometheus, alertmanager = stack.stack()

    groups = asked(f"{prometheus}/api/v1/rules")["data"]["groups"]
    shipped_groups = [
        group["name"]
        for path in shipped("alerts").glob("*.yml")
        for group in yaml.safe_load(path.read_text())["groups"]
    ]
    assert sorted(group["name"] for group in groups) == sorted(shipped_groups)

    def firing() -> bool:
        alerts = asked(f"{prometheus}/api/v1/alerts")["data"]["alerts"]
        return any(
            alert["labels"].get("job_name") == "broken" and alert["state"] == "firing" for alert in alerts
        )

    assert soon(firing, 200), asked(f"{prometheus}/api/v1/alerts")

    def told() -> bool:
        alerts = asked(f"{alertmanager}/api/v2/alerts")
        return any(alert["labels"].get("job_name") == "broken" for alert in alerts)

    assert soon(told), asked(f"{alertmanager}/api/v2/alerts")
    (alert, *_) = [
        alert
        for alert in asked(f"{alertmanager}/api/v2/alerts")
        if alert["labels"].get("job_name") == "broken"
    ]
    assert alert["annotations"]["runbook_url"].startswith(f"{stack.url}/runbook#")
    assert alert["generatorURL"].startswith(f"{prometheus}/graph?")
    assert soon(
        lambda: "broken" in [row["job_name"] for row in asked(f"{stack.url}/api/monitoring/alerts")["data"]]
    )
    targets = asked(f"{prometheus}/api/v1/targets")["data"]["activeTargets"]
    assert [(target["scrapeUrl"], target["health"]) for target in targets] == [(f"{stack.url}/metrics", "up")]


@ONE_BY_ONE
def test_links_of_prometheus_and_alertmanager_lead_to_where_they_listen(stack: Demo):
    urls = stack.stack()

    commands = [Path(f"/proc/{process}/cmdline").read_text().split("\0") for process in stack.programs()]
    links = [word for words in commands for word in words if word.startswith("--web.external-url=")]
    assert sorted(links) == sorted(f"--web.external-url={url}" for url in urls)


@ONE_BY_ONE
def test_prometheus_and_alertmanager_end_with_the_demo(stack: Demo):
    stack.stack()
    assert len(stack.programs()) == 2

    code, _, err = stack.end(signal.SIGINT)

    assert (code, err) == (0, "")
    assert stack.programs() == []
    assert list(stack.folder.iterdir()) == []


@ONE_BY_ONE
def test_they_end_too_when_the_terminal_is_closed(stack: Demo):
    stack.stack()

    code, _, _ = stack.end(
        signal.SIGHUP
    )  # which also kills what multiprocessing has begun, and that complains

    assert code == 0
    assert stack.programs() == []


@ONE_BY_ONE
def test_ctrl_c_while_prometheus_begins_is_clean_too(tmp_path: Path):
    (tmp_path / "temporary").mkdir()
    for name in ("prometheus", "alertmanager"):  # takes its time
        (tmp_path / name).write_text(f"#!/bin/sh\n: > {tmp_path}/began; exec sleep 60\n")
        (tmp_path / name).chmod(0o755)
    process = subprocess.Popen(
        [*COMMAND, "--stack", "--port", "0"],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path / "temporary")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert soon((tmp_path / "began").exists)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, "")
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_stack_that_is_not_installed_is_one_sentence_and_exit_code_2(tmp_path: Path):
    result = subprocess.run(
        [*COMMAND, "--stack", "--port", "0"],
        env=os.environ | {"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(
        "taskscope: --stack needs prometheus and alertmanager on PATH: install them"
    )
    assert result.stderr.count("\n") == 1


def test_a_program_of_the_stack_that_does_not_begin_is_one_sentence(tmp_path: Path):
    for name in ("prometheus", "alertmanager"):
        (tmp_path / name).write_text("#!/bin/sh\necho this one is broken >&2; exit 1\n")
        (tmp_path / name).chmod(0o755)
    result = subprocess.run(
        [*COMMAND, "--stack", "--port", "0"],
        env=os.environ | {"PATH": str(tmp_path), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "taskscope: prometheus does not begin: this one is broken\n"
    assert {path.name for path in tmp_path.iterdir()} == {"prometheus", "alertmanager"}


ONE_DEMO = pytest.mark.xdist_group("demo-kept")  # of 14 seconds, for all of them


@ONE_DEMO
def test_every_job_of_the_demo_shows_its_character(kept: list[Run]):
    assert seen(kept, "steady") == {"success"}
    assert seen(kept, "slow") == {"success"}
    assert seen(kept, "flaky") <= {"success", "error"}
    assert len([run for run in kept if run.job == "flaky"]) > 2
    assert seen(kept, "overlapping") == {"success", "overlap"}
    assert seen(kept, "misfiring") == {"success", "misfire"}
    assert seen(kept, "crunch") == {"success"}
    assert seen(kept, "long") >= {"success"}
    assert seen(kept, "fetch") >= {"success"}
    assert seen(kept, "poll_feed") >= {"success"}
    assert seen(kept, "paused") == set()
    assert len([run for run in kept if run.job == "one_shot"]) == 1
    assert {run.exception for run in kept if run.job == "broken"} == {"KeyError"}


@ONE_DEMO
def test_no_run_of_the_demo_stays_open(kept: list[Run]):
    assert [run for run in kept if run.status in ("queued", "started")] == []


def test_the_demo_says_something_about_every_job():
    from datetime import UTC, datetime
    from threading import Event

    now = datetime.now(UTC)
    assert all(plan.about for plan in [*background_plans(Event(), now), *asyncio_plans(now)])


def test_a_taken_port_is_one_sentence_and_exit_code_2():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = subprocess.run([*COMMAND, "--port", port], capture_output=True, text=True, timeout=PATIENCE)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert port in result.stderr


def test_on_a_terminal_a_table_lives_until_ctrl_c(tmp_path: Path):
    process, terminal = pty.fork()
    if process == 0:
        os.environ.update(TERM="xterm", TMPDIR=str(tmp_path))
        os.execv(COMMAND[0], [*COMMAND, "--port", "0"])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    screen = read_until(terminal, b"poll_feed")
    for word in (b"steady", b"broken", b"/metrics", b"next in"):
        assert word in screen
    os.write(terminal, b"\x03")
    rest = read_until(terminal, None)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    assert b"The demo ran for" in rest
    assert b"Traceback" not in screen + rest


def read_until(terminal: int, word: bytes | None) -> bytes:
    """What the terminal shows until this word; None: until its program has ended."""
    shown, deadline = b"", time.monotonic() + PATIENCE
    while (word is None or word not in shown) and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.5)[0]:
            try:
                shown += os.read(terminal, 65536)
            except OSError:  # nobody holds the other end any more
                break
    return shown


def test_without_apscheduler_the_demo_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "apscheduler.executors.pool", None)
    assert cli.run(["demo"]) == 2
    assert capsys.readouterr().err == (
        "taskscope: the demo needs APScheduler: pip install 'taskscope[apscheduler]'\n"
    )
