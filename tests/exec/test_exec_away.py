"""The command runs as ever while the collector, the disk or anything of ours is away; what happened arrives later."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from wrapping import EXEC, NOWHERE, Collector, Wrapper, is_gone

from services.process import until
from taskscope.exec.report import PATIENCE

SCRIPT = "cat; echo said >&2; exit 3"
GIVEN = b"given\n"

DRIPS = r"""
import socket, time
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
one, _ = server.accept()
one.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
while True:
    one.send(b" ")
    time.sleep(0.1)
"""


def ran(done: "subprocess.CompletedProcess[bytes]") -> bytes:
    """Did the command do what it does? Then what else there was on stderr."""
    assert (done.returncode, done.stdout) == (3, GIVEN)
    assert b"said\n" in done.stderr
    return done.stderr.replace(b"said\n", b"")


@pytest.fixture
def black_hole() -> Iterator[str]:
    """An address where connections are made and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def broken(lonely: Wrapper, tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """The environment in which this breaks."""

    def environment(code: str) -> dict[str, str]:
        (tmp_path / "sitecustomize.py").write_text(code)
        return {"PYTHONPATH": f"{tmp_path}:{lonely.environment().get('PYTHONPATH', '')}"}

    return environment


def test_what_happens_while_the_collector_is_away_waits_in_silence_and_arrives(
    wrapper: Wrapper, collector: Collector
):
    wrapper.url = NOWHERE
    for number in range(3):
        assert ran(wrapper.shell(SCRIPT, "--job", f"away-{number}", stdin=GIVEN)) == b""
    assert collector.runs(wrapper.scheduler) == []

    wrapper.correct(collector.url)
    assert ran(wrapper.shell(SCRIPT, "--job", "back", stdin=GIVEN)) == b""

    told = sorted((run["task"], run["status"]) for run in collector.runs(wrapper.scheduler))
    assert told == [(job, "failed") for job in ("away-0", "away-1", "away-2", "back")]
    assert wrapper.spooled() == []


def test_what_waits_for_one_collector_is_not_sent_to_another(wrapper: Wrapper, collector: Collector):
    wrapper.url = NOWHERE
    wrapper.run("--job", "secret", "--", "true")
    wrapper.url = collector.url
    wrapper.run("--job", "open", "--", "true")

    assert [run["task"] for run in collector.runs(wrapper.scheduler)] == ["open"]
    assert {event["job"] for event in wrapper.spooled() if event["type"] == "fact"} == {"secret"}


def test_a_black_hole_keeps_the_command_for_a_moment_only(
    wrapper: Wrapper, collector: Collector, black_hole: str
):
    wrapper.url = black_hole
    begin = time.monotonic()

    assert ran(wrapper.shell(SCRIPT, "--job", "j", stdin=GIVEN)) == b""

    assert PATIENCE <= time.monotonic() - begin < PATIENCE + 3
    assert [event.get("status") for event in wrapper.spooled()] == [None, "started", "failed"]
    wrapper.correct(collector.url)
    wrapper.run("--job", "j", "--", "true")
    assert sorted(run["status"] for run in collector.runs(wrapper.scheduler)) == ["failed", "success"]


def test_one_that_answers_without_end_keeps_the_command_for_a_moment_only(lonely: Wrapper):
    server = subprocess.Popen([sys.executable, "-c", DRIPS], stdout=subprocess.PIPE)
    assert server.stdout is not None
    lonely.url = f"http://127.0.0.1:{server.stdout.readline().decode().strip()}"
    begin = time.monotonic()

    assert ran(lonely.shell(SCRIPT, stdin=GIVEN)) == b""

    assert time.monotonic() - begin < PATIENCE + 3
    assert [event.get("status") for event in lonely.spooled()] == [None, "started", "failed"]
    server.kill()
    server.communicate()


@pytest.mark.slow
def test_a_collector_that_was_killed_meanwhile_hears_the_whole_run(tmp_path: Path):
    collector = Collector()
    wrapper = Wrapper(tmp_path / "home", collector.url, "s")
    try:
        collector.start()
        process = wrapper.start("--", "sh", "-c", "read line; exit 4", stdin=subprocess.PIPE)
        collector.until_runs("s", "started")
        collector.stop(signal.SIGKILL)
        collector.start()
        process.communicate(b"\n", timeout=20)

        run = collector.run("s")

        assert (run["status"], run["details"]["exit_code"]) == ("failed", 4)
        assert collector.value("taskscope_runs_total", scheduler="s", status="failed") == 1
        assert collector.value("taskscope_runs_total", scheduler="s", status="unknown") == 0
    finally:
        wrapper.close()
        collector.remove()


@pytest.mark.slow
def test_a_start_that_could_not_be_told_is_told_when_the_collector_is_there(tmp_path: Path):
    collector = Collector()
    wrapper = Wrapper(tmp_path / "home", collector.url, "s")
    try:
        process = wrapper.start(
            "--", "sh", "-c", "read line", stdin=subprocess.PIPE, env={"TASKSCOPE_HEARTBEAT": "0.3s"}
        )
        until(wrapper.spooled, what="an event on disk")
        collector.start()

        collector.until_runs("s", "started")

        process.communicate(b"\n", timeout=20)
        assert collector.run("s")["status"] == "success"
    finally:
        wrapper.close()
        collector.remove()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--to", "ftp://collector"], "is no address of a taskscope"),
        (["--to", "http://no-such-host.invalid"], ""),
        (["--job"], "expected one argument"),
        (["--bog", "x"], "--bog x is no option"),
        (["--timeout", "soon"], "--timeout 'soon' is not understood"),
        (["--tail", "-1"], "--tail '-1' is not understood"),
        (["--heartbeat", "0"], "--heartbeat '0' is not understood"),
        (["--job", "\udcff"], ""),
    ],
    ids=lambda value: " ".join(map(ascii, value)) if isinstance(value, list) else "",
)
def test_wrong_flags_are_a_sentence_and_the_command_runs(lonely: Wrapper, flags: list[str], sentence: str):
    said = ran(lonely.shell(SCRIPT, *flags, stdin=GIVEN)).decode()

    assert sentence in said
    assert said.count("\n") == bool(sentence)
    assert lonely.spooled()[-1]["status"] == "failed"


@pytest.mark.parametrize(
    "arguments", [[], ["--job", "x"], ["--job", "x", "--"], ["sleep", "1"]], ids=" ".join
)
def test_without_a_command_it_is_wrong_use(lonely: Wrapper, arguments: list[str]):
    done = lonely.run(*arguments)

    assert (done.returncode, done.stdout) == (2, b"")
    assert b"there is no command" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_the_help_tells_every_flag_and_exit_code(lonely: Wrapper):
    done = lonely.run("--help")

    assert (done.returncode, done.stderr) == (0, b"")
    for word in (
        b"--job",
        b"--schedule",
        b"--lock ",
        b"TASKSCOPE_FORWARD_TOKEN",
        b"124",
        b"Example: taskscope exec",
    ):
        assert word in done.stdout


@pytest.mark.slow
def test_a_wrong_token_is_a_sentence_and_nothing_is_lost(lonely: Wrapper, tmp_path: Path):
    token = {"name": "t", "sha256": "0" * 64, "scopes": ["ingest"]}
    collector = Collector(tokens=[token])
    try:
        collector.start()
        lonely.url = collector.url
        said = ran(lonely.shell(SCRIPT, stdin=GIVEN, env={"TASKSCOPE_FORWARD_TOKEN": "wrong"})).decode()
    finally:
        collector.remove()

    assert said.startswith(f"taskscope: {collector.url} takes nothing now: 401")
    assert said.count("\n") == 1
    assert lonely.spooled()[-1]["status"] == "failed"


@pytest.mark.parametrize(
    ("certificates", "sentence"),
    [("/nope", "forward_certificates='/nope' cannot be used"), ("", "{} cannot be asked over TLS")],
)
def test_a_mistake_about_tls_is_a_sentence_and_nothing_is_lost(
    wrapper: Wrapper, collector: Collector, certificates: str, sentence: str
):
    wrapper.url = collector.url.replace("http:", "https:")

    said = ran(
        wrapper.shell(SCRIPT, stdin=GIVEN, env={"TASKSCOPE_FORWARD_CERTIFICATES": certificates})
    ).decode()

    assert said.startswith(f"taskscope: {sentence.format(wrapper.url)}")
    assert said.count("\n") == 1
    assert wrapper.spooled()[-1]["status"] == "failed"


@pytest.mark.parametrize("home", ["/dev/null/home", "/proc/home"])
def test_without_a_place_for_spool_and_locks_the_command_runs(lonely: Wrapper, home: str):
    lonely.home = Path(home)

    said = ran(lonely.shell(SCRIPT, "--lock", stdin=GIVEN)).decode()

    assert [line.split(":")[0] for line in said.splitlines()] == ["taskscope", "taskscope"]
    assert "there is no lock" in said
    assert "cannot be written" in said


def test_a_full_disk_is_one_sentence(lonely: Wrapper):
    """A file size of 0 blocks is what a full disk is: the file can be made, and nothing written to it."""
    done = subprocess.run(
        ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *EXEC, "--", "sh", "-c", SCRIPT],
        env=lonely.environment(),
        input=GIVEN,
        capture_output=True,
        check=False,
    )

    said = ran(done).decode()
    assert "cannot be written" in said
    assert said.count("\n") == 1
    assert [path for path in (lonely.home / "spool").glob("*/*") if path.stat().st_size] == []


@pytest.mark.parametrize("script", [SCRIPT, f"sleep 2.5; {SCRIPT}"], ids=["at once", "after lost_after"])
def test_a_spool_that_cannot_be_read_is_told_and_keeps_nothing_from_arriving(
    wrapper: Wrapper, collector: Collector, script: str
):
    spool = wrapper.home / "spool" / sha256(wrapper.url.encode()).hexdigest()[:16]
    spool.mkdir(parents=True)
    (spool / "00000000000000000001-1-0").mkdir()  # where a file should be
    (spool / "00000000000000000002-1-0").write_bytes(b"\xff\0 no json")

    said = ran(wrapper.shell(script, "--heartbeat", "0.2s", stdin=GIVEN)).decode().splitlines()

    assert collector.run(wrapper.scheduler)["status"] == "failed"
    assert len(said) == 2
    assert said[0].startswith(
        f"taskscope: what waits in {spool}/00000000000000000001-1-0 is not sent, because "
    )
    assert "refuses it: 422" in said[1]
    assert [path.name for path in spool.iterdir()] == ["00000000000000000001-1-0"]


def test_a_round_that_fails_is_not_the_last(
    wrapper: Wrapper, collector: Collector, broken: Callable[[str], dict[str, str]]
):
    fails_once = (
        "from taskscope.exec import report\npost, tried = report.Report._post, []\n"
        "def failing(self, body):\n"
        "    tried.append(body)\n"
        "    if len(tried) == 1: raise RuntimeError('a fault of ours')\n"
        "    post(self, body)\n"
        "report.Report._post = failing"
    )
    process = wrapper.start(
        *("--heartbeat", "0.2s", "--", "sh", "-c", "read line"),
        stdin=subprocess.PIPE,
        env=broken(fails_once),
    )

    collector.until_runs(wrapper.scheduler, "started")

    _, said = process.communicate(b"\n", timeout=20)
    assert said.startswith(b"taskscope: RuntimeError: a fault of ours; ")
    assert collector.run(wrapper.scheduler)["status"] == "success"


SABOTAGE = {
    "no thread is to be had": 'import threading\ndef start(self): raise RuntimeError("can\'t start new thread")\n'
    "threading.Thread.start = start",
    "no pipe is to be had": "import os\ndef pipe(): raise OSError(24, 'Too many open files')\nos.pipe = pipe",
    "no process is to be had": "import os\ndef spawn(*a, **k): raise OSError(11, 'Resource temporarily unavailable')\n"
    "os.posix_spawnp = spawn",
    "no signal can be waited for": "import signal\ndel signal.sigtimedwait",
    "no random number is to be had": "import os\ndef urandom(n): raise OSError(5, 'Input/output error')\n"
    "os.urandom = urandom",
    "a command cannot be given a name": "from taskscope.exec import name\n"
    "def name_of(command): raise RecursionError\nname.name_of = name_of",
    "nothing can be sent": "import sys\nsys.modules['http.client'] = None",
    "nothing can be packed": "import sys\nsys.modules['json'] = None",
    "the disk has errors": "import os\ndef fsync(f): raise OSError(5, 'Input/output error')\nos.fsync = fsync",
}


@pytest.mark.parametrize("what", SABOTAGE)
def test_the_command_runs_although(lonely: Wrapper, broken: Callable[[str], dict[str, str]], what: str):
    """Errors that cannot be had for real here are put where the system would raise them."""
    said = ran(lonely.shell(SCRIPT, stdin=GIVEN, env=broken(SABOTAGE[what]))).decode()

    assert "Traceback" not in said
    assert said.count("\n") <= 1


WITHOUT_HANDLES = {
    "an old kernel": "import os\ndef pidfd_open(pid): raise OSError(38, 'Function not implemented')\n"
    "os.pidfd_open = pidfd_open",
    "a container that forbids it": "import os\ndef pidfd_open(pid): raise PermissionError(1, 'not permitted')\n"
    "os.pidfd_open = pidfd_open",
    "another system": "import os, signal\ndel os.pidfd_open, signal.pidfd_send_signal\n"
    "del signal.SIGRTMIN, signal.SIGRTMAX",
}


@pytest.mark.parametrize("what", WITHOUT_HANDLES)
def test_without_handles_of_processes_a_timeout_ends_the_command_and_its_children(
    lonely: Wrapper, broken: Callable[[str], dict[str, str]], what: str
):
    flags = ["--timeout", "0.3", "--kill-after", "0.3"]
    script = "trap '' TERM; sh -c 'echo $$; exec sleep 60' & wait; wait"

    done = lonely.shell(script, *flags, env=broken(WITHOUT_HANDLES[what]))

    assert (done.returncode, done.stderr) == (-signal.SIGKILL, b"")
    assert is_gone(int(done.stdout))
    assert lonely.spooled()[-1]["reason"] == "timeout"


def test_a_signal_that_may_not_be_passed_on_leaves_the_timeout_in_force(
    lonely: Wrapper, broken: Callable[[str], dict[str, str]]
):
    forbids = "import os\ndef kill(pid, number): raise PermissionError(1, 'Operation not permitted')\nos.kill = kill"
    script = "trap 'exit 0' TERM; echo up; for i in $(seq 200); do sleep 0.1; done"
    process = lonely.start("--timeout", "1s", "--", "sh", "-c", script, env=broken(forbids))
    assert process.stdout is not None
    process.stdout.readline()

    process.send_signal(signal.SIGUSR1)

    assert process.wait(20) == 124
    assert b"taskscope" not in process.communicate()[1]


BROKEN = {
    "telling of it": "from taskscope.exec import report\ndef begin(self, events): raise MemoryError\n"
    "report.Report.begin = begin",
    "making its events": "from taskscope.exec import run\ndef _defined(self): raise MemoryError\n"
    "run.Run._defined = _defined",
    "closing the pipe": "from taskscope.exec import tail\ndef started(self): raise OSError(5, 'Input/output error')\n"
    "tail.PipeTail.started = tail.Tail.started = started",
}
"""What of ours may break once the command runs."""


@pytest.mark.parametrize("what", BROKEN)
def test_a_command_that_runs_is_not_run_again_although_something_breaks(
    lonely: Wrapper, tmp_path: Path, broken: Callable[[str], dict[str, str]], what: str
):
    said = ran(
        lonely.shell(f"echo ran >> {tmp_path}/ran; {SCRIPT}", stdin=GIVEN, env=broken(BROKEN[what]))
    ).decode()

    assert (tmp_path / "ran").read_text() == "ran\n"
    assert said.count("\n") == 1


@pytest.mark.parametrize("what", ["telling of it", "making its events"])
def test_a_lock_keeps_a_second_run_away_although_something_breaks(
    lonely: Wrapper, broken: Callable[[str], dict[str, str]], what: str
):
    first = locked(lonely)

    second = lonely.run("--job", "j", "--lock", "--", "echo", "twice", env=broken(BROKEN[what]))

    assert (second.returncode, second.stdout) == (75, b"")
    first.communicate(b"\n", timeout=20)


def test_a_command_that_runs_without_us_keeps_its_lock(
    lonely: Wrapper, broken: Callable[[str], dict[str, str]]
):
    first = locked(lonely, env=broken(SABOTAGE["no signal can be waited for"]))

    second = lonely.run("--job", "j", "--lock", "--", "echo", "twice")

    assert (second.returncode, second.stdout) == (75, b"")
    first.communicate(b"\n", timeout=20)


def test_a_command_does_not_get_the_handle_of_its_lock(lonely: Wrapper):
    done = lonely.run("--job", "j", "--lock", "--", "ls", "-l", "/proc/self/fd")

    assert b".lock" not in done.stdout


def locked(wrapper: Wrapper, **more: Any) -> "subprocess.Popen[bytes]":
    """A run of the job `j` that has its lock, and ends with its stdin."""
    process = wrapper.start(
        "--job", "j", "--lock", "--", "sh", "-c", "echo up; read line", stdin=subprocess.PIPE, **more
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


def test_two_wrappers_that_drain_one_spool_tell_each_run_once(wrapper: Wrapper, collector: Collector):
    wrapper.url = NOWHERE
    for _ in range(5):
        wrapper.run("--job", "j", "--", "true")
    wrapper.correct(collector.url)

    both: list[Any] = [wrapper.start("--job", "j", "--", "true") for _ in range(2)]
    assert [process.wait(30) for process in both] == [0, 0]

    assert len(collector.runs(wrapper.scheduler)) == 7
    assert collector.value("taskscope_runs_total", scheduler=wrapper.scheduler, status="success") == 7


def test_a_program_that_embeds_taskscope_is_not_disturbed_by_what_is_said_to_its_wrapper(wrapper: Wrapper):
    program = "import taskscope; taskscope.Exporter(history=None, port=None); print('fine')"
    said = {
        "TASKSCOPE_HEARTBEAT": "5s",
        "TASKSCOPE_SPOOL": str(wrapper.home / "spool"),
        "TASKSCOPE_FORWARD_TOKEN": "t",
    }

    done = wrapper.run("--job", "j", "--", sys.executable, "-c", program, env=said)

    assert (done.returncode, done.stdout) == (0, b"fine\n"), done.stderr
